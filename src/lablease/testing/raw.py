"""Raw stubs of the front end's services, as a peer without any library has them: callers, exporters, refusals."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from lablease.testing.kube import Json
from lablease.testing.stack import Identity, Stack
from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.client.v1.client_pb2_grpc import ClientServiceStub
from lablease.wire.jumpstarter.v1 import common_pb2, jumpstarter_pb2, router_pb2
from lablease.wire.jumpstarter.v1.jumpstarter_pb2_grpc import ControllerServiceStub

T = TypeVar("T")
CODE = grpc.StatusCode
PATIENCE_SECONDS = 15.0
SILENCE_SECONDS = 0.7
CONTROLLER = "jumpstarter.v1.ControllerService"
CLIENT = "jumpstarter.client.v1.ClientService"
AVAILABLE = common_pb2.EXPORTER_STATUS_AVAILABLE
LEASE_READY = common_pb2.EXPORTER_STATUS_LEASE_READY
LIST = jumpstarter_pb2.ListLeasesRequest()
EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009 the stubs lack it


@dataclass(frozen=True, slots=True)
class Peer:
    """A caller that holds nothing but a channel and metadata."""

    controller: Any
    client: Any
    name: str
    namespace: str
    metadata: tuple[tuple[str, str], ...]

    def without(self, key: str) -> "Peer":
        return replace(self, metadata=tuple(item for item in self.metadata if item[0] != key))

    def with_(self, key: str, value: str) -> "Peer":
        return replace(self, metadata=(*self.without(key).metadata, (key, value)))

    def plus(self, key: str, value: str) -> "Peer":
        return replace(self, metadata=(*self.metadata, (key, value)))

    async def call(self, method: str, request: object, within_seconds: float = 45.0) -> Any:
        stub = self.controller if hasattr(self.controller, method) and is_controller(request) else self.client
        return await getattr(stub, method)(request, metadata=self.metadata, timeout=within_seconds)

    def path(self, collection: str, name: str) -> str:
        return f"namespaces/{self.namespace}/{collection}/{name}"

    @property
    def parent(self) -> str:
        return f"namespaces/{self.namespace}"


def is_controller(request: object) -> bool:
    return type(request).__module__.endswith("jumpstarter_pb2")


@asynccontextmanager
async def refused(code: grpc.StatusCode, *words: str) -> AsyncGenerator[None]:
    """Demand that the call inside fails with this code, and with details that have these words and suit jmp 0.9.0."""
    failure: grpc.aio.AioRpcError | None = None
    try:
        yield
    except grpc.aio.AioRpcError as error:
        failure = error
    assert failure is not None, f"the call was served; expected {code}"
    details = failure.details() or ""
    assert failure.code() is code, f"{failure.code()}: {details}"
    for word in words:
        assert word in details, f"no {word!r} in {details!r}"
    assert "\n" not in details
    assert "expired" not in details.replace("token is expired", "")


def peer(channel: grpc.aio.Channel, stack: Stack, who: Identity) -> Peer:
    metadata = (
        ("authorization", f"Bearer {who.token}"),
        ("jumpstarter-kind", who.kind),
        ("jumpstarter-namespace", stack.namespace),
        ("jumpstarter-name", who.name),
    )
    controller, client = ControllerServiceStub(channel), ClientServiceStub(channel)
    return Peer(controller, client, who.name, stack.namespace, metadata)


@dataclass(slots=True)
class Online:
    """An exporter of one test, registered, Available and with an open Status stream."""

    peer: Peer
    stack: Stack
    status: Any
    streams: list[Any] = field(default_factory=list[Any])

    @property
    def name(self) -> str:
        return self.peer.name

    def stored(self) -> Json:
        return self.stack.kube.get("exporters", self.name)

    async def told(self, within_seconds: float = PATIENCE_SECONDS) -> jumpstarter_pb2.StatusResponse:
        message: jumpstarter_pb2.StatusResponse = await next_message(self.status, within_seconds)
        return message

    async def until_leased(self) -> jumpstarter_pb2.StatusResponse:
        while not (said := await self.told()).leased:
            pass
        return said

    async def report(self, status: int, message: str = "", **more: Any) -> None:
        await self.peer.call(
            "ReportStatus",
            jumpstarter_pb2.ReportStatusRequest(status=status, message=message, **more),  # type: ignore[arg-type]
        )

    async def open_status(self) -> Any:
        self.status = self.peer.controller.Status(jumpstarter_pb2.StatusRequest(), metadata=self.peer.metadata)
        self.streams.append(self.status)
        return self.status

    async def listen(self, lease: str) -> Any:
        stream = self.peer.controller.Listen(
            jumpstarter_pb2.ListenRequest(lease_name=lease), metadata=self.peer.metadata
        )
        self.streams.append(stream)
        return stream


async def next_message(stream: Any, within_seconds: float = PATIENCE_SECONDS) -> Any:
    async with asyncio.timeout(within_seconds):
        message = await stream.read()
    assert message is not EOF, "the stream ended with OK"
    return message


async def assert_silent(stream: Any, seconds: float = SILENCE_SECONDS) -> None:
    """Nothing comes; the stream cannot be read any more after this."""
    try:
        message = await next_message(stream, seconds)
    except TimeoutError:
        return
    raise AssertionError(f"it said {message}")


DEVICES = [
    jumpstarter_pb2.DriverInstanceReport(uuid="root", labels={"jumpstarter.dev/client": "x.Client"}),
    jumpstarter_pb2.DriverInstanceReport(uuid="leaf", parent_uuid="root", description="help", labels={"a": "b"}),
]


def wanted(selector: str, seconds: int = 600, **more: Any) -> client_pb2.Lease:
    return client_pb2.Lease(selector=selector, duration=Duration(seconds=seconds), **more)


async def create(who: Peer, lease: client_pb2.Lease, lease_id: str = "") -> client_pb2.Lease:
    request = client_pb2.CreateLeaseRequest(parent=who.parent, lease_id=lease_id, lease=lease)
    made: client_pb2.Lease = await who.call("CreateLease", request)
    return made


async def get(who: Peer, name: str) -> client_pb2.Lease:
    found: client_pb2.Lease = await who.call("GetLease", client_pb2.GetLeaseRequest(name=name))
    return found


def plain(lease: client_pb2.Lease) -> str:
    return lease.name.rpartition("/")[2]


def ready(lease: client_pb2.Lease) -> bool:
    return any(item.type == "Ready" and item.status == "True" for item in lease.conditions)


async def eventually(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds(found := await look()):
        assert time.monotonic() < deadline, f"never: {found}"
        await asyncio.sleep(0.02)
    return found


async def acquire(who: Peer, online: Online, **more: Any) -> client_pb2.Lease:
    """Lease an exporter, as far as both sides are told."""
    made = await create(who, wanted(f"board={online.name}", **more))
    lease = await eventually(lambda: get(who, made.name), ready)
    said = await online.until_leased()
    assert said.lease_name == plain(lease)
    return lease


async def release(who: Peer, lease: client_pb2.Lease) -> None:
    await who.call("DeleteLease", client_pb2.DeleteLeaseRequest(name=lease.name))


async def dial(who: Peer, lease: client_pb2.Lease) -> jumpstarter_pb2.DialResponse:
    answer: jumpstarter_pb2.DialResponse = await who.call("Dial", jumpstarter_pb2.DialRequest(lease_name=plain(lease)))
    return answer


@asynccontextmanager
async def joined(stack: Stack, invitation: Any) -> AsyncGenerator[Any]:
    """Join a tunnel with an invitation of either side."""
    credentials = grpc.ssl_channel_credentials(stack.ca)
    async with grpc.aio.secure_channel(invitation.router_endpoint, credentials) as channel:
        opened: Any = channel
        stream = opened.stream_stream("/jumpstarter.v1.RouterService/Stream")(
            metadata=(("authorization", f"Bearer {invitation.router_token}"),)
        )
        yield stream


def frame(payload: bytes) -> bytes:
    return router_pb2.StreamRequest(payload=payload).SerializeToString()
