"""``jumpstarter.v1.ControllerService``: which method answers which call, from whom; and its few calls of clients."""

from typing import Any

import grpc

from lablease import clock
from lablease.errors import InvalidField
from lablease.grpc_frontend.auth import Caller, Kind
from lablease.grpc_frontend.gate import ANY, CLIENT, EXPORTER, Gate, service
from lablease.grpc_frontend.ids import uuid7
from lablease.grpc_frontend.leases import RETENTION, active, check_owner
from lablease.grpc_frontend.parts import Parts
from lablease.grpc_frontend.services.dialling import Dialling
from lablease.grpc_frontend.services.exporters import ExporterCalls
from lablease.grpc_frontend.services.streams import ExporterStreams
from lablease.model.keys import Key
from lablease.model.lease import LeaseSpec
from lablease.rules.times import Times, normalise
from lablease.wire.codec import lease_response, read_duration, read_selector
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2 as pb

NAME = "jumpstarter.v1.ControllerService"


class ControllerLeases:
    """The lease calls of ControllerService: plain names, the caller's own leases only."""

    def __init__(self, parts: Parts, exporters: ExporterCalls) -> None:
        self._parts = parts
        self._exporters = exporters

    async def get_lease(self, caller: Caller, request: pb.GetLeaseRequest) -> pb.GetLeaseResponse:
        """Return one lease of the caller.

        Raises:
            InvalidField: no name.
            NotFound: there is none.
            NotAllowed: it is another client's.
        """
        lease = await self._parts.leases.owned(caller, _named(request.name))
        key = Key(lease.key.namespace, lease.status.exporter) if lease.status.exporter else None
        exporter = self._parts.store.exporter(key) if key is not None else None
        return lease_response(lease, exporter.meta.uid if exporter is not None else None)

    async def request_lease(self, caller: Caller, request: pb.RequestLeaseRequest) -> pb.RequestLeaseResponse:
        """Create a lease.

        Raises:
            InvalidField: no selector, one that cannot be read, or no positive duration.
        """
        selector = read_selector(request.selector, "selector")
        if selector.empty:
            raise InvalidField("selector", "must not be empty")
        wanted = read_duration(request.duration, "duration") if request.HasField("duration") else None
        times = normalise(Times(duration=wanted))
        spec = LeaseSpec(caller.key.name, selector, duration=times.duration, ttl=RETENTION)
        lease = await self._parts.leases.create(uuid7(clock.utc_now()), spec)
        return pb.RequestLeaseResponse(name=lease.key.name)

    async def release_lease(self, caller: Caller, request: pb.ReleaseLeaseRequest) -> pb.ReleaseLeaseResponse:
        """End a lease: the owner its own, an exporter the one that holds it. Doing so again changes nothing."""
        _named(request.name)
        if caller.kind is Kind.EXPORTER:
            return await self._exporters.release_lease(caller, request)
        lease = await self._parts.leases.owned(caller, request.name)
        await self._parts.leases.release(lease, lambda seen: check_owner(caller, seen))
        return pb.ReleaseLeaseResponse()

    async def list_leases(self, caller: Caller, _request: pb.ListLeasesRequest) -> pb.ListLeasesResponse:
        """Name the caller's leases that have not ended, oldest first."""
        mine = [lease for lease in self._parts.leases.of_client(caller.key) if active(lease)]
        ordered = sorted(mine, key=lambda lease: (lease.meta.created, lease.key.name))
        return pb.ListLeasesResponse(names=[lease.key.name for lease in ordered])


def controller_service(gate: Gate, parts: Parts) -> "grpc.GenericRpcHandler[Any, Any]":
    """Return the handler of the whole service."""
    exporters = ExporterCalls(parts)
    streams = ExporterStreams(parts)
    leases = ControllerLeases(parts, exporters)
    dialling = Dialling(parts)
    return service(
        NAME,
        {
            "Register": gate.unary(EXPORTER, exporters.register, pb.RegisterRequest, patient=True),
            "Unregister": gate.unary(EXPORTER, exporters.unregister, pb.UnregisterRequest),
            "ReportStatus": gate.unary(EXPORTER, exporters.report_status, pb.ReportStatusRequest),
            "Listen": gate.answers(EXPORTER, streams.listen, pb.ListenRequest),
            "Status": gate.answers(EXPORTER, streams.status, pb.StatusRequest),
            "Dial": gate.unary(CLIENT, dialling.dial, pb.DialRequest),
            "AuditStream": gate.requests(EXPORTER, exporters.audit_stream, pb.AuditStreamRequest),
            "GetLease": gate.unary(CLIENT, leases.get_lease, pb.GetLeaseRequest),
            "RequestLease": gate.unary(CLIENT, leases.request_lease, pb.RequestLeaseRequest),
            "ReleaseLease": gate.unary(ANY, leases.release_lease, pb.ReleaseLeaseRequest),
            "ListLeases": gate.unary(CLIENT, leases.list_leases, pb.ListLeasesRequest),
            "GetServiceEndpoints": gate.unary(EXPORTER, exporters.get_service_endpoints, pb.GetServiceEndpointsRequest),
        },
    )


def _named(name: str) -> str:
    if not name:
        raise InvalidField("name", "must not be empty")
    return name
