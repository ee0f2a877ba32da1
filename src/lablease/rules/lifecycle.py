"""What happens to one lease next, and to one exporter's slot: the grant protocol as rules over what is stored.

A grant is two writes, the slot and then the lease. After either of them the next step follows from the objects alone,
so a restart in between, a refused write and a write of unknown outcome need no rule of their own.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from lablease.errors import InvalidField
from lablease.model.client import Client
from lablease.model.durations import format_duration, format_time
from lablease.model.exporter import Exporter
from lablease.model.lease import Lease, LeaseCondition, LeaseReason
from lablease.model.meta import LABEL_ENDED, ORIGIN_FRONTEND, ORIGIN_LABEL, condition
from lablease.rules import times
from lablease.rules.conditions import Word, pending
from lablease.rules.holding import held
from lablease.rules.liveness import Busy, CleanAt, cleanliness
from lablease.rules.matching import Choices, Request, choice, refusal, request_of
from lablease.rules.policy import Approval
from lablease.rules.world import World

REFUSAL_GRACE = timedelta(seconds=4)
"""A lease that a front end made and that cannot be met ends after this: jmp 0.9.0 looks every 5 seconds."""


_NEEDED_TO_RUN = ("spec.duration", "spec.beginTime", "spec.endTime", "spec.clientRef")
"""A running lease whose edit made one of these unreadable ends: without them nobody knows for whom, or until when."""


@dataclass(frozen=True, slots=True)
class End:
    """The lease is over."""

    word: Word


@dataclass(frozen=True, slots=True)
class Refuse:
    """The lease cannot be met as things are. It stays open: until ``until`` if that is given."""

    word: Word
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """The lease begins in the future. With a request it may have an exporter kept for it."""

    begin: datetime
    request: Request
    choices: Choices


@dataclass(frozen=True, slots=True)
class Queue:
    """The lease waits for one of these exporters, until ``until`` if that is given."""

    request: Request
    choices: Choices
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The exporter's slot names the lease under ``grant``: say so in the lease."""

    exporter: str
    grant: int
    approval: Approval


@dataclass(frozen=True, slots=True)
class Retake:
    """The lease runs on an exporter whose slot does not name it (any more): take the slot again under a new grant."""

    exporter: str


@dataclass(frozen=True, slots=True)
class Run:
    """The lease holds its exporter until ``until``. ``notice`` is an earlier end than its spec says, as its status
    must tell; None if it runs as long as it asked for."""

    until: datetime
    message: str
    notice: datetime | None


@dataclass(frozen=True, slots=True)
class Stand:
    """Nothing to do: the slot that names the lease without a right to it is emptied first."""


LeaseStep = End | Refuse | Later | Queue | Finish | Retake | Run | Stand


def lease_step(lease: Lease, world: World, now: datetime) -> LeaseStep:
    """Decide about a lease that has not ended."""
    if lease.status.exporter is not None:
        return _running(lease, lease.status.exporter, world, now)
    return _waiting(lease, world, now)


def _running(lease: Lease, name: str, world: World, now: datetime) -> LeaseStep:
    if lease.release_asked:
        return End(_over(LeaseReason.RELEASED, "released"))
    unreadable = next((item for item in lease.problems if item.field.startswith(_NEEDED_TO_RUN)), None)
    if unreadable is not None:
        return End(_invalid(unreadable))
    until = times.planned_end(lease)
    if until is None:  # upstream left it half done: it has an exporter and no begin
        until = times.end_if_begun(lease.spec, now) or now
    if until <= now:
        return End(_over(LeaseReason.EXPIRED, f"its time was over at {format_time(until)}"))
    exporter = world.exporters.get(name)
    if exporter is None:
        return End(_over(LeaseReason.EXPORTER_GONE, f"exporter {name} was deleted"))
    if held(exporter, lease) and lease.status.begin is not None:
        return _holding(lease, exporter, world, lease.status.begin, until)
    if exporter.lease == lease.key.name:
        approval = Approval(lease.status.priority, lease.status.spot)
        return Finish(name, exporter.grant, approval)
    if exporter.lease is None or not _claims(exporter, world, now):
        return Retake(name)
    return End(_over(LeaseReason.EXPORTER_GONE, f"exporter {name} is held by lease {exporter.lease}"))


def _claims(exporter: Exporter, world: World, now: datetime) -> bool:
    """True if the lease in the slot holds the exporter or is about to."""
    lease = world.leases.get(exporter.lease or "")
    return lease is not None and (held(exporter, lease) or slot_is_good(exporter, lease, world, now))


def _holding(lease: Lease, exporter: Exporter, world: World, begun: datetime, until: datetime) -> LeaseStep:
    """Judge a running lease again under policy if its spec has changed since it was last judged."""
    ready = condition(lease.status.conditions, LeaseCondition.READY)
    if ready is not None and ready.observed_generation == lease.meta.generation:
        return Run(until, ready.message, lease.status.end)
    client = world.clients.get(lease.spec.client)
    if client is None:
        return End(_over(LeaseReason.NO_ACCESS, f"there is no client {lease.spec.client}"))
    rules = world.access.rules_for(client.meta.labels)
    if world.access.approval(rules, exporter.meta.labels) is None:
        return End(_over(LeaseReason.NO_ACCESS, f"no policy lets client {client.key.name} have {exporter.key.name}"))
    asked = times.end_if_begun(lease.spec, begun) or begun
    within = world.access.within(rules, times.length(lease.spec, lease.meta.created))
    longest = world.access.longest(rules, (exporter.meta.labels,))
    if longest is None or world.access.approval(within, exporter.meta.labels) is not None:
        return Run(asked, _has(exporter), None)
    cut = min(asked, times.later(lease.spec.begin or begun, longest))
    return Run(cut, f"{_has(exporter)}; cut to {format_duration(longest)}, the longest that policies allow", cut)


def _has(exporter: Exporter) -> str:
    return f"has exporter {exporter.key.name}"


def _waiting(lease: Lease, world: World, now: datetime) -> LeaseStep:
    problem = _problem(lease)
    if lease.release_asked and not _born_ended(lease):
        return End(_over(LeaseReason.RELEASED, "released before it had an exporter"))
    if problem is not None:
        return _refuse(lease, _invalid(problem), now)
    late = _late(lease, now)
    if late is not None:
        return late
    client = world.clients.get(lease.spec.client)
    if client is None:
        unknown = InvalidField("spec.clientRef", f"there is no client {lease.spec.client!r}")
        return _refuse(lease, _invalid(unknown), now, _last(lease))
    return _placing(lease, client, world, now)


def _born_ended(lease: Lease) -> bool:
    """True if the lease was created with the label that only an end may write."""
    return LABEL_ENDED in lease.meta.labels and not lease.spec.release and not lease.status.conditions


def _late(lease: Lease, now: datetime) -> End | None:
    """Judge what ends a waiting lease whoever asks and whatever exists."""
    end = times.fixed_end(lease.spec)
    if end is not None and end <= now:
        return End(_over(LeaseReason.EXPIRED, f"its time was over at {format_time(end)}, before it had an exporter"))
    wait = lease.spec.wait_timeout
    if wait is not None and times.later(asked_for(lease), wait) <= now:
        text = f"waited {format_duration(wait)}, as long as it asked for"
        return End(_unsatisfiable(LeaseReason.WAIT_TIMEOUT, text))
    return None


def _patience(lease: Lease) -> datetime | None:
    return None if lease.spec.wait_timeout is None else times.later(asked_for(lease), lease.spec.wait_timeout)


def _problem(lease: Lease) -> InvalidField | None:
    """Return what makes a lease impossible to grant, whoever asks and whatever exists."""
    if _born_ended(lease):
        return InvalidField(f"metadata.labels[{LABEL_ENDED}]", "is set when a lease ends: create it without")
    if lease.problems:
        return lease.problems[0]
    if lease.spec.selector.empty and lease.spec.exporter is None:
        return InvalidField("spec.selector", "name at least one label, or an exporter in spec.exporterRef")
    try:
        times.check(lease.spec)
    except InvalidField as problem:
        return problem
    return None


def _placing(lease: Lease, client: Client, world: World, now: datetime) -> LeaseStep:
    request = request_of(lease, client, world.access)
    begin = lease.spec.begin
    if begin is not None and begin > now:
        return Later(begin, request, world.choices_for(request))
    named = world.slot_naming(lease.key.name)
    if named is not None:
        exporter = world.exporters[named]
        approval = choice(request, exporter, world.access)
        return Stand() if approval is None else Finish(named, exporter.grant, approval)
    found = world.choices_for(request)
    if not found:
        why = refusal(lease, client, world, world.access)
        return _refuse(lease, _unsatisfiable(why.reason, why.message), now, _last(lease))
    return Queue(request, found, _last(lease))


def _last(lease: Lease) -> datetime | None:
    """Return when a lease stops to wait, whatever it waits for."""
    ends = [item for item in (_patience(lease), times.fixed_end(lease.spec)) if item is not None]
    return min(ends, default=None)


def _refuse(lease: Lease, word: Word, now: datetime, last: datetime | None = None) -> LeaseStep:
    if lease.meta.labels.get(ORIGIN_LABEL) != ORIGIN_FRONTEND:
        return Refuse(word, last)
    until = lease.meta.created + REFUSAL_GRACE
    return End(word) if until <= now else Refuse(word, until if last is None else min(until, last))


def asked_for(lease: Lease) -> datetime:
    """Return since when a lease counts as waiting: the begin that it asks for, else its creation."""
    return lease.meta.created if lease.spec.begin is None else lease.spec.begin


def waiting_word(choices: Choices, world: World, now: datetime) -> Word:
    """Say what a lease waits for. Cleaning up after a lease counts as being in use, so that the word does not flap."""
    here = [exporter for name in choices if world.online(exporter := world.exporters[name], now)]
    if not here:
        return pending(LeaseReason.OFFLINE, "every exporter that may serve this lease is offline")
    if any(exporter.lease is not None for exporter in here):
        return pending(LeaseReason.NOT_AVAILABLE, "every exporter that may serve this lease is in use")
    registered = [exporter for exporter in here if exporter.registered]
    if not registered:
        return pending(LeaseReason.OFFLINE, "no exporter that may serve this lease has reported its devices")
    if not any(world.ready(exporter, now) for exporter in registered):
        return pending(LeaseReason.NOT_READY, "every exporter that may serve this lease is still busy with itself")
    return pending(LeaseReason.NOT_AVAILABLE, "the exporters that may serve this lease are kept for others")


@dataclass(frozen=True, slots=True)
class Keep:
    """The slot is right as it is."""


@dataclass(frozen=True, slots=True)
class Free:
    """The slot names a lease that has no right to it, and the exporter is clean: empty it, or give it to the next."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The slot is emptied later: at ``at``, or when the exporter reports; after ``stuck_at`` it counts as stuck."""

    at: datetime | None = None
    stuck_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """The slot is empty."""


SlotStep = Keep | Free | Wait | Open


def slot_step(exporter: Exporter, world: World, now: datetime) -> SlotStep:
    """Decide about the slot of an exporter."""
    if exporter.lease is None:
        return Open()
    lease = world.leases.get(exporter.lease)
    if lease is not None and (held(exporter, lease) or slot_is_good(exporter, lease, world, now)):
        return Keep()
    if lease is not None and lease.status.exporter is None:
        return Free()  # nobody was told of this grant: there is nothing to clean up
    over = world.vacated.get(exporter.key.name, now)
    state = cleanliness(exporter, connected=world.connected(exporter, now), over=over, now=now)
    if isinstance(state, Busy):
        return Wait(stuck_at=state.stuck_at)
    return Wait(at=state.when) if isinstance(state, CleanAt) else Free()


def slot_is_good(exporter: Exporter, lease: Lease, world: World, now: datetime) -> bool:
    """True if a grant whose slot is taken may be finished: the lease still waits, and may still have this exporter."""
    if lease.status.exporter not in (None, exporter.key.name):
        return False  # it runs elsewhere; to ask further could go round in a circle
    step = lease_step(lease, world, now)
    return isinstance(step, Finish) and step.exporter == exporter.key.name


def _over(reason: LeaseReason, message: str) -> Word:
    return Word(LeaseCondition.READY, False, reason, message)


def _unsatisfiable(reason: LeaseReason, message: str) -> Word:
    return Word(LeaseCondition.UNSATISFIABLE, True, reason, message)


def _invalid(problem: InvalidField) -> Word:
    return Word(LeaseCondition.INVALID, True, _reason_of(problem.field), str(problem))


def _reason_of(field: str) -> LeaseReason:
    for part, reason in _REASONS:
        if part in field:
            return reason
    return LeaseReason.INVALID_SPEC


_REASONS = (
    ("selector", LeaseReason.INVALID_SELECTOR),
    ("duration", LeaseReason.INVALID_DURATION),
    ("Timeout", LeaseReason.INVALID_DURATION),
    ("Time", LeaseReason.INVALID_TIME),
    ("clientRef", LeaseReason.INVALID_CLIENT),
    ("labels", LeaseReason.INVALID_LABEL),
)
