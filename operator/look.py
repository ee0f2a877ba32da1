"""One look at a namespace: read what has changed, decide with the rules, return the writes. Nothing waits in here.

A look leaves behind that no exporter is free beside a lease that waits for it, except while a write about it is on its
way. Whatever has a write in flight is left alone and looked at again when that is settled.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from lablease.model.exporter import Exporter
from lablease.model.keys import Key
from lablease.model.lease import Lease, LeaseReason
from lablease.operator import bodies
from lablease.operator.realm import Realm
from lablease.operator.writes import Kind, Ref, Urgency, Verb, Write
from lablease.rules import conditions, lifecycle
from lablease.rules.allocation import Match, Offer, assign, never_blocked, offer
from lablease.rules.booking import HORIZON, Booking, is_blocked, keeps
from lablease.rules.conditions import Word
from lablease.rules.holding import next_grant
from lablease.rules.liveness import exporter_conditions
from lablease.rules.matching import Request
from lablease.rules.policy import Approval

Alarm = Callable[[Kind, str, datetime], None]
"""Called with when an object must be looked at again."""


class Look:
    """One pass over what is dirty in one realm."""

    def __init__(self, realm: Realm, now: datetime, alarm: Alarm) -> None:
        self._realm = realm
        self._world = realm.world
        self._now = now
        self._alarm = alarm
        self._writes: list[Write] = []
        self._judged: dict[str, None] = {}
        self._emptied: dict[str, Exporter] = {}
        self._seen: dict[str, bool] = {}
        """Exporters that were judged: whether they are stuck."""

    def run(self) -> list[Write]:
        """Decide, mark in the realm what is being written, and return it."""
        realm = self._realm
        while realm.dirty_leases or realm.dirty_exporters:
            leases, realm.dirty_leases = realm.dirty_leases, {}
            for name in leases:
                self._lease(name)
            exporters, realm.dirty_exporters = realm.dirty_exporters, {}
            for name in exporters:
                self._exporter(name)
        self._allocate()
        self._free()
        self._conditions()
        self._tell()
        self._retire()
        return self._writes

    # Leases

    def _lease(self, name: str) -> None:
        lease = self._world.leases.get(name)
        if lease is None or not self._may_write(Ref(Kind.LEASE, lease.key)):
            return
        step = lifecycle.lease_step(lease, self._world, self._now)
        if not isinstance(step, lifecycle.Queue):
            self._realm.room.drop(name)
        if not isinstance(step, lifecycle.Refuse):
            self._realm.refused.pop(name, None)
        if not isinstance(step, lifecycle.Queue | lifecycle.Later):
            self._realm.unbook(name)
        slot = self._world.slot_naming(name)
        if slot is not None and not isinstance(step, lifecycle.Finish | lifecycle.Run):
            self._realm.dirty_exporters[slot] = None
        match step:
            case lifecycle.End(word):
                self._end(lease, word)
            case lifecycle.Refuse(word, until):
                self._realm.refused[name] = None
                self._wake(Kind.LEASE, name, until)
                self._say(lease, word)
            case lifecycle.Later(begin, request):
                self._later(lease, begin, request)
            case lifecycle.Queue(request, _, until):
                self._queue(lease, request, until)
            case lifecycle.Finish():
                self._finish(lease, step)
            case lifecycle.Retake(exporter):
                self._retake(lease, exporter)
            case lifecycle.Run():
                self._run(lease, step)
            case lifecycle.Stand():
                pass

    def _end(self, lease: Lease, word: Word) -> None:
        status = lease.status
        self._write(
            Write(
                Ref(Kind.LEASE, lease.key),
                Verb.STATUS,
                Urgency.END,
                bodies.lease_ended(lease, self._now, conditions.ended(lease, word, self._now)),
                event="lease.ended",
                facts={
                    "client": lease.spec.client,
                    "exporter": status.exporter,
                    "grant": status.grant,
                    "reason": str(word.reason),
                    "message": word.message,
                    "waited_seconds": _seconds(lifecycle.asked_for(lease), status.begin or self._now),
                    "held_seconds": 0.0 if status.begin is None else _seconds(status.begin, self._now),
                },
            )
        )

    def _later(self, lease: Lease, begin: datetime, request: Request) -> None:
        name = lease.key.name
        self._book(Booking(lease, request, begin))
        self._wake(Kind.LEASE, name, begin)
        if begin - HORIZON > self._now:
            self._wake(Kind.LEASE, name, begin - HORIZON)
        self._say(lease, conditions.pending(LeaseReason.SCHEDULED, "begins at the time that it asked for"))

    def _book(self, booking: Booking) -> None:
        name = booking.lease.key.name
        if self._realm.bookings.get(name) != booking:
            self._realm.bookings[name] = booking
            self._realm.restless = True

    def _queue(self, lease: Lease, request: Request, until: datetime | None) -> None:
        name = lease.key.name
        self._wake(Kind.LEASE, name, until)
        if name in self._world.promises:
            return
        if lease.spec.begin is not None:
            self._book(Booking(lease, request, lease.spec.begin))
        self._realm.room.put(lease, request)
        self._judged[name] = None

    def _finish(self, lease: Lease, step: lifecycle.Finish) -> None:
        exporter = self._world.exporters[step.exporter]
        begin = lease.status.begin or _milliseconds(self._now)
        message = f"has exporter {step.exporter}"
        there = self._world.online(exporter, self._now)
        wanted = conditions.running(lease, message=message, exporter_online=there, now=self._now)
        body = bodies.lease_ready(
            lease, exporter=step.exporter, grant=step.grant, approval=step.approval, begin=begin, conditions=wanted
        )
        facts = {
            "client": lease.spec.client,
            "exporter": step.exporter,
            "grant": step.grant,
            "priority": step.approval.priority,
            "waited_seconds": _seconds(lifecycle.asked_for(lease), begin),
        }
        self._write(
            Write(Ref(Kind.LEASE, lease.key), Verb.STATUS, Urgency.GRANT, body, event="lease.assigned", facts=facts)
        )

    def _retake(self, lease: Lease, name: str) -> None:
        exporter = self._world.exporters[name]
        if self._may_write(Ref(Kind.EXPORTER, exporter.key)):
            self._take(exporter, lease.key.name)

    def _run(self, lease: Lease, step: lifecycle.Run) -> None:
        self._wake(Kind.LEASE, lease.key.name, step.until)
        exporter = self._world.exporters[lease.status.exporter or ""]
        there = self._world.online(exporter, self._now)
        wanted = conditions.running(lease, message=step.message, exporter_online=there, now=self._now)
        if conditions.differs(lease, wanted) or step.notice != lease.status.end:
            self._realm.restless = True  # its end may have moved: bookings are planned around it
            body = bodies.lease_conditions(lease, wanted, step.notice)
            self._write(Write(Ref(Kind.LEASE, lease.key), Verb.STATUS, Urgency.WORD, body))

    def _say(self, lease: Lease, word: Word) -> None:
        wanted = conditions.waiting(lease, word, self._now)
        ref = Ref(Kind.LEASE, lease.key)
        if ref not in self._realm.writing and conditions.differs(lease, wanted):
            body = bodies.lease_conditions(lease, wanted, lease.status.end)
            self._write(Write(ref, Verb.STATUS, Urgency.WORD, body))

    # Exporters

    def _exporter(self, name: str) -> None:
        self._realm.free.pop(name, None)
        self._realm.fresh.pop(name, None)
        exporter = self._world.exporters.get(name)
        if exporter is None or not self._may_write(Ref(Kind.EXPORTER, exporter.key)):
            return
        self._since_when_over(exporter)
        presence = self._world.presences.get(name)
        if presence is not None and presence.deadline is not None and presence.deadline > self._now:
            self._wake(Kind.EXPORTER, name, presence.deadline)
        self._seen[name] = False
        match lifecycle.slot_step(exporter, self._world, self._now):
            case lifecycle.Keep():
                pass
            case lifecycle.Open():
                self._available(exporter)
            case lifecycle.Free():
                self._emptied[name] = exporter
                self._available(exporter)
            case lifecycle.Wait(at, stuck_at):
                self._wake(Kind.EXPORTER, name, at)
                if stuck_at is not None and stuck_at <= self._now:
                    self._seen[name] = True
                else:
                    self._wake(Kind.EXPORTER, name, stuck_at)

    def _since_when_over(self, exporter: Exporter) -> None:
        """Remember since when the slot names a lease that does not run there."""
        name, slot = exporter.key.name, exporter.lease
        lease = None if slot is None else self._world.leases.get(slot)
        if slot is None or (lease is not None and lease.status.exporter in (None, name)):
            self._world.vacated.pop(name, None)
            return
        ended = self._world.ended.get(slot)
        over = ended.at if ended is not None and ended.at is not None else self._now
        self._world.vacated.setdefault(name, over)

    def _available(self, exporter: Exporter) -> None:
        if self._world.ready(exporter, self._now):
            self._realm.free[exporter.key.name] = None
            self._realm.fresh[exporter.key.name] = None

    def _conditions(self) -> None:
        """Write what has changed about exporters whose slot is not being written."""
        for name, stuck in self._seen.items():
            exporter = self._world.exporters[name]
            ref = Ref(Kind.EXPORTER, exporter.key)
            there = self._world.connected(exporter, self._now)
            wanted = exporter_conditions(exporter, connected=there, stuck=stuck, now=self._now)
            if ref not in self._realm.writing and wanted != exporter.conditions:
                self._realm.free.pop(name, None)
                body = bodies.exporter_conditions(exporter, wanted)
                self._write(Write(ref, Verb.STATUS, Urgency.FREE, body))

    # Allocation

    def _allocate(self) -> None:
        realm = self._realm
        moved = self._keep()
        joined = realm.room.take_fresh()
        fresh, realm.fresh = realm.fresh, {}
        offered = {name: None for name in (*fresh, *moved) if name in realm.free}
        if not offered and not joined:
            return
        offers: list[Offer] = []
        everything = self._exporters(realm.free)
        news = self._exporters(offered)
        for line in realm.room.lines:
            free = everything if line.request in joined else news
            if free:
                item = offer(line, self._world.choices_for(line.request), free)
                if item.exporters:
                    offers.append(item)
        for match in assign(offers, self._blocked if realm.keeps else never_blocked):
            self._grant(match)

    def _exporters(self, names: Mapping[str, None]) -> dict[str, Exporter]:
        return {name: self._world.exporters[name] for name in names}

    def _keep(self) -> list[str]:
        """Plan the bookings again; return the exporters that are kept differently from before."""
        realm = self._realm
        if not realm.restless or not (realm.bookings or realm.keeps):
            return []
        old, realm.keeps = realm.keeps, keeps(realm.bookings.values(), self._world, self._now)
        return [name for name in {**old, **realm.keeps} if old.get(name) != realm.keeps.get(name)]

    def _blocked(self, lease: str, exporter: str, approval: Approval) -> bool:
        kept = self._realm.keeps.get(exporter)
        return kept is not None and is_blocked(self._world.leases[lease], approval, kept, self._now)

    def _grant(self, match: Match) -> None:
        self._realm.room.drop(match.lease)
        self._realm.bookings.pop(match.lease, None)
        self._emptied.pop(match.exporter, None)
        self._take(self._world.exporters[match.exporter], match.lease)

    def _take(self, exporter: Exporter, lease: str) -> None:
        name = exporter.key.name
        self._realm.free.pop(name, None)
        self._world.promises[lease] = name
        body = bodies.take_slot(exporter, lease, next_grant(exporter, self._now))
        self._write(Write(Ref(Kind.EXPORTER, exporter.key), Verb.STATUS, Urgency.GRANT, body, promise=lease))

    def _free(self) -> None:
        for name, exporter in self._emptied.items():
            self._realm.free.pop(name, None)
            body = bodies.free_slot(exporter)
            self._write(Write(Ref(Kind.EXPORTER, exporter.key), Verb.STATUS, Urgency.FREE, body))

    # Words for those who wait, and what is left of those who are over

    def _tell(self) -> None:
        """Tell those who wait why, if that is new to them."""
        realm, world = self._realm, self._world
        judged: dict[Request, list[str]] = {line.request: [] for line in realm.room.lines} if realm.restless else {}
        realm.restless = False
        for name in self._judged:
            request = realm.room.request_of(name)
            if request is not None:
                judged.setdefault(request, []).append(name)
        for request, names in judged.items():
            word, known = self._word(request), realm.words.get(request)
            realm.words[request] = word
            new = known is None or known.reason is not word.reason
            for name in realm.room.waiting_in(request) if new else names:
                self._say(world.leases[name], word)
        if len(realm.words) > 2 * len(realm.room) + 1000:
            realm.words.clear()

    def _word(self, request: Request) -> Word:
        return lifecycle.waiting_word(self._world.choices_for(request), self._world, self._now)

    def _retire(self) -> None:
        over, self._realm.over = self._realm.over, {}
        for name in over:
            record, ref = self._world.ended.get(name), Ref(Kind.LEASE, Key(self._world.namespace, name))
            if record is None or ref in self._realm.writing:
                continue
            if record.delete_at is not None and record.delete_at <= self._now:
                self._write(Write(ref, Verb.DELETE, Urgency.CHORE, uid=record.uid))
            elif not record.labelled:
                self._write(Write(ref, Verb.PATCH, Urgency.CHORE, bodies.ended_label(record.resource_version)))
            else:
                self._wake(Kind.LEASE, name, record.delete_at)

    # Writing

    def _may_write(self, ref: Ref) -> bool:
        """True if nothing about the object is on its way. A word that still waits for its turn gives way."""
        write = self._realm.writing.get(ref)
        if write is None:
            return True
        if write.started or write.urgency is not Urgency.WORD:
            return False
        write.cancelled = True
        del self._realm.writing[ref]
        return True

    def _write(self, write: Write) -> None:
        self._realm.writing[write.ref] = write
        self._writes.append(write)

    def _wake(self, kind: Kind, name: str, when: datetime | None) -> None:
        if when is not None:
            self._alarm(kind, name, when)


def _milliseconds(now: datetime) -> datetime:
    """The begin of a lease is stored with milliseconds; more would pretend a precision that no clock has."""
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _seconds(since: datetime, until: datetime) -> float:
    return max(timedelta(0), until - since).total_seconds()
