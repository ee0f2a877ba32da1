"""Begin, end and duration of a lease: which combinations mean what, and when it ends.

The combinations are those of jumpstarter 0.9.0.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lablease.errors import InvalidField
from lablease.model.durations import format_duration
from lablease.model.lease import Lease, LeaseSpec

_NOTHING = timedelta(0)
FOREVER = datetime.max.replace(tzinfo=UTC)
"""An end that lies beyond what a date can say."""


@dataclass(frozen=True, slots=True)
class Times:
    """The three times of a request; each may be absent."""

    begin: datetime | None = None
    end: datetime | None = None
    duration: timedelta | None = None

    @property
    def given(self) -> bool:
        """True if any of them is there."""
        return self != Times()


@dataclass(frozen=True, slots=True)
class Fields:
    """How the author spells the three fields, for errors."""

    begin: str = "begin_time"
    end: str = "end_time"
    duration: str = "duration"


SPEC_FIELDS = Fields("spec.beginTime", "spec.endTime", "spec.duration")


def normalise(times: Times, fields: Fields = Fields()) -> Times:
    """Return what a creation stores: begin and end give the duration, end and duration give the begin.

    Nothing is compared with now: an end in the past is accepted, and ends the lease as soon as it began.

    Raises:
        InvalidField: no duration can be known, it is not positive, or the three do not agree.
    """
    begin, end, duration = times.begin, times.end, times.duration
    if begin is not None and end is not None:
        return Times(begin, end, _between(begin, end, duration, fields))
    if duration is None:
        raise InvalidField(fields.duration, f"is required, unless both {fields.begin} and {fields.end} are given")
    if duration <= _NOTHING:
        raise InvalidField(fields.duration, f"must be positive, not {format_duration(duration)}")
    if end is None:
        return times
    try:
        return Times(end - duration, end, duration)
    except OverflowError:
        raise InvalidField(fields.duration, f"is longer than all time before {fields.end}") from None


def _between(begin: datetime, end: datetime, duration: timedelta | None, fields: Fields) -> timedelta:
    length = end - begin
    if length <= _NOTHING:
        raise InvalidField(fields.end, f"must be after {fields.begin}")
    if duration is not None and _NOTHING < duration != length:
        raise InvalidField(
            fields.duration,
            f"{format_duration(duration)} does not agree with {fields.begin} and {fields.end}, "
            f"which are {format_duration(length)} apart",
        )
    return length


def amend(stored: Times, request: Times, *, assigned: bool, fields: Fields = Fields()) -> Times:
    """Return the stored times after an update; absent fields of the request keep what is stored.

    Args:
        stored: the times of the lease.
        request: what the update gives; without any time nothing changes.
        assigned: the lease has an exporter: its begin cannot move any more.
        fields: names for errors.

    Raises:
        InvalidField: the request alone, or the merged result, is not a valid creation; or the begin would move.
    """
    if not request.given:
        return stored
    normalise(request, fields)
    if assigned and request.begin is not None and request.begin != stored.begin:
        raise InvalidField(fields.begin, "cannot change any more: the lease has an exporter")
    merged = Times(
        begin=stored.begin if request.begin is None else request.begin,
        end=stored.end if request.end is None else request.end,
        duration=stored.duration if request.duration is None else request.duration,
    )
    return normalise(merged, fields)


def times_of(spec: LeaseSpec) -> Times:
    """Return the times of a stored lease."""
    return Times(spec.begin, spec.end, spec.duration)


def check(spec: LeaseSpec) -> None:
    """Raise InvalidField if a stored lease can never be granted for its times.

    An object from kubectl may give only an end: it runs until then from whenever it is granted.
    """
    if spec.end is not None and spec.begin is None and spec.duration is None:
        return
    normalise(times_of(spec), SPEC_FIELDS)


def fixed_end(spec: LeaseSpec) -> datetime | None:
    """Return the end that is known before the lease begins, None if it depends on when it does."""
    if spec.end is not None:
        return spec.end
    if spec.begin is not None and spec.duration is not None:
        return later(spec.begin, spec.duration)
    return None


def end_if_begun(spec: LeaseSpec, begun: datetime) -> datetime | None:
    """Return when a lease ends that begins at an instant; None if its spec says nothing about an end.

    A lease with a begin asked for ends at that begin plus its duration, however late it was granted.
    """
    end = fixed_end(spec)
    if end is not None or spec.duration is None:
        return end
    return later(begun, spec.duration)


def planned_end(lease: Lease) -> datetime | None:
    """Return when a lease that has begun ends; None for one that has not begun.

    A running lease whose ``status.endTime`` is set was given notice: it ends then, if not earlier. A lease whose end
    cannot be read any more is over at its begin: nothing may run without an end.
    """
    begun = lease.status.begin
    if begun is None:
        return None
    end = end_if_begun(lease.spec, begun)
    if end is None:
        return begun
    notice = lease.status.end
    return end if notice is None else min(end, notice)


def length(spec: LeaseSpec, created: datetime) -> timedelta:
    """Return the length that policies judge: the duration, else end minus begin, else end minus creation."""
    if spec.duration is not None:
        return spec.duration
    if spec.end is None:
        return _NOTHING
    return spec.end - (spec.begin if spec.begin is not None else created)


def later(instant: datetime, by: timedelta) -> datetime:
    """Return ``instant + by``, cut at the last instant that a date can say."""
    try:
        return instant + by
    except OverflowError:
        return FOREVER
