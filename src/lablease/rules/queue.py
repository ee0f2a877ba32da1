"""Where a waiting lease stands, and when it may begin: computed when somebody asks, never stored."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from lablease.model.lease import Lease
from lablease.rules import times
from lablease.rules.allocation import claim, turn_of
from lablease.rules.matching import Choices, request_of
from lablease.rules.world import World


@dataclass(frozen=True, slots=True)
class Place:
    """``position`` counts from 1. ``begin`` is an estimate: it takes every planned end at its word; None if unknown."""

    position: int
    begin: datetime | None


def place(lease: Lease, world: World, now: datetime) -> Place | None:
    """Return the place of a lease that waits; None if it does not wait, or nothing may ever serve it.

    Ahead of it is who waits and would get one of its exporters before it.
    """
    mine = _choices(lease, world)
    if lease.status.exporter is not None or lease.status.ended or not mine:
        return None
    ahead = sum(1 for other in world.leases.values() if _is_ahead(other, lease, mine, world, now))
    return Place(ahead + 1, _estimate(lease, ahead, mine, world, now))


def _choices(lease: Lease, world: World) -> Choices:
    client = world.clients.get(lease.spec.client)
    if client is None or lease.problems:
        return {}
    return world.choices_for(request_of(lease, client, world.access))


def _is_ahead(other: Lease, lease: Lease, mine: Choices, world: World, now: datetime) -> bool:
    if other.key == lease.key or other.status.exporter is not None or other.release_asked:
        return False
    if other.spec.begin is not None and other.spec.begin > now:
        return False
    theirs = _choices(other, world)
    shared = theirs.keys() & mine.keys()
    return any(claim(theirs[name], turn_of(other)) < claim(mine[name], turn_of(lease)) for name in shared)


def _estimate(lease: Lease, ahead: int, mine: Iterable[str], world: World, now: datetime) -> datetime | None:
    """The end of the lease in front of it, if all exporters that may serve it are freed as planned."""
    free: list[datetime] = []
    for name in mine:
        exporter = world.exporters[name]
        if world.online(exporter, now):
            holder = world.leases.get(exporter.lease or "")
            free.append(max(now, (times.planned_end(holder) or now) if holder is not None else now))
    free.sort()
    if ahead >= len(free):
        return None
    earliest = free[ahead]
    return earliest if lease.spec.begin is None else max(earliest, lease.spec.begin)
