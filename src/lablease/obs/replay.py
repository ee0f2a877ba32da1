"""The record gone through once: who had which exporter from when to when, and what was broken on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

from lablease.model.keys import Key
from lablease.obs.queueing import Queue
from lablease.obs.timeline import EXPORTERS, LEASES, ExporterState, LeaseState, Write, exporter_state, lease_state

_HOOKS = ("BeforeLeaseHook", "AfterLeaseHook")


class Sentence(IntEnum):
    """The sentences of the contract."""

    ONE_HOLDER = 1
    EVERY_GRANT_ENDS = 2
    FIRST_COME = 3
    NOTHING_LOST = 4
    REFUSALS_HAVE_REASONS = 5
    DURABLE = 6


@dataclass(frozen=True, slots=True)
class Broken:
    """One place where a sentence does not hold; ``where`` is the line of the log that shows it."""

    sentence: Sentence
    where: str
    time: datetime | None
    problem: str


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is granted to clocks, watches and pools before a sentence counts as broken."""

    end_told: timedelta = timedelta(seconds=1)
    """Calls after the end was told: the contract's own second."""
    planned_end: timedelta = timedelta(seconds=0.25)
    """Calls after the planned end: from the wire to the device's log."""
    overdue: timedelta = timedelta(seconds=10)
    """A lease that should have ended, or been decided, when the record ends."""
    seen: timedelta = timedelta(seconds=0.5)
    """From the creation of a lease until every decision knows it."""
    batch: timedelta = timedelta(seconds=1)
    """Decisions of one pass are written side by side: an older lease may come this much later."""


@dataclass(slots=True)
class Grant:
    """One grant as the record shows it. ``plans`` and ``clients`` are what was told, with the time of telling."""

    exporter: Key
    lease: Key
    number: int
    start: datetime
    told: datetime | None = None
    plans: list[tuple[datetime, datetime | None]] = field(default_factory=list[tuple[datetime, datetime | None]])
    clients: list[tuple[datetime, str]] = field(default_factory=list[tuple[datetime, str]])


class Replay:
    """Goes through the writes once and notes what breaks sentences 1, 3 and 5 on the way."""

    def __init__(self, writes: Sequence[Write], tolerance: Tolerance) -> None:
        self.broken: list[Broken] = []
        self.leases: dict[Key, LeaseState] = {}
        self.exporters: dict[Key, ExporterState] = {}
        self.grants: list[Grant] = []
        self.seen: dict[Key, Write] = {}
        """The last write to each lease that is there."""
        self.hooks: dict[Key, list[tuple[datetime, bool]]] = {}
        """When each exporter began and ceased to run hooks."""
        self._open: dict[Key, Grant] = {}
        self._holders: dict[Key, set[Key]] = {}
        self._highest: dict[Key, int] = {}
        self._queue = Queue(writes, tolerance.seen, tolerance.batch)
        for write in writes:
            self._take(write)
        for inversion in self._queue.inversions():
            self._break(Sentence.FIRST_COME, inversion.write, inversion.problem)

    def _break(self, sentence: Sentence, write: Write, problem: str) -> None:
        self.broken.append(Broken(sentence, write.access.where, write.access.answered, problem))

    def _take(self, write: Write) -> None:
        if write.access.resource == LEASES:
            after = lease_state(write.after) if write.after else None
            before = self.leases.pop(write.key, None)
            if after:
                self.leases[write.key] = after
                self.seen[write.key] = write
            else:
                self.seen.pop(write.key, None)
            self._lease(write, before if before and after and before.uid == after.uid else None, after)
            self._queue.lease(write, after)
        elif write.access.resource == EXPORTERS:
            state = exporter_state(write.after) if write.after else None
            old = self.exporters.pop(write.key, None)
            if state:
                self.exporters[write.key] = state
                self._exporter(write, old if old and old.uid == state.uid else None, state)
            self._queue.exporter(write, state)

    # ---- leases -----------------------------------------------------------------------------------------------------

    def _lease(self, write: Write, before: LeaseState | None, after: LeaseState | None) -> None:
        if before is None or after is None:
            self._end(write)  # gone, or another one of the same name
        if after is None:
            return
        if before and before.grant and after.grant != before.grant:
            self._break(Sentence.ONE_HOLDER, write, f"lease {after.key}: grant {before.grant} became {after.grant}")
        if before and before.ended and not after.ended:
            self._break(Sentence.EVERY_GRANT_ENDS, write, f"lease {after.key} had ended and runs again")
        if after.holds and not (before and before.holds):
            self._begin(write, after)
        elif not after.holds:
            self._end(write)
        if grant := self._open.get(after.key):
            when = write.access.answered
            grant.plans.append((when, after.planned_end))
            grant.clients.append((when, after.client))
        self._reasons(write, before, after)

    def _begin(self, write: Write, lease: LeaseState) -> None:
        exporter = Key(lease.key.namespace, lease.exporter)
        for other in sorted(self._holders.get(exporter, set())):
            self._break(
                Sentence.ONE_HOLDER, write, f"exporter {exporter} went to lease {lease.key} while lease {other} had it"
            )
        slot = self.exporters.get(exporter)
        if slot and (slot.slot, slot.grant) != (lease.key.name, lease.grant):
            said = f"lease {lease.key} says it has exporter {exporter} under grant {lease.grant}"
            self._break(
                Sentence.ONE_HOLDER, write, f"{said}, whose slot names {slot.slot or 'nobody'} under {slot.grant}"
            )
        self._holders.setdefault(exporter, set()).add(lease.key)
        self._open[lease.key] = Grant(exporter, lease.key, lease.grant, write.access.received)
        self.grants.append(self._open[lease.key])

    def _end(self, write: Write) -> None:
        grant = self._open.pop(write.key, None)
        if grant:
            grant.told = write.access.answered
            self._holders[grant.exporter].discard(grant.lease)

    def _reasons(self, write: Write, before: LeaseState | None, after: LeaseState) -> None:
        old = before.conditions if before else ()
        for found in after.conditions:
            if found in old:
                continue
            if found.kind in ("Unsatisfiable", "Invalid") and found.true and not (found.reason and found.message):
                problem = f"lease {after.key}: {found.kind} without a reason or a message"
                self._break(Sentence.REFUSALS_HAVE_REASONS, write, problem)
            if found.reason == "NoExporter":
                problem = f"lease {after.key}: reason NoExporter makes jmp 0.9.0 create leases for ever"
                self._break(Sentence.REFUSALS_HAVE_REASONS, write, problem)
        if after.ended and not (before and before.ended):
            last = after.conditions[-1] if after.conditions else None
            if last is None or not (last.reason and last.message):
                problem = f"lease {after.key} ended, and its last condition has no reason or no message"
                self._break(Sentence.REFUSALS_HAVE_REASONS, write, problem)

    # ---- exporters --------------------------------------------------------------------------------------------------

    def _exporter(self, write: Write, before: ExporterState | None, after: ExporterState) -> None:
        hooks = after.status in _HOOKS
        self.hooks.setdefault(after.key, []).append((write.access.received, hooks))
        highest = self._highest.get(after.key, 0)
        fresh = after.slot and (before is None or (before.slot, before.grant) != (after.slot, after.grant))
        if before and after.grant < before.grant:
            problem = f"exporter {after.key}: grant fell from {before.grant} to {after.grant}"
            self._break(Sentence.ONE_HOLDER, write, problem)
        elif fresh and highest and after.grant <= highest:
            problem = f"exporter {after.key}: its slot went to lease {after.slot} under grant {after.grant}"
            self._break(Sentence.ONE_HOLDER, write, f"{problem}, and {highest} was there before")
        self._highest[after.key] = max(highest, after.grant)
        for lease in sorted(self._holders.get(after.key, set())) if before else ():
            if before and before.slot == lease.name != after.slot:
                problem = f"exporter {after.key}: its slot left lease {lease} before that had ended"
                self._break(Sentence.ONE_HOLDER, write, problem)
