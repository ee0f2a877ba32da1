"""Leases and exporters as a client sees them, read from the wire messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lablease.client.errors import ClientError
from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.v1 import common_pb2

_PREFIX = "EXPORTER_STATUS_"


@dataclass(frozen=True, slots=True)
class Condition:
    """One Kubernetes-style condition; ``status`` is True, False or Unknown as text."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """A lease; names are plain, ``effective_*`` is what really happened or is going to.

    ``queue_position`` counts from 1 and is 0 when the lease does not wait or the server does not tell.
    """

    namespace: str
    name: str
    client: str
    selector: str
    exporter_name: str
    exporter: str
    duration: timedelta | None
    begin_time: datetime | None
    end_time: datetime | None
    effective_duration: timedelta | None
    effective_begin_time: datetime | None
    effective_end_time: datetime | None
    conditions: tuple[Condition, ...]
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    deprecated_labels: Mapping[str, str] = field(default_factory=dict[str, str])
    grant: int = 0
    queue_position: int = 0
    estimated_begin: datetime | None = None

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of this type, if there is one."""
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def planned_end(self) -> datetime | None:
        """Return when the lease ends or ended; None while it has not begun and no end is set."""
        if self.effective_end_time or self.end_time:
            return self.effective_end_time or self.end_time
        if self.effective_begin_time and self.duration is not None:
            return self.effective_begin_time + self.duration
        return None


@dataclass(frozen=True, slots=True)
class ExporterInfo:
    """An exporter; ``status`` is the last part of the wire name, such as ``LEASE_READY``."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    deprecated_labels: Mapping[str, str]
    online: bool
    status: str
    status_message: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What to ask for. Selector, exporter name or both must be given; ``lease_id`` becomes the lease's name."""

    duration: timedelta
    selector: str = ""
    exporter_name: str = ""
    begin_time: datetime | None = None
    lease_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    allow_disabled: bool = False
    idle_timeout: timedelta | None = None
    wait_timeout: timedelta | None = None


def parse_lease(message: client_pb2.Lease) -> LeaseInfo:
    """Read a lease.

    Raises:
        ClientError: a name is not a resource name of the right kind.
    """
    namespace, name = split_name(message.name, "leases")
    return LeaseInfo(
        namespace=namespace,
        name=name,
        client=split_name(message.client, "clients")[1] if message.client else "",
        selector="" if message.selector == "<none>" else message.selector,
        exporter_name=message.exporter_name,
        exporter=split_name(message.exporter, "exporters")[1] if message.exporter else "",
        duration=_duration(message.duration) if message.HasField("duration") else None,
        begin_time=_instant(message.begin_time) if message.HasField("begin_time") else None,
        end_time=_instant(message.end_time) if message.HasField("end_time") else None,
        effective_duration=_duration(message.effective_duration) if message.HasField("effective_duration") else None,
        effective_begin_time=_instant(message.effective_begin_time)
        if message.HasField("effective_begin_time")
        else None,
        effective_end_time=_instant(message.effective_end_time) if message.HasField("effective_end_time") else None,
        conditions=tuple(
            Condition(
                type=c.type,
                status=c.status,
                reason=c.reason,
                message=c.message,
                since=datetime.fromtimestamp(c.lastTransitionTime.seconds, UTC)
                if c.HasField("lastTransitionTime")
                else None,
            )
            for c in message.conditions
        ),
        tags=dict(message.tags),
        deprecated_labels=dict(message.deprecated_labels),
        grant=message.grant,
        queue_position=message.queue_position,
        estimated_begin=_instant(message.estimated_begin) if message.HasField("estimated_begin") else None,
    )


def parse_exporter(message: client_pb2.Exporter) -> ExporterInfo:
    """Read an exporter; one that does not say whether it is enabled is.

    Raises:
        ClientError: the name is not a resource name of an exporter.
    """
    namespace, name = split_name(message.name, "exporters")
    return ExporterInfo(
        namespace=namespace,
        name=name,
        labels=dict(message.labels),
        deprecated_labels=dict(message.deprecated_labels),
        online=message.online,  # pyright: ignore[reportDeprecated]  # still what jmp shows
        status=status_name(message.status),
        status_message=message.status_message,
        enabled=message.enabled if message.HasField("enabled") else True,
    )


def to_lease_message(request: LeaseRequest) -> client_pb2.Lease:
    """Write the lease of a CreateLease request."""
    message = client_pb2.Lease(selector=request.selector, tags=request.tags, allow_disabled=request.allow_disabled)
    message.duration.FromTimedelta(request.duration)
    if request.exporter_name:
        message.exporter_name = request.exporter_name
    if request.begin_time is not None:
        message.begin_time.FromDatetime(request.begin_time)
    if request.idle_timeout is not None:
        message.idle_timeout.FromTimedelta(request.idle_timeout)
    if request.wait_timeout is not None:
        message.wait_timeout.FromTimedelta(request.wait_timeout)
    return message


def status_name(value: common_pb2.ExporterStatus.ValueType) -> str:
    """Return the short name of an exporter status; a number nobody knows yet is UNSPECIFIED."""
    known = common_pb2.ExporterStatus.values()
    return common_pb2.ExporterStatus.Name(value).removeprefix(_PREFIX) if value in known else "UNSPECIFIED"


def split_name(name: str, kind: str) -> tuple[str, str]:
    """Split ``namespaces/<namespace>/<kind>/<name>``.

    Raises:
        ClientError: the name has another form.
    """
    parts = name.split("/")
    if len(parts) != 4 or parts[0] != "namespaces" or parts[2] != kind or not all(parts):
        raise ClientError(f"the controller sent {name!r} where namespaces/<namespace>/{kind}/<name> belongs")
    return parts[1], parts[3]


def _instant(value: Timestamp) -> datetime:
    return value.ToDatetime(UTC)


def _duration(value: Duration) -> timedelta:
    return value.ToTimedelta()
