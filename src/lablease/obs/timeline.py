"""The record put in order: every write to our objects, with what stood there before and after it.

The order is that of etcd's revisions, which is the order in which things happened, whoever was told first.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lablease.errors import InvalidField
from lablease.model.durations import parse_duration
from lablease.model.keys import Key
from lablease.obs.audit import GROUP, Access, Json, at, list_at, mapping_at, text_at, texts_at, time_at, whole_at

LEASES, EXPORTERS = f"leases.{GROUP}", f"exporters.{GROUP}"
POLICIES = f"exporteraccesspolicies.{GROUP}"


@dataclass(frozen=True, slots=True)
class Write:
    """One write that its author was told of. ``before`` and ``after`` are None where the object is not (known)."""

    access: Access
    revision: int
    before: Json | None
    after: Json | None

    @property
    def key(self) -> Key:
        """Whose object it is."""
        return self.access.key

    @property
    def no_op(self) -> bool:
        """True if it changed nothing: the API server then keeps the resourceVersion."""
        return self.after is not None and revision(self.after) == revision(self.before)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of an object."""

    kind: str
    true: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What a lease said after a write; see the Lease CRD for the fields.

    ``planned_end`` is the end that was asked for, or the begin and the duration; None before the begin.
    """

    key: Key
    uid: str
    client: str
    selector: Json
    pin: str
    created: datetime | None
    begin_asked: datetime | None
    duration: timedelta | None
    released: bool
    allow_disabled: bool
    ended: bool
    exporter: str
    grant: int
    priority: int
    planned_end: datetime | None
    conditions: tuple[Condition, ...]

    @property
    def holds(self) -> bool:
        """True if it says that it has an exporter now."""
        return bool(self.exporter and self.grant) and not self.ended

    @property
    def waits(self) -> bool:
        """True if it should get an exporter when one is free."""
        return not self.ended and not self.grant and not self.released and not self.refused

    @property
    def refused(self) -> bool:
        """True if it was told that it cannot have one as things are."""
        return any(found.kind in ("Unsatisfiable", "Invalid") and found.true for found in self.conditions)

    @property
    def place(self) -> tuple[datetime, str] | None:
        """The key of first come first served: creation, then name."""
        return (self.created, self.key.name) if self.created else None


@dataclass(frozen=True, slots=True)
class ExporterState:
    """What an exporter said after a write. ``slot`` is the lease that its slot names, empty if free."""

    key: Key
    uid: str
    labels: Mapping[str, str]
    enabled: bool
    slot: str
    grant: int
    status: str


def order(accesses: Iterable[Access]) -> tuple[Write, ...]:
    """Return the successful writes to objects of ours in the order of revisions.

    A deletion is answered without its revision: it goes behind all that was answered before it was asked for, and
    behind every other write to the same object.
    """
    ours = [one for one in accesses if one.writes and one.succeeded and one.resource.endswith(f".{GROUP}")]
    ours = sorted((single for one in ours for single in _singles(one)), key=lambda one: one.received)
    answers = sorted((one.answered, revision(one.object)) for one in ours if not _deletes(one))
    last: dict[str, int] = {}
    for one in ours:
        if not _deletes(one):
            last[uid(one.object)] = max(revision(one.object), last.get(uid(one.object), 0))
    highest, index = 0, 0
    placed = list[tuple[int, bool, datetime, Access]]()
    for one in ours:
        while index < len(answers) and answers[index][0] <= one.received:
            highest = max(highest, answers[index][1])
            index += 1
        if _deletes(one):
            placed.append((max(highest, last.get(_deleted_uid(one), 0)), True, one.answered, one))
        else:
            placed.append((revision(one.object), False, one.answered, one))
    placed.sort(key=lambda item: item[:3])
    return tuple(_with_states(placed))


def _with_states(placed: Iterable[tuple[int, bool, datetime, Access]]) -> Iterator[Write]:
    state: dict[tuple[str, Key], Json] = {}
    for place, deletes, _, one in placed:
        before = state.pop((one.resource, one.key), None)
        after = None if deletes else one.object
        if after is not None:
            state[one.resource, one.key] = after
            if uid(before) != uid(after):
                before = None
        yield Write(one, place, before, after)


def _singles(access: Access) -> list[Access]:
    """Take the deletion of a collection apart into one deletion per object."""
    if access.verb != "deletecollection":
        return [access]
    return [
        replace(access, verb="delete", key=_key(item), object=mapping_at(item))
        for item in list_at(access.object, "items")
    ]


def _deletes(access: Access) -> bool:
    return access.verb == "delete" and not at(access.object, "metadata", "finalizers")


def _deleted_uid(access: Access) -> str:
    """The answer to a deletion is the object, or a Status that has its uid in the details."""
    return uid(access.object) or text_at(access.object, "details", "uid")


def revision(found: Json | None) -> int:
    """Return the resourceVersion of an object, 0 if it has none."""
    text = text_at(found, "metadata", "resourceVersion")
    return int(text) if text.isdecimal() else 0


def uid(found: Json | None) -> str:
    """Return the uid of an object, empty if it has none."""
    return text_at(found, "metadata", "uid")


def lease_state(found: Json) -> LeaseState:
    """Read a Lease."""
    spec, status = at(found, "spec"), at(found, "status")
    length = _duration(text_at(spec, "duration"))
    begin, asked_end = time_at(status, "beginTime"), time_at(spec, "endTime")
    planned = asked_end if asked_end and begin else begin + length if begin and length else None
    return LeaseState(
        key=_key(found),
        uid=uid(found),
        client=text_at(spec, "clientRef", "name"),
        selector=mapping_at(spec, "selector"),
        pin=text_at(spec, "exporterRef", "name"),
        created=time_at(found, "metadata", "creationTimestamp"),
        begin_asked=time_at(spec, "beginTime"),
        duration=length,
        released=at(spec, "release") is True or bool(at(found, "metadata", "labels", f"{GROUP}/lease-ended")),
        allow_disabled=at(spec, "allowDisabled") is True,
        ended=at(status, "ended") is True,
        exporter=text_at(status, "exporterRef", "name"),
        grant=whole_at(status, "grant"),
        priority=whole_at(status, "priority"),
        planned_end=planned,
        conditions=_conditions(status),
    )


def exporter_state(found: Json) -> ExporterState:
    """Read an Exporter."""
    status = at(found, "status")
    return ExporterState(
        key=_key(found),
        uid=uid(found),
        labels=texts_at(found, "metadata", "labels"),
        enabled=at(found, "spec", "enabled") is not False,
        slot=text_at(status, "leaseRef", "name"),
        grant=whole_at(status, "grant"),
        status=text_at(status, "exporterStatus"),
    )


def _conditions(status: object) -> tuple[Condition, ...]:
    return tuple(
        Condition(
            text_at(item, "type"), text_at(item, "status") == "True", text_at(item, "reason"), text_at(item, "message")
        )
        for item in list_at(status, "conditions")
    )


def _key(found: object) -> Key:
    return Key(text_at(found, "metadata", "namespace"), text_at(found, "metadata", "name"))


def _duration(text: str) -> timedelta | None:
    """Read a duration; one that cannot be read makes its lease Invalid, which is the operator's business."""
    try:
        return parse_duration(text, "spec.duration") if text else None
    except InvalidField:
        return None


def selects(selector: Json, labels: Mapping[str, str]) -> bool:
    """Say whether a label selector (matchLabels, matchExpressions) takes these labels. An empty one takes all.

    Written again here, apart from the rules that decide: who judges should not share their mistakes.
    """
    if any(labels.get(name) != value for name, value in texts_at(selector, "matchLabels").items()):
        return False
    return all(_fits(item, labels) for item in list_at(selector, "matchExpressions"))


def _fits(expression: object, labels: Mapping[str, str]) -> bool:
    have, values = labels.get(text_at(expression, "key")), list_at(expression, "values")
    match text_at(expression, "operator"):
        case "In":
            return have in values
        case "NotIn":
            return have not in values
        case "Exists":
            return have is not None
        case "DoesNotExist":
            return have is None
        case _:
            return False
