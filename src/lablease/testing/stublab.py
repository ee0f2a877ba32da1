"""A lab made of stubs in the event loop of a test: a controller, a router and an exporter, over real sockets and TLS.

What each answers is up to the test. The router joins a client's stream to the exporter's unix socket, or to any other
address that a test names, so a real exporter can stand behind it.
"""

# The stubs of grpcio leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
import base64
import datetime
import ipaddress
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.empty_pb2 import Empty

from lablease.client.config import ClientConfig, Metadata, Tls
from lablease.client.tree import CLIENT_LABEL, NAME_LABEL
from lablease.client.values import from_value, to_value
from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.client.v1.client_pb2_grpc import (
    ClientServiceServicer,
    add_ClientServiceServicer_to_server,
)
from lablease.wire.jumpstarter.v1 import common_pb2, jumpstarter_pb2, kubernetes_pb2, router_pb2
from lablease.wire.jumpstarter.v1.jumpstarter_pb2_grpc import (
    ExporterServiceServicer,
    add_ExporterServiceServicer_to_server,
)
from lablease.wire.jumpstarter.v1.router_pb2_grpc import RouterServiceServicer, add_RouterServiceServicer_to_server

TOKEN = "client-token"
POWER, ECHO, FLASH, ODD = "uuid-power", "uuid-echo", "uuid-flash", "uuid-odd"
"""Drivers of the stub exporter."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def condition(kind: str, status: str, reason: str, message: str = "") -> kubernetes_pb2.Condition:
    """Return a condition as the wire has it."""
    return kubernetes_pb2.Condition(type=kind, status=status, reason=reason, message=message)


READY = condition("Ready", "True", "Ready", "ready")
PENDING = condition("Pending", "True", "NotAvailable", "both exporters are leased")


@dataclass(slots=True)
class StubController(ClientServiceServicer):
    """Grants each lease at the look that ``conditions`` says; ``failures`` are answered first, one per call of a method."""

    router: str = ""
    token: str = TOKEN
    conditions: list[list[kubernetes_pb2.Condition]] = field(default_factory=lambda: [[READY]])
    failures: dict[str, list[tuple[grpc.StatusCode, str]]] = field(default_factory=dict[str, Any])
    leases: dict[str, client_pb2.Lease] = field(default_factory=dict[str, client_pb2.Lease])
    exporters: list[client_pb2.Exporter] = field(default_factory=list[client_pb2.Exporter])
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list[tuple[str, dict[str, str]]])
    dials: int = 0

    async def _enter(self, method: str, context: Context) -> None:
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        self.calls.append((method, metadata))
        if metadata.get("authorization") != f"Bearer {self.token}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "invalid token")
        if waiting := self.failures.get(method):
            await context.abort(*waiting.pop(0))

    async def CreateLease(self, request: client_pb2.CreateLeaseRequest, context: Context) -> client_pb2.Lease:
        if request.lease_id in self.leases:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, f"lease {request.lease_id} already exists")
        lease = client_pb2.Lease()
        lease.CopyFrom(request.lease)
        lease.name = f"{request.parent}/leases/{request.lease_id}"
        lease.client = f"{request.parent}/clients/me"
        self.leases[request.lease_id] = lease
        await self._enter("CreateLease", context)
        return lease

    async def GetLease(self, request: client_pb2.GetLeaseRequest, context: Context) -> client_pb2.Lease:
        await self._enter("GetLease", context)
        lease = self.leases.get(request.name.rpartition("/")[2])
        if lease is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "lease not found")
            raise AssertionError
        del lease.conditions[:]
        lease.conditions.extend(self.conditions[0] if len(self.conditions) == 1 else self.conditions.pop(0))
        if lease.conditions and lease.conditions[-1].type == "Ready":
            lease.exporter = "namespaces/lab/exporters/board-1"
            if not lease.HasField("effective_begin_time"):
                lease.effective_begin_time.GetCurrentTime()
        return lease

    async def ListLeases(
        self, request: client_pb2.ListLeasesRequest, context: Context
    ) -> client_pb2.ListLeasesResponse:
        await self._enter("ListLeases", context)
        names = sorted(self.leases)
        start = int(request.page_token or 0)
        page = names[start : start + 1]  # one a page, so that paging is needed
        following = str(start + 1) if start + 1 < len(names) else ""
        return client_pb2.ListLeasesResponse(leases=[self.leases[n] for n in page], next_page_token=following)

    async def UpdateLease(self, request: client_pb2.UpdateLeaseRequest, context: Context) -> client_pb2.Lease:
        await self._enter("UpdateLease", context)
        lease = self.leases[request.lease.name.rpartition("/")[2]]
        for path in request.update_mask.paths:
            if path == "client":
                lease.client = request.lease.client
            else:
                getattr(lease, path).CopyFrom(getattr(request.lease, path))
        return lease

    async def DeleteLease(self, request: client_pb2.DeleteLeaseRequest, context: Context) -> Empty:
        await self._enter("DeleteLease", context)
        self.leases.pop(request.name.rpartition("/")[2], None)
        return Empty()

    async def GetExporter(self, request: client_pb2.GetExporterRequest, context: Context) -> client_pb2.Exporter:
        await self._enter("GetExporter", context)
        return client_pb2.Exporter(name=request.name, labels={"board": "stub"})

    async def ListExporters(
        self, request: client_pb2.ListExportersRequest, context: Context
    ) -> client_pb2.ListExportersResponse:
        await self._enter("ListExporters", context)
        return client_pb2.ListExportersResponse(exporters=self.exporters)

    async def RotateToken(
        self, request: client_pb2.RotateTokenRequest, context: Context
    ) -> client_pb2.RotateTokenResponse:
        await self._enter("RotateToken", context)
        return client_pb2.RotateTokenResponse(token="rotated")

    async def Dial(self, request: jumpstarter_pb2.DialRequest, context: Context) -> jumpstarter_pb2.DialResponse:
        await self._enter("Dial", context)
        self.dials += 1
        return jumpstarter_pb2.DialResponse(router_endpoint=self.router, router_token=f"tunnel-{self.dials}")

    def dialling(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return ControllerService with the one method that clients call."""
        dial: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            self.Dial,
            jumpstarter_pb2.DialRequest.FromString,
            jumpstarter_pb2.DialResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("jumpstarter.v1.ControllerService", {"Dial": dial})


@dataclass(slots=True)
class StubRouter(RouterServiceServicer):
    """Joins each stream to a new connection to ``target``; ``frames`` are the sizes of what clients sent."""

    target: str
    frames: list[int] = field(default_factory=list[int])
    tokens: list[str] = field(default_factory=list[str])
    ended: list[str] = field(default_factory=list[str])

    async def Stream(self, request_iterator: Any, context: Context) -> AsyncIterator[router_pb2.StreamResponse]:
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        self.tokens.append(metadata.get("authorization", ""))
        if "/" in self.target:
            reader, writer = await asyncio.open_unix_connection(self.target)
        else:
            host, _, port = self.target.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))

        async def up() -> None:
            async for frame in request_iterator:
                if frame.frame_type == router_pb2.FRAME_TYPE_GOAWAY:
                    break
                self.frames.append(len(frame.payload))
                writer.write(frame.payload)
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(up())
        try:
            while data := await reader.read(65536):
                yield router_pb2.StreamResponse(payload=data)
            yield router_pb2.StreamResponse(frame_type=router_pb2.FRAME_TYPE_GOAWAY)
            await sending
            self.ended.append("clean")
        finally:
            sending.cancel()
            writer.close()


@dataclass(slots=True)
class StubExporter(ExporterServiceServicer, RouterServiceServicer):
    """A power switch, an echo stream and a flasher. ``states`` are answered one after the other, the last one stays."""

    states: list[tuple[str, str]] = field(default_factory=lambda: [("LEASE_READY", "")])
    after_end: list[tuple[str, str]] = field(default_factory=lambda: [("AVAILABLE", "")])
    log: list[str] = field(default_factory=list[str])
    lines: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    flashed: bytes = b""
    open_streams: int = 0
    resources: dict[str, asyncio.Queue[bytes | None]] = field(default_factory=dict[str, Any])

    async def GetReport(self, request: Empty, context: Context) -> jumpstarter_pb2.GetReportResponse:
        self.log.append("report")
        report = jumpstarter_pb2.GetReportResponse(uuid="exporter")
        root = report.reports.add(uuid="root")
        root.labels[CLIENT_LABEL] = "jumpstarter_driver_composite.client.CompositeClient"
        for uuid, name, client in (
            (POWER, "power", "jumpstarter_driver_power.client.PowerClient"),
            (ECHO, "echo", "jumpstarter_driver_network.client.NetworkClient"),
            (FLASH, "storage", "jumpstarter_driver_opendal.client.FlasherClient"),
            (ODD, "odd", "somebody.else.Client"),
        ):
            child = report.reports.add(uuid=uuid, parent_uuid="root")
            child.labels[CLIENT_LABEL], child.labels[NAME_LABEL] = client, name
        report.reports[-1].methods_description["add"] = "Add two numbers."
        return report

    async def GetStatus(
        self, request: jumpstarter_pb2.GetStatusRequest, context: Context
    ) -> jumpstarter_pb2.GetStatusResponse:
        status, message = self.states[0] if len(self.states) == 1 else self.states.pop(0)
        number = common_pb2.ExporterStatus.Value(f"EXPORTER_STATUS_{status}")
        return jumpstarter_pb2.GetStatusResponse(status=number, message=message)

    async def EndSession(
        self, request: jumpstarter_pb2.EndSessionRequest, context: Context
    ) -> jumpstarter_pb2.EndSessionResponse:
        self.log.append("end")
        self.states = list(self.after_end)  # the next session begins anew: a test that needs one says so
        return jumpstarter_pb2.EndSessionResponse(success=True)

    async def LogStream(self, request: Empty, context: Context) -> AsyncIterator[jumpstarter_pb2.LogStreamResponse]:
        for source, message in self.lines:
            number = common_pb2.LogSource.Value(f"LOG_SOURCE_{source}")
            yield jumpstarter_pb2.LogStreamResponse(severity="INFO", message=message, source=number)
        await asyncio.Event().wait()

    async def Reset(self, request: jumpstarter_pb2.ResetRequest, context: Context) -> jumpstarter_pb2.ResetResponse:
        return jumpstarter_pb2.ResetResponse()

    async def DriverCall(
        self, request: jumpstarter_pb2.DriverCallRequest, context: Context
    ) -> jumpstarter_pb2.DriverCallResponse:
        args = [from_value(a) for a in request.args]
        match request.method, args:
            case "on" | "off", []:
                self.log.append(request.method)
                return jumpstarter_pb2.DriverCallResponse(uuid="any")
            case "add", [int() | float() as one, int() | float() as two]:
                return jumpstarter_pb2.DriverCallResponse(uuid="any", result=to_value(one + two))
            case "flash", [{"uuid": str() as uuid}, _]:
                self.flashed = b""
                while (block := await self.resources[uuid].get()) is not None:
                    self.flashed += block
                return jumpstarter_pb2.DriverCallResponse(uuid="any")
            case "gated", _:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "exporter is BEFORE_LEASE_HOOK")
            case "picky", _:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too picky")
            case _:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"method {request.method} not found on driver")
        raise AssertionError

    async def StreamingDriverCall(
        self, request: jumpstarter_pb2.StreamingDriverCallRequest, context: Context
    ) -> AsyncIterator[jumpstarter_pb2.StreamingDriverCallResponse]:
        self.open_streams += 1
        try:
            for number in range(1000):
                yield jumpstarter_pb2.StreamingDriverCallResponse(
                    uuid="any", result=to_value({"voltage": number, "current": 0.5})
                )
        finally:
            self.open_streams -= 1

    async def Stream(self, request_iterator: Any, context: Context) -> AsyncIterator[router_pb2.StreamResponse]:
        request: dict[str, str] = json.loads(str(dict(context.invocation_metadata() or ())["request"]))
        if request["uuid"] not in {ECHO, FLASH}:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such stream")
        initial: tuple[tuple[str, str], ...] = ()
        uuid = ""
        if request["kind"] == "resource":
            uuid = f"resource-{len(self.resources)}"
            self.resources[uuid] = asyncio.Queue(4)
            handle = {"kind": "client_stream", "uuid": uuid, "x_jmp_content_encoding": None}
            initial = (("resource", json.dumps(handle)), ("x_jmp_accept_encoding", ""))
        await context.send_initial_metadata(initial)
        self.open_streams += 1
        try:
            async for frame in request_iterator:
                if frame.frame_type == router_pb2.FRAME_TYPE_GOAWAY:
                    break
                if request["kind"] == "resource":
                    await self.resources[uuid].put(frame.payload)
                else:
                    yield router_pb2.StreamResponse(payload=frame.payload)
            if request["kind"] == "resource":
                await self.resources[uuid].put(None)
            yield router_pb2.StreamResponse(frame_type=router_pb2.FRAME_TYPE_GOAWAY)
            await asyncio.Event().wait()  # as stock exporters do: until the client cancels
        finally:
            self.open_streams -= 1


@dataclass(slots=True)
class StubLab:
    """The three of them, and the configuration of a client of theirs."""

    controller: StubController
    router: StubRouter
    exporter: StubExporter
    config: ClientConfig


@asynccontextmanager
async def stub_lab(directory: Path, target: str = "") -> AsyncGenerator[StubLab]:
    """Start the lab; ``directory`` must have a short path, a socket goes there. ``target`` replaces the exporter."""
    pair, ca = certificate()
    exporter = StubExporter()
    socket = str(directory / "exporter.sock")
    inner = grpc.aio.server()
    add_ExporterServiceServicer_to_server(exporter, inner)
    add_RouterServiceServicer_to_server(exporter, inner)
    inner.add_insecure_port(f"unix:{socket}")
    controller, router = StubController(), StubRouter(target or socket)
    outer = grpc.aio.server(
        options=(
            ("grpc.http2.min_ping_interval_without_data_ms", 1000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 0),
        )
    )
    add_ClientServiceServicer_to_server(controller, outer)
    outer.add_generic_rpc_handlers((controller.dialling(),))
    add_RouterServiceServicer_to_server(router, outer)
    port = outer.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    controller.router = f"127.0.0.1:{port}"
    config = ClientConfig(
        metadata=Metadata(namespace="lab", name="me"),
        endpoint=controller.router,
        token=TOKEN,
        tls=Tls(ca=base64.b64encode(ca).decode()),
    )
    await inner.start()
    await outer.start()
    try:
        yield StubLab(controller, router, exporter, config)
    finally:
        await outer.stop(0)
        await inner.stop(0)


def certificate() -> tuple[tuple[bytes, bytes], bytes]:
    """Make a self-signed certificate for 127.0.0.1; returns key and certificate in PEM, and the certificate again."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stub lab")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = built.public_bytes(serialization.Encoding.PEM)
    return (private, pem), pem
