"""Exporters and clients made of bare stubs: as quick as the wire allows, for what needs hundreds of leases.

They speak the published protocol and no more; each runs in the event loop of its caller.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc
import grpc.aio

from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.client.v1.client_pb2_grpc import ClientServiceStub
from lablease.wire.jumpstarter.v1 import common_pb2, jumpstarter_pb2
from lablease.wire.jumpstarter.v1.jumpstarter_pb2_grpc import ControllerServiceStub

if TYPE_CHECKING:
    from lablease.wire.jumpstarter.client.v1.client_pb2_grpc import ClientServiceAsyncStub
    from lablease.wire.jumpstarter.v1.jumpstarter_pb2_grpc import ControllerServiceAsyncStub

CALL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Speaker:
    """Whose calls these are: what goes into the metadata. Any field may lie."""

    kind: str
    namespace: str
    name: str
    token: str

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call; empty fields are left out."""
        pairs = (
            ("authorization", f"Bearer {self.token}" if self.token else ""),
            ("jumpstarter-kind", self.kind),
            ("jumpstarter-namespace", self.namespace),
            ("jumpstarter-name", self.name),
        )
        return tuple((key, value) for key, value in pairs if value)


def channel(endpoint: str, ca: bytes) -> grpc.aio.Channel:
    """Open a TLS channel of its own (no sharing between callers), without any limit on message size."""
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", 0),
    )
    return grpc.aio.secure_channel(endpoint, grpc.ssl_channel_credentials(ca), options)


@dataclass(frozen=True, slots=True)
class Told:
    """One message of a Status stream: when it came (monotonic seconds of the loop) and what it said."""

    at: float
    lease: str
    client: str
    grant: int


@dataclass(slots=True)
class FakeExporter:
    """Registers, reports LEASE_READY for each lease and AVAILABLE after it, as a stock exporter without hooks does.

    It needs the gap as a stock exporter does: a lease that follows another without ``leased=false`` is not taken up.
    """

    speaker: Speaker
    endpoint: str
    ca: bytes
    told: list[Told] = field(default_factory=list[Told])
    taken: list[str] = field(default_factory=list[str])
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    async def until_taken(self, lease: str, within_seconds: float = 20) -> None:
        """Wait until it has reported LEASE_READY for a lease.

        Raises:
            TimeoutError: not in time.
        """
        async with asyncio.timeout(within_seconds):
            while lease not in self.taken:
                self._news.clear()
                await self._news.wait()

    async def __aenter__(self) -> Self:
        ready = asyncio.Event()
        self._task = asyncio.create_task(self._run(ready))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=CALL_SECONDS)
        waiting.cancel()
        if self._task.done():
            await self._task
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self, ready: asyncio.Event) -> None:
        async with channel(self.endpoint, self.ca) as wire:
            stub, metadata = ControllerServiceStub(wire), self.speaker.metadata()
            report = jumpstarter_pb2.DriverInstanceReport(uuid="root", labels={"jumpstarter.dev/client": "x"})
            request = jumpstarter_pb2.RegisterRequest(reports=[report])
            await stub.Register(request, metadata=metadata, timeout=CALL_SECONDS)
            await self._report(stub, common_pb2.EXPORTER_STATUS_AVAILABLE)
            current = ""
            async for message in stub.Status(jumpstarter_pb2.StatusRequest(), metadata=metadata):
                ready.set()
                self._note(message)
                if message.leased and not current:
                    current = message.lease_name
                    await self._report(stub, common_pb2.EXPORTER_STATUS_LEASE_READY)
                    self.taken.append(current)
                    self._news.set()
                elif not message.leased and current:
                    current = ""
                    await self._report(stub, common_pb2.EXPORTER_STATUS_AVAILABLE)

    def _note(self, message: jumpstarter_pb2.StatusResponse) -> None:
        now = asyncio.get_running_loop().time()
        lease = message.lease_name if message.leased else ""
        self.told.append(Told(now, lease, message.client_name, message.grant))

    async def _report(self, stub: "ControllerServiceAsyncStub", status: common_pb2.ExporterStatus.ValueType) -> None:
        request = jumpstarter_pb2.ReportStatusRequest(status=status)
        await stub.ReportStatus(request, metadata=self.speaker.metadata(), timeout=CALL_SECONDS)


@dataclass(slots=True)
class FakeClient:
    """ClientService and Dial by name, with the caller's metadata."""

    speaker: Speaker
    wire: grpc.aio.Channel

    @property
    def stub(self) -> "ClientServiceAsyncStub":
        return ClientServiceStub(self.wire)

    @property
    def parent(self) -> str:
        return f"namespaces/{self.speaker.namespace}"

    async def create(self, selector: str, seconds: int = 600, name: str = "") -> client_pb2.Lease:
        """Ask for a lease."""
        lease = client_pb2.Lease(selector=selector)
        lease.duration.FromSeconds(seconds)
        request = client_pb2.CreateLeaseRequest(parent=self.parent, lease_id=name, lease=lease)
        return await self.stub.CreateLease(request, metadata=self.speaker.metadata(), timeout=CALL_SECONDS)

    async def get(self, name: str, wait_seconds: float = 0) -> client_pb2.Lease:
        """Look at a lease by its full name; ask the server to hold the answer for a decision."""
        hint = (("x-lablease-wait", str(wait_seconds)),) if wait_seconds else ()
        return await self.stub.GetLease(
            client_pb2.GetLeaseRequest(name=name),
            metadata=(*self.speaker.metadata(), *hint),
            timeout=CALL_SECONDS + wait_seconds,
        )

    async def until_ready(self, name: str, within_seconds: float = 30) -> client_pb2.Lease:
        """Wait until a lease has its exporter.

        Raises:
            TimeoutError: not in time.
        """
        async with asyncio.timeout(within_seconds):
            while True:
                lease = await self.get(name, wait_seconds=5)
                if any(entry.type == "Ready" and entry.status == "True" for entry in lease.conditions):
                    return lease
                await asyncio.sleep(0.02)

    async def release(self, name: str) -> None:
        """End a lease."""
        request = client_pb2.DeleteLeaseRequest(name=name)
        await self.stub.DeleteLease(request, metadata=self.speaker.metadata(), timeout=CALL_SECONDS)

    async def dial(self, name: str) -> jumpstarter_pb2.DialResponse:
        """Ask for a tunnel; ``name`` is the plain name of the lease."""
        request = jumpstarter_pb2.DialRequest(lease_name=name)
        stub = ControllerServiceStub(self.wire)
        return await stub.Dial(request, metadata=self.speaker.metadata(), timeout=CALL_SECONDS)


@contextlib.asynccontextmanager
async def fake_client(speaker: Speaker, endpoint: str, ca: bytes) -> AsyncGenerator[FakeClient]:
    """Open a client with a channel of its own."""
    async with channel(endpoint, ca) as wire:
        yield FakeClient(speaker, wire)
