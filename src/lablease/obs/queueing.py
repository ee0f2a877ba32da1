"""First come first served: who waited, in which order, when an exporter was given away.

Only what the record proves is called an inversion. Leases with a begin of their own are booked, not queued, and left
out. Where access policies exist, two leases are compared if they are the same client's, or if both got the very
exporter under the same priority: whether a policy would have let somebody else in is the operator's business.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lablease.model.keys import Key
from lablease.obs.timeline import (
    LEASES,
    POLICIES,
    ExporterState,
    LeaseState,
    Write,
    exporter_state,
    lease_state,
    selects,
)

Place = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class Inversion:
    """An exporter went past an older lease; ``write`` took the slot."""

    write: Write
    problem: str


@dataclass(frozen=True, slots=True)
class _Suspect:
    write: Write
    exporter: Key
    taker: LeaseState
    older: LeaseState


class Queue:
    """The leases that wait, in order, as the writes go by."""

    def __init__(self, writes: Sequence[Write], seen: timedelta, batch: timedelta) -> None:
        self._seen = seen
        self._batch = batch
        self._policies = any(write.access.resource == POLICIES for write in writes)
        self._got = _slots_taken(writes)
        self._priority = _priorities(writes)
        self._waiting: list[tuple[Place, Key]] = []
        self._states: dict[Key, LeaseState] = {}
        self._known: dict[Key, datetime] = {}
        self._slots: dict[Key, tuple[str, int]] = {}
        self._suspects: list[_Suspect] = []

    def lease(self, write: Write, after: LeaseState | None) -> None:
        """Take note of a write to a lease."""
        before = self._states.pop(write.key, None)
        if before and before.place and before.waits:
            index = bisect.bisect_left(self._waiting, (before.place, write.key))
            if index < len(self._waiting) and self._waiting[index] == (before.place, write.key):
                del self._waiting[index]
        if after is None:
            return
        if before is None or before.uid != after.uid or before.waits != after.waits:
            self._known[write.key] = write.access.answered
        self._states[write.key] = after
        if after.waits and after.place and after.begin_asked is None:
            bisect.insort(self._waiting, (after.place, write.key))

    def exporter(self, write: Write, after: ExporterState | None) -> None:
        """Take note of a write to an exporter; if it gives the slot away, look who waited longer."""
        slot = (after.slot, after.grant) if after else ("", 0)
        if after and after.slot and slot != self._slots.get(write.key):
            taker = self._states.get(Key(write.key.namespace, after.slot))
            if taker and taker.place and taker.begin_asked is None:
                self._suspects += [
                    _Suspect(write, after.key, taker, older) for older in self._older(write, taker, after)
                ]
        self._slots[write.key] = slot

    def _older(self, write: Write, taker: LeaseState, exporter: ExporterState) -> Iterator[LeaseState]:
        decided = write.access.received
        for place, key in self._waiting:
            if taker.place is None or place >= taker.place:
                return
            older = self._states[key]
            if (
                key.namespace == taker.key.namespace
                and self._known[key] + self._seen <= decided
                and _fits(older, exporter)
            ):
                yield older

    def inversions(self) -> Iterator[Inversion]:
        """Return what is left when all is known: not the older leases that the same pass served as well."""
        for suspect in self._suspects:
            older, taker = suspect.older, suspect.taker
            served = self._got.get((older.key, older.uid))
            decided = suspect.write.access.received
            if served and served[0] <= decided + self._batch:
                continue
            if not self._comparable(suspect, served[1] if served else None):
                continue
            yield Inversion(
                suspect.write,
                f"exporter {suspect.exporter} went to lease {taker.key} (created {_when(taker)}) "
                f"while lease {older.key} (created {_when(older)}) waited for it",
            )

    def _comparable(self, suspect: _Suspect, served: Key | None) -> bool:
        older, taker = suspect.older, suspect.taker
        mine, its = self._priority.get(taker.uid), self._priority.get(older.uid)
        if mine is not None and its is not None and mine != its:
            return False
        if not self._policies:
            return True
        if older.client == taker.client:
            return older.duration is not None and taker.duration is not None and older.duration <= taker.duration
        return served == suspect.exporter and mine is not None and its is not None


def _fits(lease: LeaseState, exporter: ExporterState) -> bool:
    if lease.pin and lease.pin != exporter.key.name:
        return False
    if not exporter.enabled and not lease.allow_disabled:
        return False
    return selects(lease.selector, exporter.labels)


def _slots_taken(writes: Sequence[Write]) -> dict[tuple[Key, str], tuple[datetime, Key]]:
    """When each lease got a slot for the first time, and which."""
    found: dict[tuple[Key, str], tuple[datetime, Key]] = {}
    uids: dict[Key, str] = {}
    for write in writes:
        if write.access.resource == LEASES and write.after:
            uids[write.key] = lease_state(write.after).uid
        elif write.after and write.access.resource.startswith("exporters."):
            state = exporter_state(write.after)
            lease = Key(write.key.namespace, state.slot)
            if state.slot and lease in uids:
                found.setdefault((lease, uids[lease]), (write.access.received, state.key))
    return found


def _priorities(writes: Sequence[Write]) -> dict[str, int]:
    """The priority under which each lease (by uid) was granted."""
    found: dict[str, int] = {}
    for write in writes:
        if write.access.resource == LEASES and write.after:
            state = lease_state(write.after)
            if state.grant:
                found[state.uid] = state.priority
    return found


def _when(lease: LeaseState) -> str:
    return lease.created.isoformat() if lease.created else "?"
