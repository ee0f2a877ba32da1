"""Between messages of ``jumpstarter.client.v1`` and the model. Pure: no clock, no network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from google.protobuf.duration_pb2 import Duration

from lablease.errors import InvalidField
from lablease.model.exporter import Exporter, ExporterCondition
from lablease.model.keys import Key
from lablease.model.lease import Lease
from lablease.model.meta import is_true
from lablease.model.selector import Selector
from lablease.rules.selectors import canonical, parse
from lablease.rules.times import Times
from lablease.wire.codec import (
    condition_message,
    duration,
    read_duration,
    read_timestamp,
    status_number,
    timestamp,
)
from lablease.wire.jumpstarter.client.v1 import client_pb2

EXPORTERS = "exporters"
LEASES = "leases"
CLIENTS = "clients"


@dataclass(frozen=True, slots=True)
class LabelRules:
    """Labels that the lab does not show, and those that will go away, each with what to say about it."""

    hidden: frozenset[str] = frozenset()
    deprecated: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Queued:
    """Where a waiting lease stands: place from 1, and when it is likely to get an exporter."""

    position: int
    estimate: datetime | None = None


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a client may say about a lease, as read from a message."""

    selector: Selector
    exporter: str | None
    times: Times
    tags: Mapping[str, str]
    context: Mapping[str, str]
    allow_disabled: bool
    idle_timeout: timedelta | None
    wait_timeout: timedelta | None


def resource_name(collection: str, key: Key) -> str:
    """Return ``namespaces/<namespace>/<collection>/<name>``."""
    return f"namespaces/{key.namespace}/{collection}/{key.name}"


def parse_resource_name(text: str, collection: str, field: str) -> Key:
    """Read what ``resource_name`` writes.

    Raises:
        InvalidField: it has another form.
    """
    match text.split("/"):
        case ["namespaces", namespace, found, name] if found == collection and namespace and name:
            return Key(namespace, name)
        case _:
            raise InvalidField(field, f"{text[:200]!r} must be namespaces/<namespace>/{collection}/<name>")


def parse_parent(text: str, field: str = "parent") -> str:
    """Read ``namespaces/<namespace>``.

    Raises:
        InvalidField: it has another form.
    """
    match text.split("/"):
        case ["namespaces", namespace] if namespace:
            return namespace
        case _:
            raise InvalidField(field, f"{text[:200]!r} must be namespaces/<namespace>")


def exporter_message(exporter: Exporter, rules: LabelRules, *, show_hidden: bool) -> client_pb2.Exporter:
    """Return an exporter as clients see it. Deprecated labels are named in either case."""
    labels = exporter.meta.labels
    unseen: frozenset[str] = frozenset() if show_hidden else rules.hidden | rules.deprecated.keys()
    return client_pb2.Exporter(
        name=resource_name(EXPORTERS, exporter.key),
        labels={key: value for key, value in labels.items() if key not in unseen},
        online=is_true(exporter.conditions, ExporterCondition.ONLINE),
        status=status_number(exporter.status),
        status_message=exporter.status_message,
        enabled=exporter.enabled,
        deprecated_labels={key: text for key, text in rules.deprecated.items() if key in labels},
    )


def lease_message(lease: Lease, now: datetime, rules: LabelRules, queued: Queued | None = None) -> client_pb2.Lease:
    """Return a lease as clients see it.

    ``client`` is always there, since jmp 0.9.0 cannot read a lease without. ``effective_end_time`` appears once the
    lease has ended or was given notice: jmp 0.9.0 takes a lease that has one for over.
    """
    spec, status = lease.spec, lease.status
    namespace = lease.key.namespace
    keys = {key for key, _ in spec.selector.match_labels} | {item.key for item in spec.selector.expressions}
    message = client_pb2.Lease(
        name=resource_name(LEASES, lease.key),
        selector=canonical(spec.selector),
        client=resource_name(CLIENTS, Key(namespace, spec.client)),
        exporter=resource_name(EXPORTERS, Key(namespace, status.exporter)) if status.exporter else None,
        exporter_name=spec.exporter,
        tags=spec.tags,
        context=spec.context,
        allow_disabled=spec.allow_disabled,
        conditions=[condition_message(item) for item in status.conditions],
        deprecated_labels={key: text for key, text in rules.deprecated.items() if key in keys},
        duration=None if spec.duration is None else duration(spec.duration),
        begin_time=None if spec.begin is None else timestamp(spec.begin),
        end_time=None if spec.end is None else timestamp(spec.end),
        effective_begin_time=None if status.begin is None else timestamp(status.begin),
        effective_end_time=None if status.end is None else timestamp(status.end),
        effective_duration=_effective_duration(lease, now),
        grant=status.grant,
        idle_timeout=None if spec.idle_timeout is None else duration(spec.idle_timeout),
        wait_timeout=None if spec.wait_timeout is None else duration(spec.wait_timeout),
    )
    if queued is not None:
        message.queue_position = queued.position
        if queued.estimate is not None:
            message.estimated_begin.FromDatetime(queued.estimate)
    return message


def _effective_duration(lease: Lease, now: datetime) -> Duration | None:
    begin = lease.status.begin
    if begin is None:
        return None
    end = lease.status.end if lease.status.ended and lease.status.end is not None else now
    return duration(max(end - begin, timedelta(0)))


def read_lease(message: client_pb2.Lease, field: str = "lease") -> LeaseRequest:
    """Read a lease that is to be created; fields that only the server sets are ignored.

    Raises:
        InvalidField: neither selector nor exporter, a selector that cannot be read, or a time out of range.
    """
    exporter = message.exporter_name or None
    if not message.selector.strip() and exporter is None:
        raise InvalidField(f"{field}.selector", f"must not be empty unless {field}.exporter_name is given")
    return LeaseRequest(
        selector=parse(message.selector, f"{field}.selector"),
        exporter=exporter,
        times=read_times(message, field),
        tags=dict(message.tags),
        context=dict(message.context),
        allow_disabled=message.allow_disabled,
        idle_timeout=_timeout(message, "idle_timeout", field),
        wait_timeout=_timeout(message, "wait_timeout", field),
    )


def read_times(message: client_pb2.Lease, field: str = "lease") -> Times:
    """Read the three times that are present.

    Raises:
        InvalidField: one is out of range.
    """
    return Times(
        begin=read_timestamp(message.begin_time, f"{field}.begin_time") if message.HasField("begin_time") else None,
        end=read_timestamp(message.end_time, f"{field}.end_time") if message.HasField("end_time") else None,
        duration=read_duration(message.duration, f"{field}.duration") if message.HasField("duration") else None,
    )


def _timeout(message: client_pb2.Lease, name: Literal["idle_timeout", "wait_timeout"], field: str) -> timedelta | None:
    if not message.HasField(name):
        return None
    value = read_duration(getattr(message, name), f"{field}.{name}")
    if value < timedelta(0):
        raise InvalidField(f"{field}.{name}", "must not be negative")
    return value or None
