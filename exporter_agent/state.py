"""What an agent may do next: one table for the life of a lease session, one function for what the controller says.

Pure: no clock, no I/O. What the table does not list is a defect and raises.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """Where the agent is with the one lease that it may serve."""

    IDLE = "idle"
    BUILDING = "building"
    BEFORE_HOOK = "before-hook"
    BEFORE_FAILED = "before-failed"
    READY = "ready"
    AFTER_HOOK = "after-hook"
    AFTER_FAILED = "after-failed"
    DONE = "done"
    CLEANING = "cleaning"


class Event(StrEnum):
    """What moves it on."""

    GRANTED = "granted"
    BUILT = "built"
    PREPARED = "prepared"
    FAILED = "failed"
    FINISHING = "finishing"
    """EndSession, or the end of the lease, while the session was ready: the afterLease hook is next."""
    FINISHED = "finished"
    LEFT = "left"
    """The lease is over and every hook that had to run has run: what is left is to clean."""
    CLEAN = "clean"
    """No process of the grant lives."""


NEXT: Final[Mapping[tuple[Phase, Event], Phase]] = {
    (Phase.IDLE, Event.GRANTED): Phase.BUILDING,
    (Phase.BUILDING, Event.BUILT): Phase.BEFORE_HOOK,
    (Phase.BUILDING, Event.FAILED): Phase.BEFORE_FAILED,
    (Phase.BUILDING, Event.LEFT): Phase.CLEANING,
    (Phase.BEFORE_HOOK, Event.PREPARED): Phase.READY,
    (Phase.BEFORE_HOOK, Event.FAILED): Phase.BEFORE_FAILED,
    (Phase.BEFORE_HOOK, Event.FINISHING): Phase.AFTER_HOOK,
    (Phase.BEFORE_FAILED, Event.LEFT): Phase.CLEANING,
    (Phase.READY, Event.FINISHING): Phase.AFTER_HOOK,
    (Phase.AFTER_HOOK, Event.FINISHED): Phase.DONE,
    (Phase.AFTER_HOOK, Event.FAILED): Phase.AFTER_FAILED,
    (Phase.AFTER_FAILED, Event.LEFT): Phase.CLEANING,
    (Phase.DONE, Event.LEFT): Phase.CLEANING,
    (Phase.CLEANING, Event.CLEAN): Phase.IDLE,
}


class ImpossibleEvent(Exception):
    """An event came in a phase in which it cannot happen."""


def step(phase: Phase, event: Event) -> Phase:
    """Return the next phase.

    Raises:
        ImpossibleEvent: the table does not list the pair.
    """
    try:
        return NEXT[phase, event]
    except KeyError:
        raise ImpossibleEvent(f"{event} in phase {phase}") from None


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that this exporter serves. ``grant`` 0 and ``planned_end`` None: the controller does not send them."""

    lease: str
    client: str = ""
    grant: int = 0
    planned_end: datetime | None = None

    def same_grant(self, other: "Held") -> bool:
        """Tell whether both are one grant: a transfer or an extension changes neither lease nor grant."""
        return (self.lease, self.grant) == (other.lease, other.grant)


@dataclass(frozen=True, slots=True)
class Told:
    """One message of the Status stream. ``held`` is None for "not leased"; ``released_grant`` 0 means not sent."""

    held: Held | None
    released_grant: int = 0


class Move(StrEnum):
    """What a Status message asks of the agent."""

    NOTHING = "nothing"
    START = "start"
    END = "end"
    REPLACE = "replace"
    """End the old lease, then start the new one: the controller went from one to the other without a gap."""
    TRANSFER = "transfer"
    """Same grant, another client: the old client's tunnels end, the session goes on."""
    RETIME = "retime"
    """Same grant, another planned end."""


def react(current: Held | None, closed: Held | None, highest_grant: int, told: Told, now: datetime) -> Move:
    """Return what to do about a message.

    Args:
        current: the lease that is served, until its session is clean.
        closed: the lease that this agent ended last by itself (expiry, release); the controller may still name it.
        highest_grant: the highest grant ever served; a lower one is a ghost of a partition.
        told: the message.
        now: wall-clock time.
    """
    held = told.held
    if held is None:
        if current is None or 0 < told.released_grant < current.grant:
            return Move.NOTHING
        return Move.END
    if 0 < held.grant < highest_grant or not held.lease:
        return Move.NOTHING
    if current is not None and current.same_grant(held):
        if current.client != held.client:
            return Move.TRANSFER
        return Move.NOTHING if current.planned_end == held.planned_end else Move.RETIME
    if held.planned_end is not None and held.planned_end <= now:
        return Move.NOTHING
    if closed is not None and closed.same_grant(held) and not _extended(closed, held):
        return Move.NOTHING
    return Move.START if current is None else Move.REPLACE


def _extended(closed: Held, held: Held) -> bool:
    return closed.planned_end is not None and held.planned_end is not None and held.planned_end > closed.planned_end
