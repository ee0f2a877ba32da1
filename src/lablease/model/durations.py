"""Durations and instants as the CRDs spell them: Go durations and RFC 3339."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from lablease.errors import InvalidField

_UNIT_MICROSECONDS = {
    "ns": Decimal("0.001"),
    "us": Decimal(1),
    "µs": Decimal(1),
    "μs": Decimal(1),
    "ms": Decimal(1_000),
    "s": Decimal(1_000_000),
    "m": Decimal(60_000_000),
    "h": Decimal(3_600_000_000),
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_MAXIMUM_MICROSECONDS = (2**63 - 1) // 1_000
"""A Go duration is an int64 of nanoseconds."""


def parse_duration(text: str, field: str) -> timedelta:
    """Read a Go duration such as ``1h30m``, ``500ms`` or ``1.5h``; fractions below a microsecond are cut.

    Raises:
        InvalidField: the text is no Go duration (``1d`` is none) or does not fit into an int64 of nanoseconds.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return timedelta(0)
    total, position = Decimal(0), 0
    for part in _PART.finditer(rest):
        if part.start() != position:
            break
        total += Decimal(part[1]) * _UNIT_MICROSECONDS[part[2]]
        position = part.end()
    if not rest or position != len(rest):
        raise InvalidField(field, f"{text!r} is not a duration: use units h, m, s, ms, for example 30m or 1h30m")
    if total > _MAXIMUM_MICROSECONDS:
        raise InvalidField(field, f"{text!r} is too long: at most about 292 years")
    return timedelta(microseconds=sign * int(total))


def format_duration(value: timedelta) -> str:
    """Spell a duration as Go does: ``1h30m0s``, ``1.5s``, ``500ms``, ``0s``."""
    microseconds = value // timedelta(microseconds=1)
    sign, microseconds = ("-", -microseconds) if microseconds < 0 else ("", microseconds)
    if microseconds == 0:
        return "0s"
    if microseconds < 1_000:
        return f"{sign}{microseconds}µs"
    if microseconds < 1_000_000:
        return f"{sign}{_decimal(microseconds, 1_000)}ms"
    minutes, rest = divmod(microseconds, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{head}{_decimal(rest, 1_000_000)}s"


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = str(fraction).zfill(len(str(unit)) - 1).rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def parse_time(text: str, field: str) -> datetime:
    """Read an RFC 3339 instant; the result is in UTC.

    Raises:
        InvalidField: the text is no RFC 3339 date-time with an offset.
    """
    try:
        value = datetime.fromisoformat(text)
        instant = None if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError):  # overflow: the first hours of year 1 in an offset east of UTC
        instant = None
    if instant is None:
        raise InvalidField(field, f"{text!r} is not an RFC 3339 date-time, for example 2030-01-31T12:00:00Z")
    return instant


def format_time(value: datetime) -> str:
    """Spell an instant as RFC 3339 in UTC; microseconds appear only where they are not zero.

    The CRDs' ``date-time`` keeps what is written, so a planned end is not rounded away.
    """
    return value.astimezone(UTC).isoformat(timespec="auto").replace("+00:00", "Z")
