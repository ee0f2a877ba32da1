"""A controller and router made of stubs in the event loop of a test: an agent's whole world, on loopback with TLS.

The test says what Status sends, reads what the agent reported, and dials the agent's session through the router.
"""

# The stubs of grpcio leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
import base64
import datetime
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lablease.clock import utc_now
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2 as pb
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2_grpc, router_pb2, router_pb2_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
PATIENCE_SECONDS = 30.0
_OPTIONS = (("grpc.http2.min_ping_interval_without_data_ms", 1000), ("grpc.http2.max_ping_strikes", 0))


@dataclass(frozen=True, slots=True)
class Seen:
    """One report of the agent: the status as the wire numbers it."""

    status: int
    message: str
    grant: int


def _certificate() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stub controller")])
    now = utc_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(encoding)


@dataclass
class StubController(jumpstarter_pb2_grpc.ControllerServiceServicer):
    """What the controller says, and what it was told. ``unavailable`` calls are refused with UNAVAILABLE."""

    told: pb.StatusResponse = field(default_factory=pb.StatusResponse)
    reports: list[Seen] = field(default_factory=list[Seen])
    calls: list[str] = field(default_factory=list[str])
    tokens: list[str] = field(default_factory=list[str])
    renewed_token: str = ""
    refuse_reports: int = 0
    release_is_told: bool = True
    listens: dict[str, "asyncio.Queue[pb.ListenResponse]"] = field(default_factory=dict[str, Any])
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    version: int = 0

    async def tell(self, message: pb.StatusResponse) -> None:
        """Send a message on every Status stream, and first on new ones."""
        async with self.changed:
            self.told, self.version = message, self.version + 1
            self.changed.notify_all()

    async def until(self, what: str, count: int = 1) -> None:
        """Wait until a call was made ``count`` times."""
        async with asyncio.timeout(PATIENCE_SECONDS), self.changed:
            await self.changed.wait_for(lambda: self.calls.count(what) >= count)

    async def until_report(self, status: int, grant: int) -> None:
        """Wait for a report."""
        async with asyncio.timeout(PATIENCE_SECONDS), self.changed:
            await self.changed.wait_for(lambda: any((r.status, r.grant) == (status, grant) for r in self.reports))

    async def _note(self, call: str, context: Context) -> None:
        metadata = dict(context.invocation_metadata() or ())
        async with self.changed:
            self.calls.append(call)
            self.tokens.append(str(metadata["authorization"]).removeprefix("Bearer "))
            self.changed.notify_all()

    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.RegisterResponse:
        await self._note("Register", context)
        return pb.RegisterResponse(uuid=str(uuid4()))

    async def Unregister(self, request: pb.UnregisterRequest, context: Context) -> pb.UnregisterResponse:
        await self._note("Unregister", context)
        return pb.UnregisterResponse()

    async def ReportStatus(self, request: pb.ReportStatusRequest, context: Context) -> pb.ReportStatusResponse:
        if self.refuse_reports > 0:
            self.refuse_reports -= 1
            await self._note("ReportStatus refused", context)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        self.reports.append(Seen(request.status, request.message, request.grant))
        await self._note("ReportStatus", context)
        return pb.ReportStatusResponse()

    async def ReleaseLease(self, request: pb.ReleaseLeaseRequest, context: Context) -> pb.ReleaseLeaseResponse:
        await self._note("ReleaseLease", context)
        if self.release_is_told:
            await self.tell(pb.StatusResponse(released_grant=request.grant))
        return pb.ReleaseLeaseResponse()

    async def Status(self, request: pb.StatusRequest, context: Context) -> AsyncIterator[pb.StatusResponse]:
        await self._note("Status", context)
        if self.renewed_token:
            await context.send_initial_metadata((("lablease-token", self.renewed_token),))
        seen = -1
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: self.version != seen)  # noqa: B023 - waited for in this round
                seen, message = self.version, self.told
            yield message

    async def Listen(self, request: pb.ListenRequest, context: Context) -> AsyncIterator[pb.ListenResponse]:
        queue = self.listens[request.lease_name] = asyncio.Queue()
        await self._note(f"Listen {request.lease_name}", context)
        while True:
            yield await queue.get()


class StubRouter(router_pb2_grpc.RouterServiceServicer):
    """Joins two streams with the same token."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[asyncio.Queue[Any], asyncio.Queue[Any]]] = {}

    async def Stream(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, frames: AsyncIterator[router_pb2.StreamRequest], context: Context
    ) -> AsyncIterator[router_pb2.StreamResponse]:
        token = str(dict(context.invocation_metadata() or ())["authorization"])
        if token in self._waiting:
            outward, inward = self._waiting.pop(token)
        else:
            inward, outward = asyncio.Queue(32), asyncio.Queue(32)
            self._waiting[token] = (inward, outward)
        pulling = asyncio.ensure_future(_pull(frames, outward))
        try:
            while (frame := await inward.get()) is not None:
                yield router_pb2.StreamResponse(payload=frame.payload, frame_type=frame.frame_type)
        finally:
            pulling.cancel()


async def _pull(frames: AsyncIterator[router_pb2.StreamRequest], queue: "asyncio.Queue[Any]") -> None:
    try:
        async for frame in frames:
            await queue.put(frame)
    finally:
        with suppress(asyncio.QueueFull):
            queue.put_nowait(None)


class World:
    """The stubs, their server, and a client's way through the router."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.controller = StubController()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]  # what an agent calls
        self._key, self._certificate = _certificate()
        self._server: grpc.aio.Server | None = None
        self._channel: grpc.aio.Channel | None = None
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ca(self) -> str:
        """The certificate as configurations have it."""
        return base64.b64encode(self._certificate).decode()

    async def start(self) -> None:
        """Serve, on the port of the last time if there was one."""
        server = grpc.aio.server(options=_OPTIONS)
        jumpstarter_pb2_grpc.add_ControllerServiceServicer_to_server(self.controller, server)
        router_pb2_grpc.add_RouterServiceServicer_to_server(StubRouter(), server)
        credentials = grpc.ssl_server_credentials([(self._key, self._certificate)])
        self.port = server.add_secure_port(f"localhost:{self.port}", credentials)
        await server.start()
        self._server = server
        self._channel = grpc.aio.secure_channel(
            f"localhost:{self.port}", grpc.ssl_channel_credentials(self._certificate)
        )

    async def stop(self) -> None:
        """Be gone, as after kill -9."""
        for task in tuple(self._tasks):
            task.cancel()
        if self._channel is not None:
            await self._channel.close(None)
        if self._server is not None:
            await self._server.stop(0)

    @asynccontextmanager
    async def dial(self, lease: str) -> AsyncGenerator[grpc.aio.Channel]:
        """Yield a channel to the agent's session, through a tunnel per connection as a client makes them."""
        path = self.folder / f"dial-{uuid4().hex[:8]}"
        server = await asyncio.start_unix_server(lambda r, w: self._tunnel(lease, r, w), path)
        channel = grpc.aio.insecure_channel(f"unix://{path}")
        try:
            yield channel
        finally:
            await channel.close(None)
            server.close()

    async def _tunnel(self, lease: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._channel is None or lease not in self.controller.listens:
            writer.transport.abort()
            return
        token = uuid4().hex
        answer = pb.ListenResponse(router_endpoint=f"localhost:{self.port}", router_token=token)
        await self.controller.listens[lease].put(answer)
        stub: Any = router_pb2_grpc.RouterServiceStub(self._channel)
        call = stub.Stream(metadata=(("authorization", f"Bearer {token}"),))
        task = asyncio.ensure_future(_push(reader, call))
        self._tasks.add(task)
        try:
            async for frame in call:
                if frame.frame_type == router_pb2.FRAME_TYPE_GOAWAY:
                    break
                writer.write(frame.payload)
                await writer.drain()
        except (grpc.aio.AioRpcError, ConnectionError, asyncio.CancelledError):
            pass  # a test cuts tunnels; what it looks at is the channel
        finally:
            writer.transport.abort()
            call.cancel()
            task.cancel()
            self._tasks.discard(task)


async def _push(reader: asyncio.StreamReader, call: Any) -> None:
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, ConnectionError):
        while data := await reader.read(65536):
            await call.write(router_pb2.StreamRequest(payload=data))
        await call.write(router_pb2.StreamRequest(frame_type=router_pb2.FRAME_TYPE_GOAWAY))
        await call.done_writing()


def leased(lease: str, grant: int, *, client: str = "alice", seconds: float | None = None) -> pb.StatusResponse:
    """Return "leased", with a planned end in that many seconds if it is given."""
    message = pb.StatusResponse(leased=True, lease_name=lease, client_name=client, grant=grant)
    if seconds is not None:
        message.planned_end.FromDatetime(utc_now() + datetime.timedelta(seconds=seconds))
    return message


@asynccontextmanager
async def world() -> AsyncGenerator[World]:
    """Yield running stubs, in a folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="aw-", dir="/tmp") as folder:
        made = World(Path(folder))
        await made.start()
        try:
            yield made
        finally:
            await made.stop()
