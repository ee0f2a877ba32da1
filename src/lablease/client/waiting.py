"""What the conditions of a lease mean to somebody who waits for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from lablease.client.resources import LeaseInfo

_ENDED = frozenset({"Released", "Expired"})


@dataclass(frozen=True, slots=True)
class Acquired:
    """The exporter is assigned."""

    exporter: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not yet. ``position`` is 0 and ``estimate`` None where the server does not tell."""

    reason: str
    message: str
    position: int
    estimate: datetime | None


@dataclass(frozen=True, slots=True)
class Refused:
    """It will not come any more."""

    reason: str
    message: str


Outlook: TypeAlias = Acquired | Waiting | Refused


def judge(lease: LeaseInfo) -> Outlook:
    """Read the conditions in the order in which ``jmp`` 0.9.0 reads them.

    Ready=True wins; then Unsatisfiable and Invalid; then Ready=False for a lease that ended. Anything else waits,
    also a lease that has no condition yet.
    """
    ready = lease.condition("Ready")
    if ready and ready.status == "True":
        return Acquired(lease.exporter)
    for kind in ("Unsatisfiable", "Invalid"):
        condition = lease.condition(kind)
        if condition and condition.status == "True":
            return Refused(condition.reason or kind, condition.message)
    if ready and ready.status == "False" and ready.reason in _ENDED:
        return Refused(ready.reason, ready.message or "it ended before it was used")
    pending = lease.condition("Pending")
    if pending and pending.status == "True":
        return Waiting(pending.reason, pending.message, lease.queue_position, lease.estimated_begin)
    return Waiting("Undecided", "no decision yet", lease.queue_position, lease.estimated_begin)
