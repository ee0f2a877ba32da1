"""Durations and instants as people type them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_HUMAN = re.compile(r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?")
_ISO = re.compile(r"P(?:(?P<d>\d+)D)?(?:T(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+)S)?)?", re.IGNORECASE)
_CLOCK = re.compile(r"(?P<h>\d+):(?P<m>[0-5]\d):(?P<s>[0-5]\d)")
_FORMS = "say for example 90, 30m, 1h30m, PT1H30M or 01:30:00"


def parse_duration(text: str) -> timedelta:
    """Read whole seconds, ``1d2h3m4s``, ISO 8601 (``P1DT2H``) or ``HH:MM:SS``.

    Raises:
        ValueError: none of these, or zero.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        seconds = int(text)
    else:
        match = next((m for p in (_HUMAN, _ISO, _CLOCK) if (m := p.fullmatch(text))), None)
        if match is None:
            raise ValueError(f"{text!r} is not a duration; {_FORMS}")
        seconds = sum(int(value) * _UNITS[unit] for unit, value in match.groupdict().items() if value)
    if seconds == 0:
        raise ValueError(f"{text!r} is no time at all; {_FORMS}")
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError(f"{text!r} is longer than can be told") from None


def parse_instant(text: str) -> datetime:
    """Read an ISO 8601 instant; without an offset it is local time.

    Raises:
        ValueError: not ISO 8601.
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is not a time; say for example 2026-05-01T12:00:00+02:00") from None


def format_duration(value: timedelta) -> str:
    """Return ``1d2h``, ``1h30m``, ``2m5s`` …: at most two units, zero and less as ``0s``."""
    left = int(value.total_seconds())
    parts: list[str] = []
    for unit, size in _UNITS.items():
        count, left = divmod(max(left, 0), size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"
