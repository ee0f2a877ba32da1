"""What an exporter is told on its Status stream, as pure functions of what was told before and what holds now."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lablease.model.exporter import Exporter, ExporterStatus
from lablease.model.lease import Lease
from lablease.rules.holding import grant_of


@dataclass(frozen=True, slots=True)
class Held:
    """The exporter is leased: by which lease, under which grant, for whom and until when."""

    lease: str
    grant: int
    client: str
    end: datetime | None = None
    context: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Free:
    """Nobody holds the exporter; all grants up to ``over`` are over."""

    over: int


Word = Held | Free


def word(exporter: Exporter, lease: Lease | None) -> Word:
    """Return what holds; ``lease`` is the one that the exporter's slot names, None if it is not known (yet).

    Of a lease that is known to be deleted say ``over`` instead.
    """
    grant = grant_of(exporter, lease)
    if grant is not None and lease is not None:
        return Held(grant.lease, grant.number, grant.client, grant.end, lease.spec.context)
    if exporter.lease is None or (lease is not None and lease.status.grant == exporter.grant):
        return Free(exporter.grant)
    return _before(exporter.grant)


def over(exporter: Exporter) -> Free:
    """The last grant of the exporter is over, whatever its slot still names: the lease does not exist any more."""
    return Free(exporter.grant)


def settled(exporter: Exporter, lease: Lease | None) -> bool:
    """True if the two objects are of one moment: a slot that names a lease with another grant may be a late look."""
    return exporter.lease is None or (lease is not None and lease.status.grant == exporter.grant)


def next_words(told: Word | None, now: Word, status: ExporterStatus | None) -> tuple[Word, ...]:
    """Return the messages that bring an exporter from what it was told (None: nothing on this stream) to what holds.

    Between two grants there is always a word that it is free: jmp 0.9.0 ignores a lease name that changes without one.
    A new stream begins with that word too if the exporter reported that it is Available, since it may have missed the
    end of another lease; while it is busy, or never reported anything, the lease is told at once, because that word
    would end a session that goes on.
    """
    match told, now:
        case None, Held() if status is ExporterStatus.AVAILABLE:
            return _before(now.grant), now
        case None, _:
            return (now,)
        case Held(), Held() if told.grant != now.grant or told.lease != now.lease:
            return _before(now.grant), now
        case Free(), Free():
            return ()
        case _:
            return () if told == now else (now,)


def _before(grant: int) -> Free:
    return Free(max(grant - 1, 0))
