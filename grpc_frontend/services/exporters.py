"""What exporters call once: Register, Unregister, ReportStatus, ReleaseLease, AuditStream, GetServiceEndpoints."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import TypeVar

import structlog
from google.protobuf.empty_pb2 import Empty

from lablease import clock
from lablease.errors import InvalidField, NotAllowed, NotNow, Stale, Unavailable
from lablease.grpc_frontend.auth import Caller
from lablease.grpc_frontend.parts import Parts
from lablease.grpc_frontend.records import ExporterRecord, devices_digest
from lablease.grpc_frontend.sessions import last_seen
from lablease.grpc_frontend.store import until_back
from lablease.model.exporter import Exporter, ExporterStatus
from lablease.model.keys import Key
from lablease.model.lease import Lease
from lablease.model.meta import LABEL_PREFIX
from lablease.rules.holding import held
from lablease.rules.names import check_label_key, check_label_value
from lablease.wire.codec import device_reports, status_word
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2 as pb

T = TypeVar("T")

MAXIMUM_DEVICES = 5_000
"""Drivers of one exporter; an object of etcd holds no more than about a megabyte."""
_MESSAGE_CHARACTERS = 4_096

log = structlog.get_logger(__name__)


class ExporterCalls:
    """Short calls of exporters. Each changes the caller's own Exporter object, in at most one write of its status."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store

    async def register(self, caller: Caller, request: pb.RegisterRequest) -> pb.RegisterResponse:
        """Take over labels and devices; what is already so is not written. Waits while the API server is away."""
        labels = registered_labels(request.labels)
        if len(request.reports) > MAXIMUM_DEVICES:
            raise InvalidField("reports", f"must be at most {MAXIMUM_DEVICES}, not {len(request.reports)}")
        devices = device_reports(request.reports)
        record = await until_back(partial(self._record, caller.key))
        record = await self._apply_labels(record, labels)
        if record.devices != devices_digest(devices):
            status = {"devices": devices or None}
            await until_back(partial(self._store.patch_exporter_status, caller.key, status))
        self._parts.nudges.registered(caller.key)
        log.info("exporter.registered", exporter=caller.key.name, devices=len(devices))
        return pb.RegisterResponse(uuid=caller.uid)

    async def unregister(self, caller: Caller, request: pb.UnregisterRequest) -> pb.UnregisterResponse:
        """Go out of service."""
        reason = cut(request.reason) or "the exporter stopped"
        record = await self._record(caller.key)
        status: dict[str, object] = {}
        if record.exporter.registered:
            status["devices"] = None
        if (record.exporter.status, record.exporter.status_message) != (ExporterStatus.OFFLINE, reason):
            status |= {"exporterStatus": str(ExporterStatus.OFFLINE), "statusMessage": reason}
        if status:
            await self._briefly(partial(self._store.patch_exporter_status, caller.key, status))
        log.info("exporter.unregistered", exporter=caller.key.name, reason=reason)
        return pb.UnregisterResponse()

    async def report_status(self, caller: Caller, request: pb.ReportStatusRequest) -> pb.ReportStatusResponse:
        """Store what the exporter says about itself; what it says about a grant that is over is ignored."""
        exporter = (await self._record(caller.key)).exporter
        if request.grant and request.grant < exporter.grant:
            log.info("report.stale", exporter=caller.key.name, grant=request.grant)
            return pb.ReportStatusResponse()
        status, message = status_word(request.status), cut(request.message)
        if (exporter.status, exporter.status_message) != (status, message):
            change: dict[str, object] = {
                "exporterStatus": str(status),
                "statusMessage": message or None,
                "lastSeen": last_seen(clock.utc_now()),
            }
            await self._briefly(partial(self._store.patch_exporter_status, caller.key, change))
        if request.release_lease:
            await self._release_held(exporter)
        return pb.ReportStatusResponse()

    async def release_lease(self, caller: Caller, request: pb.ReleaseLeaseRequest) -> pb.ReleaseLeaseResponse:
        """End the lease that this exporter holds.

        Raises:
            NotFound: there is no such lease.
            NotNow: this exporter does not hold it.
        """
        lease = await self._parts.leases.find(Key(caller.key.namespace, request.name), caller.user)
        if request.grant and request.grant < lease.status.grant:
            return pb.ReleaseLeaseResponse()
        await self._parts.leases.release(lease, partial(check_holder, caller))
        return pb.ReleaseLeaseResponse()

    async def audit_stream(self, caller: Caller, requests: AsyncIterator[pb.AuditStreamRequest]) -> Empty:
        """Log what the exporter's drivers did.

        Raises:
            NotAllowed: an entry names another exporter.
        """
        async for entry in requests:
            if entry.exporter_uuid != caller.uid:
                raise NotAllowed("exporter_uuid is not that of the caller")
            log.info(
                "audit",
                exporter=caller.key.name,
                driver=cut(entry.driver_instance_uuid),
                severity=cut(entry.severity),
                message=cut(entry.message),
            )
        return Empty()

    async def get_service_endpoints(
        self, _caller: Caller, _request: pb.GetServiceEndpointsRequest
    ) -> pb.GetServiceEndpointsResponse:
        """Name the collectors of logs: there are none."""
        return pb.GetServiceEndpointsResponse()

    async def _record(self, key: Key) -> ExporterRecord:
        record = self._store.exporters.get(key)
        if record is not None:
            return record
        await self._store.read_exporter(key)
        record = self._store.exporters.get(key)
        if record is None:
            raise Unavailable(f"exporter {key.name} is being deleted")
        return record

    async def _apply_labels(self, record: ExporterRecord, labels: Mapping[str, str]) -> ExporterRecord:
        """Own these labels; one that a manifest gives another value stays the manifest's."""
        key = record.exporter.key
        while True:
            present = record.exporter.meta.labels
            wanted = {
                name: value
                for name, value in labels.items()
                if name in record.registered_labels or present.get(name, value) == value
            }
            owned = {name: present.get(name) for name in record.registered_labels}
            if wanted == owned:
                return record
            try:
                return await until_back(partial(self._store.apply_exporter_labels, key, wanted))
            except Stale:
                await until_back(partial(self._store.read_exporter, key))
                record = await until_back(partial(self._record, key))

    async def _release_held(self, exporter: Exporter) -> None:
        """The way in which exporters before ReleaseLease end their lease."""
        lease = self._store.leases.get(Key(exporter.key.namespace, exporter.lease)) if exporter.lease else None
        if lease is None or not held(exporter, lease):
            log.info("release.without_lease", exporter=exporter.key.name)
            return
        await self._parts.leases.release(lease, lambda seen: None)

    async def _briefly(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat a write that may be done twice, for a while: the caller repeats it after that."""
        try:
            async with asyncio.timeout(self._parts.waits.store.total_seconds()):
                return await until_back(attempt)
        except TimeoutError:
            raise Unavailable("the API server is away") from None


def check_holder(caller: Caller, lease: Lease) -> None:
    """Raise NotNow unless the lease was given to the calling exporter. Not NotAllowed: jmp 0.9.0 would take that for a
    server without this call, for ever."""
    if lease.status.exporter != caller.key.name:
        raise NotNow(f"lease {lease.key.name} does not hold exporter {caller.key.name}")


def registered_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that Register may set.

    Raises:
        InvalidField: one of them is no label.
    """
    kept = {key: value for key, value in labels.items() if key.startswith(LABEL_PREFIX)}
    for key, value in kept.items():
        check_label_key(key, "labels")
        check_label_value(value, f"labels[{key}]")
    return kept


def cut(text: str) -> str:
    """Return at most 4096 characters."""
    return text[:_MESSAGE_CHARACTERS]
