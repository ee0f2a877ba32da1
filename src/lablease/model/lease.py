"""The Lease CRD as a value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from lablease.errors import InvalidField
from lablease.model.durations import format_duration, format_time, parse_duration, parse_time
from lablease.model.fields import Json, as_bool, as_int, as_list, as_mapping, as_string, as_string_map, ref_name
from lablease.model.keys import Key
from lablease.model.meta import LABEL_ENDED, Condition, Meta, parse_conditions, parse_meta
from lablease.model.selector import EVERYTHING, Selector, parse_selector, to_selector

T = TypeVar("T")


class LeaseCondition(StrEnum):
    """The condition types of a lease."""

    PENDING = "Pending"
    READY = "Ready"
    UNSATISFIABLE = "Unsatisfiable"
    INVALID = "Invalid"
    EXPORTER_ONLINE = "ExporterOnline"


class LeaseReason(StrEnum):
    """The reasons that a lease's conditions give. Never ``NoExporter``: jmp 0.9.0 answers it with new leases."""

    SCHEDULED = "Scheduled"
    OFFLINE = "Offline"
    NOT_AVAILABLE = "NotAvailable"
    NOT_READY = "NotReady"
    READY = "Ready"
    RELEASED = "Released"
    EXPIRED = "Expired"
    PREEMPTED = "Preempted"
    EXPORTER_NOT_FOUND = "ExporterNotFound"
    SELECTOR_MISMATCH = "SelectorMismatch"
    EXPORTER_DISABLED = "ExporterDisabled"
    ALL_DISABLED = "AllDisabled"
    NO_ACCESS = "NoAccess"
    DURATION_TOO_LONG = "DurationTooLong"
    WAIT_TIMEOUT = "WaitTimeout"
    EXPORTER_GONE = "ExporterGone"
    INVALID_SELECTOR = "InvalidSelector"
    INVALID_DURATION = "InvalidDuration"
    INVALID_TIME = "InvalidTime"
    INVALID_CLIENT = "InvalidClient"
    INVALID_LABEL = "InvalidLabel"
    INVALID_SPEC = "InvalidSpec"


@dataclass(frozen=True, slots=True)
class LeaseSpec:
    """What its author asked for. ``exporter`` is the pin; times are absent where they were not given."""

    client: str
    selector: Selector = EVERYTHING
    exporter: str | None = None
    duration: timedelta | None = None
    begin: datetime | None = None
    end: datetime | None = None
    release: bool = False
    allow_disabled: bool = False
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    context: Mapping[str, str] = field(default_factory=dict[str, str])
    idle_timeout: timedelta | None = None
    wait_timeout: timedelta | None = None
    ttl: timedelta | None = None


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """What the operator decided. ``grant`` is 0 and ``exporter`` None until an exporter was granted."""

    ended: bool = False
    begin: datetime | None = None
    end: datetime | None = None
    exporter: str | None = None
    grant: int = 0
    priority: int = 0
    spot: bool = False
    conditions: tuple[Condition, ...] = ()
    last_activity: datetime | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease. ``problems`` lists each field of the spec that could not be read; such a lease is Invalid."""

    meta: Meta
    spec: LeaseSpec
    status: LeaseStatus
    problems: tuple[InvalidField, ...] = ()
    exporter_owned: bool = False
    """An ownerReference to an Exporter is present: upstream's controller left it."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.meta.key

    @property
    def release_asked(self) -> bool:
        """True if its author ended it: by ``spec.release``, or by the ended label on a lease that has not ended."""
        return self.spec.release or (LABEL_ENDED in self.meta.labels and not self.status.ended)


def parse_lease(raw: Json) -> Lease:
    """Read a stored Lease object; unreadable fields of the spec become ``problems`` and read as absent."""
    spec = as_mapping(raw.get("spec"), "spec")
    status = as_mapping(raw.get("status"), "status")
    problems: list[InvalidField] = []
    meta = parse_meta(raw)
    return Lease(
        meta=meta,
        spec=_parse_spec(spec, problems),
        status=_parse_status(status),
        problems=tuple(problems),
        exporter_owned=_owned_by_exporter(raw),
    )


def _parse_spec(spec: Json, problems: list[InvalidField]) -> LeaseSpec:
    def attempt(read: Callable[[object, str], T], name: str, absent: T) -> T:
        try:
            return absent if spec.get(name) is None else read(spec[name], f"spec.{name}")
        except InvalidField as problem:
            problems.append(problem)
            return absent

    ttl_seconds = attempt(as_int, "ttlSecondsAfterEnded", None)
    return LeaseSpec(
        client=attempt(ref_name, "clientRef", None) or "",
        selector=attempt(parse_selector, "selector", EVERYTHING),
        exporter=attempt(ref_name, "exporterRef", None),
        duration=attempt(_duration, "duration", None),
        begin=attempt(_time, "beginTime", None),
        end=attempt(_time, "endTime", None),
        release=attempt(as_bool, "release", False),
        allow_disabled=attempt(as_bool, "allowDisabled", False),
        tags=attempt(as_string_map, "tags", {}),
        context=attempt(as_string_map, "context", {}),
        idle_timeout=attempt(_duration, "idleTimeout", None),
        wait_timeout=attempt(_duration, "waitTimeout", None),
        ttl=None if ttl_seconds is None else timedelta(seconds=ttl_seconds),
    )


def _duration(value: object, field: str) -> timedelta:
    return parse_duration(as_string(value, field), field)


def _time(value: object, field: str) -> datetime:
    return parse_time(as_string(value, field), field)


def optional_time(value: object, field: str) -> datetime | None:
    """Read an instant that may be absent."""
    return None if value is None else _time(value, field)


def _parse_status(status: Json) -> LeaseStatus:
    return LeaseStatus(
        ended=as_bool(status.get("ended"), "status.ended"),
        begin=optional_time(status.get("beginTime"), "status.beginTime"),
        end=optional_time(status.get("endTime"), "status.endTime"),
        exporter=ref_name(status.get("exporterRef"), "status.exporterRef"),
        grant=as_int(status.get("grant"), "status.grant"),
        priority=as_int(status.get("priority"), "status.priority"),
        spot=as_bool(status.get("spotAccess"), "status.spotAccess"),
        conditions=parse_conditions(status.get("conditions"), "status.conditions"),
        last_activity=optional_time(status.get("lastActivity"), "status.lastActivity"),
    )


def _owned_by_exporter(raw: Json) -> bool:
    owners = as_list(as_mapping(raw.get("metadata"), "metadata").get("ownerReferences"), "metadata.ownerReferences")
    return any(as_mapping(owner, "metadata.ownerReferences").get("kind") == "Exporter" for owner in owners)


def to_spec(spec: LeaseSpec) -> dict[str, object]:
    """Return the ``spec`` object of a lease; what is absent stays absent."""
    body: dict[str, object] = {"clientRef": {"name": spec.client}, "selector": to_selector(spec.selector)}
    optional: dict[str, object | None] = {
        "exporterRef": {"name": spec.exporter} if spec.exporter else None,
        "duration": None if spec.duration is None else format_duration(spec.duration),
        "beginTime": None if spec.begin is None else format_time(spec.begin),
        "endTime": None if spec.end is None else format_time(spec.end),
        "release": spec.release or None,
        "allowDisabled": spec.allow_disabled or None,
        "tags": dict(spec.tags) or None,
        "context": dict(spec.context) or None,
        "idleTimeout": None if spec.idle_timeout is None else format_duration(spec.idle_timeout),
        "waitTimeout": None if spec.wait_timeout is None else format_duration(spec.wait_timeout),
        "ttlSecondsAfterEnded": None if spec.ttl is None else int(spec.ttl.total_seconds()),
    }
    return body | {name: value for name, value in optional.items() if value is not None}
