"""Bookings: an exporter is kept for a lease whose begin is near, and shorter leases may use it until then.

Within ``HORIZON`` each booking, in the order of begins, has one exporter kept from leases whose end lies after its begin
and which came later than the booking: who asked earlier, or outranks it, is not held up by it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from lablease.model.exporter import Exporter
from lablease.model.lease import Lease
from lablease.rules import times
from lablease.rules.allocation import Claim, claim, microseconds
from lablease.rules.matching import Request
from lablease.rules.policy import Approval
from lablease.rules.world import World

HORIZON = timedelta(hours=24)
"""Bookings that begin later do not keep anything yet."""


@dataclass(frozen=True, slots=True)
class Booking:
    """A lease with a begin of its own that has no exporter yet."""

    lease: Lease
    request: Request
    begin: datetime

    @property
    def end(self) -> datetime:
        """When it ends, known before it begins."""
        return times.end_if_begun(self.lease.spec, self.begin) or self.begin


@dataclass(frozen=True, slots=True)
class Kept:
    """An exporter is kept for ``lease`` from ``begin`` to ``end``; ``claim`` says who came earlier."""

    lease: str
    begin: datetime
    end: datetime
    claim: Claim


Keeps = Mapping[str, tuple[Kept, ...]]
"""By exporter."""


def keeps(bookings: Iterable[Booking], world: World, now: datetime) -> Keeps:
    """Choose an exporter for each booking within the horizon: one that is free in time, else the one free first."""
    kept: defaultdict[str, tuple[Kept, ...]] = defaultdict(tuple)
    near = [item for item in bookings if item.begin <= now + HORIZON]
    for booking in sorted(near, key=lambda item: (item.begin, item.lease.meta.created, item.lease.key.name)):
        ranked = [
            (_late(exporter, booking, world, now), approval.rank, name)
            for name, approval in world.choices_for(booking.request).items()
            if world.online(exporter := world.exporters[name], now) and not _overlaps(kept.get(name, ()), booking)
        ]
        if ranked:
            name = min(ranked)[2]
            approval = world.choices_for(booking.request)[name]
            mine = _seniority(booking.lease, approval)
            kept[name] = (*kept[name], Kept(booking.lease.key.name, booking.begin, booking.end, mine))
    return dict(kept)


def _late(exporter: Exporter, booking: Booking, world: World, now: datetime) -> timedelta:
    """How long after its begin the exporter is free for it; zero if in time."""
    holder = world.leases.get(exporter.lease or "")
    if holder is None:
        return timedelta(0)
    return max(timedelta(0), (times.planned_end(holder) or now) - max(booking.begin, now))


def _overlaps(kept: tuple[Kept, ...], booking: Booking) -> bool:
    """True if one that begins no later, as all that were kept before do, is not over at its begin."""
    return any(booking.begin < item.end for item in kept)


def _seniority(lease: Lease, approval: Approval) -> Claim:
    return claim(approval, (microseconds(lease.meta.created), lease.key.name))


def is_blocked(lease: Lease, approval: Approval, kept: tuple[Kept, ...], now: datetime) -> bool:
    """True if a lease that would begin now must leave an exporter to one of the bookings that it is kept for."""
    end = times.end_if_begun(lease.spec, now) or now
    mine = _seniority(lease, approval)
    return any(item.lease != lease.key.name and item.begin < end and item.claim < mine for item in kept)
