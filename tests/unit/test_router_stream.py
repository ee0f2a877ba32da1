"""The router in this process, with real gRPC clients over TLS."""

import asyncio
import ipaddress
import resource
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import CollectorRegistry

from lablease.clock import utc_now
from lablease.errors import InvalidField
from lablease.grpc_frontend.router.pairing import Limits
from lablease.grpc_frontend.router.server import RouterServer
from lablease.grpc_frontend.router.tls import CertificateFiles, server_credentials
from lablease.model.grant import Grant
from lablease.tokens.router import Role, RouterClaims, issue_control_token, issue_router_token
from lablease.wire.internal.v1 import router_control_pb2 as control_pb
from lablease.wire.jumpstarter.v1.router_pb2 import (
    FRAME_TYPE_DATA,
    FRAME_TYPE_GOAWAY,
    FrameType,
    StreamRequest,
    StreamResponse,
)

KEY = b"k" * 32
NAME = "router.lab:443"
GRANT = Grant("lab", "board", "lease-1", 1000, "alice")
PATIENCE = 10.0
T = TypeVar("T")


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for localhost; return certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "router")])
    now = utc_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    paths = folder / "tls.crt", folder / "tls.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


class Call(Protocol):
    """A bidirectional call; the stubs of grpcio leave the parts of it untyped."""

    async def write(self, request: object) -> None: ...

    async def read(self) -> object: ...

    async def done_writing(self) -> None: ...

    async def code(self) -> grpc.StatusCode: ...

    async def details(self) -> str: ...


def open_call(channel: grpc.aio.Channel, method: str, answers: Callable[[bytes], Message], token: str | None) -> Call:
    metadata = grpc.aio.Metadata(("authorization", f"Bearer {token}")) if token is not None else None
    stub = cast(Any, channel.stream_stream(method, serialize, answers))  # pyright: ignore[reportUnknownMemberType]
    return cast(Call, stub(metadata=metadata))


def serialize(message: Message) -> bytes:
    return message.SerializeToString()


class Peer:
    """One side of a tunnel: a channel of its own with one stream."""

    def __init__(self, router: "Router", token: str | None) -> None:
        self.channel = router.channel()
        self.call = open_call(self.channel, "/jumpstarter.v1.RouterService/Stream", StreamResponse.FromString, token)

    async def send(self, payload: bytes) -> None:
        await within(self.call.write(StreamRequest(payload=payload, frame_type=FRAME_TYPE_DATA)))

    async def say_goaway(self) -> None:
        await within(self.call.write(StreamRequest(frame_type=FRAME_TYPE_GOAWAY)))

    async def close_direction(self) -> None:
        await within(self.call.done_writing())

    async def frame(self) -> StreamResponse | None:
        """The next frame, None at the end of the stream."""
        found = await within(self.call.read())
        return found if isinstance(found, StreamResponse) else None

    async def payload(self) -> bytes:
        frame = await self.frame()
        assert frame is not None
        assert frame.frame_type == FRAME_TYPE_DATA
        return frame.payload

    async def goodbye(self) -> None:
        """Read GOAWAY, then the end with OK."""
        frame = await self.frame()
        assert frame is not None
        assert (frame.frame_type, frame.payload) == (FRAME_TYPE_GOAWAY, b"")
        assert await self.frame() is None
        assert await self.code() is grpc.StatusCode.OK

    async def end_with_ok(self) -> None:
        """Read the end with OK; a GOAWAY may come before it."""
        while (frame := await self.frame()) is not None:
            assert frame.frame_type == FRAME_TYPE_GOAWAY
        assert await self.code() is grpc.StatusCode.OK

    async def code(self) -> grpc.StatusCode:
        return await within(self.call.code())

    async def refusal(self) -> tuple[grpc.StatusCode, str]:
        code = await self.code()
        return code, await within(self.call.details())

    async def vanish(self) -> None:
        """Go without a word."""
        await self.channel.close(None)


class Front:
    """A front end's control stream."""

    def __init__(self, router: "Router", token: str) -> None:
        method = "/lablease.internal.v1.RouterControl/Control"
        self.call = open_call(router.channel(), method, control_pb.ControlEvent.FromString, token)

    async def send(self, request: control_pb.ControlRequest) -> None:
        await within(self.call.write(request))

    async def next(self, kind: str) -> control_pb.ControlEvent:
        """The next event of that kind; others are passed over."""
        while True:
            event = await within(self.call.read())
            assert isinstance(event, control_pb.ControlEvent), await self.call.details()
            if event.WhichOneof("body") == kind:
                return event

    async def revoke(self, grant: Grant, *, client_only: bool = False) -> None:
        await self.send(
            control_pb.ControlRequest(revocation=control_pb.Revocation(grant=message(grant), client_only=client_only))
        )

    async def move_end(self, grant: Grant, end: datetime) -> None:
        request = control_pb.ControlRequest(planned_end=control_pb.PlannedEnd(grant=message(grant)))
        request.planned_end.end.FromDatetime(end)
        await self.send(request)


@dataclass
class Router:
    """The router under test and what was opened to it."""

    server: RouterServer
    certificate: bytes
    registry: CollectorRegistry
    channels: list[grpc.aio.Channel] = field(default_factory=list[grpc.aio.Channel])

    def channel(self) -> grpc.aio.Channel:
        channel = grpc.aio.secure_channel(
            f"localhost:{self.server.port}",
            grpc.ssl_channel_credentials(self.certificate),
            options=[("grpc.use_local_subchannel_pool", 1)],
        )
        self.channels.append(channel)
        return channel

    def half(self, role: Role, stream: str, grant: Grant = GRANT, **claims: Any) -> Peer:
        return Peer(self, token(role, stream, grant, **claims))

    async def tunnel(self, grant: Grant = GRANT) -> tuple[Peer, Peer]:
        """A tunnel that has carried a byte each way."""
        stream = str(uuid.uuid4())
        client, exporter = self.half(Role.CLIENT, stream, grant), self.half(Role.EXPORTER, stream, grant)
        await client.send(b"?")
        assert await exporter.payload() == b"?"
        await exporter.send(b"!")
        assert await client.payload() == b"!"
        return client, exporter

    async def front(self) -> Front:
        front = Front(self, issue_control_token(KEY, frontend="f1", router=NAME, now=utc_now(), jti="j"))
        await front.send(control_pb.ControlRequest(hello=control_pb.Hello(frontend="f1")))
        await front.next("ready")
        return front

    def bytes(self) -> int:
        """How much went through the tunnels that are open."""
        tunnels = self.server.rendezvous.tunnels()
        return sum(tunnel.bytes_to_client + tunnel.bytes_to_exporter for tunnel in tunnels)

    def figure(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def message(grant: Grant) -> control_pb.Grant:
    return control_pb.Grant(
        namespace=grant.namespace,
        exporter=grant.exporter,
        lease=grant.lease,
        grant=grant.number,
        client=grant.client,
    )


def token(role: Role, stream: str, grant: Grant = GRANT, *, ago: timedelta = timedelta(0), **claims: Any) -> str:
    now = utc_now() - ago
    whole = RouterClaims(stream, role, grant, NAME, now + timedelta(minutes=10), str(uuid.uuid4()))
    return issue_router_token(KEY, replace(whole, **claims), now)


async def within(awaitable: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaitable, PATIENCE)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


LIMITS = Limits(pending=8, pending_per_exporter=4, tunnels=8)


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    certificate, key = write_certificate(tmp_path)
    registry = CollectorRegistry()
    server = await RouterServer.start(
        "localhost:0",
        name=NAME,
        key=KEY,
        credentials=server_credentials(certificate, key),
        limits=LIMITS,
        registry=registry,
        clock=utc_now,
    )
    found = Router(server, certificate.read_bytes(), registry)
    yield found
    for channel in found.channels:
        await channel.close(None)
    await server.drain(timedelta(0))


@pytest.mark.parametrize("first", [Role.CLIENT, Role.EXPORTER])
async def test_two_halves_meet_in_either_order(router: Router, first: Role) -> None:
    stream = str(uuid.uuid4())
    second = Role.EXPORTER if first is Role.CLIENT else Role.CLIENT
    one = router.half(first, stream)
    await until(lambda: router.server.rendezvous.pending() == 1)
    other = router.half(second, stream)

    await one.send(b"from the first")
    assert await other.payload() == b"from the first"
    await other.send(b"from the second")
    assert await one.payload() == b"from the second"


async def test_frames_pass_in_order_and_unchanged_whatever_their_type(router: Router) -> None:
    client, exporter = await router.tunnel()
    types = [cast(FrameType.ValueType, number) for number in (0, 3, 6, 0, 99, 0)]
    frames = [StreamRequest(payload=bytes([n]) * n, frame_type=kind) for n, kind in enumerate(types)]
    for frame in frames:
        await client.call.write(frame)

    for frame in frames:
        found = await exporter.frame()
        assert found is not None
        assert found.SerializeToString() == frame.SerializeToString()


@pytest.mark.parametrize("goaway", [True, False])
async def test_one_direction_may_close_while_the_other_goes_on(router: Router, goaway: bool) -> None:
    client, exporter = await router.tunnel()
    await client.send(b"last")
    if goaway:
        await client.say_goaway()
    await client.close_direction()

    assert await exporter.payload() == b"last"
    frame = await exporter.frame()
    assert frame is not None
    assert frame.frame_type == FRAME_TYPE_GOAWAY
    for number in range(3):
        await exporter.send(b"answer %d" % number)
        assert await client.payload() == b"answer %d" % number
    await exporter.say_goaway()
    await exporter.close_direction()
    await client.goodbye()
    assert await exporter.frame() is None
    assert await exporter.code() is grpc.StatusCode.OK
    assert router.figure("lablease_router_ended_tunnels_total", reason="closed") == 1


async def test_a_goaway_reaches_the_other_side_before_the_cancel_right_behind_it(router: Router) -> None:
    client, exporter = await router.tunnel()
    await client.send(b"last")
    await client.say_goaway()
    await client.close_direction()
    await client.vanish()

    assert await exporter.payload() == b"last"
    await exporter.goodbye()


@pytest.mark.parametrize("lost", [Role.CLIENT, Role.EXPORTER])
async def test_who_survives_its_peer_gets_goaway_and_ok(router: Router, lost: Role) -> None:
    client, exporter = await router.tunnel()
    gone, survivor = (client, exporter) if lost is Role.CLIENT else (exporter, client)
    await gone.vanish()

    await survivor.goodbye()
    await until(lambda: router.server.rendezvous.open_tunnels() == 0)
    assert router.figure("lablease_router_ended_tunnels_total", reason=f"{lost}-lost") == 1


async def test_both_vanishing_at_once_leaves_nothing_behind(router: Router) -> None:
    client, exporter = await router.tunnel()
    await asyncio.gather(client.vanish(), exporter.vanish())

    await until(lambda: router.server.rendezvous.open_tunnels() == 0)


async def talk_until_goaway(peer: Peer) -> None:
    """Write without end and read, until GOAWAY comes; answer it, and see the stream end with OK and nothing else."""
    told = asyncio.Event()

    async def talk() -> None:
        while not told.is_set():
            await peer.send(b"x" * 32768)
        await peer.say_goaway()
        await peer.close_direction()

    talking = asyncio.create_task(talk())
    while (frame := await peer.frame()) is not None:
        if told.is_set():
            raise AssertionError("a frame came behind GOAWAY")
        if frame.frame_type == FRAME_TYPE_GOAWAY:
            told.set()
    assert told.is_set()
    await talking
    assert await peer.code() is grpc.StatusCode.OK


async def talk_forever(peer: Peer) -> None:
    while True:
        await peer.send(b"x" * 1024)


async def ended_while_bytes_flow(router: Router, end: Callable[[], Awaitable[None]]) -> None:
    client, exporter = await router.tunnel()
    talks = [asyncio.create_task(talk_until_goaway(peer)) for peer in (client, exporter)]
    await until(lambda: router.bytes() > 2_000_000)
    await end()
    await asyncio.gather(*talks)
    assert router.server.rendezvous.open_tunnels() == 0


async def test_a_revocation_ends_both_halves_while_bytes_flow(router: Router) -> None:
    front = await router.front()
    await ended_while_bytes_flow(router, lambda: front.revoke(GRANT))
    late = router.half(Role.CLIENT, str(uuid.uuid4()))
    assert await late.refusal() == (grpc.StatusCode.PERMISSION_DENIED, "lease lease-1 has ended")


async def test_a_planned_end_ends_both_halves_while_bytes_flow(router: Router) -> None:
    front = await router.front()
    await ended_while_bytes_flow(router, lambda: front.move_end(GRANT, utc_now() + timedelta(seconds=0.2)))


async def test_a_peer_that_does_not_stop_writing_is_ended_within_a_second(router: Router) -> None:
    front = await router.front()
    client, exporter = await router.tunnel()
    await front.revoke(GRANT)
    await until(lambda: router.server.rendezvous.open_tunnels() == 0)
    revoked = utc_now()

    with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
        await talk_forever(client)
    assert utc_now() - revoked < timedelta(seconds=1)
    await exporter.goodbye()


async def test_a_planned_end_in_the_token_needs_no_front_end(router: Router) -> None:
    end = utc_now() + timedelta(seconds=0.5)
    client, exporter = await router.tunnel(replace(GRANT, end=end))

    await asyncio.gather(client.goodbye(), exporter.goodbye())
    assert end <= utc_now() < end + timedelta(seconds=1)
    assert router.figure("lablease_router_ended_tunnels_total", reason="planned-end") == 1


async def test_an_extension_moves_the_end_of_an_open_tunnel(router: Router) -> None:
    front = await router.front()
    end = utc_now() + timedelta(seconds=0.5)
    client, exporter = await router.tunnel(replace(GRANT, end=end))
    await front.move_end(GRANT, end + timedelta(hours=1))
    await until(lambda: utc_now() > end + timedelta(seconds=0.2))

    await client.send(b"still here")
    assert await exporter.payload() == b"still here"


async def test_a_transfer_ends_only_the_old_clients_tunnels(router: Router) -> None:
    front = await router.front()
    old, old_exporter = await router.tunnel()
    new, new_exporter = await router.tunnel(replace(GRANT, client="bob"))
    await front.revoke(GRANT, client_only=True)

    await asyncio.gather(old.goodbye(), old_exporter.goodbye())
    await new.send(b"mine now")
    assert await new_exporter.payload() == b"mine now"


async def test_a_newer_grant_ends_the_tunnels_of_the_older(router: Router) -> None:
    old, old_exporter = await router.tunnel()
    await router.tunnel(replace(GRANT, lease="lease-2", number=1001, client="bob"))

    await asyncio.gather(old.goodbye(), old_exporter.goodbye())
    late = router.half(Role.CLIENT, str(uuid.uuid4()))
    assert await late.refusal() == (
        grpc.StatusCode.PERMISSION_DENIED,
        "grant 1000 of exporter board is over, 1001 is newer",
    )


async def test_a_token_opens_one_half_once(router: Router) -> None:
    stream = str(uuid.uuid4())
    text = token(Role.CLIENT, stream)
    first = Peer(router, text)
    await until(lambda: router.server.rendezvous.pending() == 1)
    replay, second = Peer(router, text), router.half(Role.CLIENT, stream)

    for peer in (replay, second):
        assert await peer.refusal() == (
            grpc.StatusCode.UNAUTHENTICATED,
            "the client half of this stream was used already",
        )
    exporter = router.half(Role.EXPORTER, stream)
    await first.send(b"undisturbed")
    assert await exporter.payload() == b"undisturbed"
    await first.vanish()
    await exporter.goodbye()
    assert (await Peer(router, text).refusal())[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_a_half_whose_partner_came_and_went_ends_with_ok(router: Router) -> None:
    stream = str(uuid.uuid4())
    client = router.half(Role.CLIENT, stream)
    await until(lambda: router.server.rendezvous.pending() == 1)
    await client.vanish()
    await until(lambda: router.server.rendezvous.pending() == 0)

    assert await router.half(Role.EXPORTER, stream).code() is grpc.StatusCode.OK


async def test_a_half_waits_no_longer_than_its_token_lives(router: Router) -> None:
    expires = utc_now() + timedelta(seconds=2)
    lone = router.half(Role.CLIENT, str(uuid.uuid4()), expires=expires)

    await lone.end_with_ok()
    assert utc_now() < expires + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "metadata authorization must be"),
        ("nonsense", "malformed"),
        (token(Role.CLIENT, "s", router="other:443"), "token is for router other:443"),
        (token(Role.CLIENT, "s", ago=timedelta(minutes=10)), "token is expired"),
        (issue_control_token(KEY, frontend="f", router=NAME, now=utc_now(), jti="j"), "something else"),
    ],
)
async def test_a_half_without_a_token_for_this_router_is_refused(router: Router, text: str | None, words: str) -> None:
    code, details = await Peer(router, text).refusal()

    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert words in details


@pytest.mark.parametrize("other", [{"lease": "lease-2"}, {"client": "bob"}, {"exporter": "board-2"}])
async def test_halves_of_different_leases_never_meet(router: Router, other: dict[str, Any]) -> None:
    stream = str(uuid.uuid4())
    router.half(Role.CLIENT, stream)
    await until(lambda: router.server.rendezvous.pending() == 1)
    stranger = router.half(Role.EXPORTER, stream, replace(GRANT, **other))

    assert (await stranger.refusal())[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_too_many_waiting_halves_are_refused_as_unavailable(router: Router) -> None:
    for number in range(LIMITS.pending_per_exporter):
        router.half(Role.CLIENT, f"s{number}")
    await until(lambda: router.server.rendezvous.pending() == LIMITS.pending_per_exporter)

    assert (await router.half(Role.CLIENT, "one more").refusal())[0] is grpc.StatusCode.UNAVAILABLE
    exporter = router.half(Role.EXPORTER, "s0")
    await exporter.send(b"pairing frees a place")
    await until(lambda: router.server.rendezvous.open_tunnels() == 1)
    router.half(Role.CLIENT, "one more")
    await until(lambda: router.server.rendezvous.pending() == LIMITS.pending_per_exporter)


async def test_a_waiting_client_is_announced_again_until_it_is_paired(router: Router) -> None:
    early = await router.front()
    stream = str(uuid.uuid4())
    client = router.half(Role.CLIENT, stream)
    first = await early.next("waiting")
    assert (first.waiting.stream, first.waiting.grant) == (stream, message(GRANT))

    late = await router.front()
    assert (await late.next("waiting")).waiting.stream == stream
    assert (await early.next("waiting")).waiting.stream == stream
    exporter = router.half(Role.EXPORTER, stream)
    for front in (early, late):
        assert (await front.next("paired")).paired.stream == stream
    await client.vanish()
    await exporter.goodbye()
    assert (await early.next("gone")).gone.stream == stream


async def test_an_exporters_half_that_waits_is_not_announced(router: Router) -> None:
    front = await router.front()
    router.half(Role.EXPORTER, "e")
    await until(lambda: router.server.rendezvous.pending() == 1)
    client = router.half(Role.CLIENT, "c")

    assert (await front.next("waiting")).waiting.stream == "c"
    await client.vanish()
    assert (await front.next("gone")).gone.stream == "c"


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        token(Role.CLIENT, "s"),
        issue_control_token(KEY, frontend="f", router="other:443", now=utc_now(), jti="j"),
        issue_control_token(b"o" * 32, frontend="f", router=NAME, now=utc_now(), jti="j"),
    ],
)
async def test_a_control_stream_needs_a_control_token_for_this_router(router: Router, text: str) -> None:
    assert await within(Front(router, text).call.code()) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (control_pb.ControlRequest(hello=control_pb.Hello()), "hello: must come once"),
        (control_pb.ControlRequest(revocation=control_pb.Revocation()), "revocation.grant.namespace"),
        (
            control_pb.ControlRequest(planned_end=control_pb.PlannedEnd(grant=message(replace(GRANT, number=0)))),
            "planned_end.grant.grant",
        ),
    ],
)
async def test_a_bad_control_message_is_named(router: Router, request_: control_pb.ControlRequest, words: str) -> None:
    front = await router.front()
    await front.send(request_)

    assert await within(front.call.code()) is grpc.StatusCode.INVALID_ARGUMENT
    assert words in await within(front.call.details())


async def test_a_control_stream_begins_with_hello(router: Router) -> None:
    front = Front(router, issue_control_token(KEY, frontend="f1", router=NAME, now=utc_now(), jti="j"))
    await front.revoke(GRANT)

    assert await within(front.call.code()) is grpc.StatusCode.INVALID_ARGUMENT


async def test_draining_ends_waiting_halves_at_once_and_tunnels_after_their_patience(router: Router) -> None:
    front = await router.front()
    client, exporter = await router.tunnel()
    lone = router.half(Role.CLIENT, "lone")
    await until(lambda: router.server.rendezvous.pending() == 1)
    draining = asyncio.create_task(router.server.drain(timedelta(seconds=0.5)))

    while not (await front.next("ready")).ready.draining:
        pass
    await lone.end_with_ok()
    await client.send(b"still")
    assert await exporter.payload() == b"still"
    await asyncio.gather(client.goodbye(), exporter.goodbye())
    assert (await router.half(Role.CLIENT, "new").refusal())[0] is grpc.StatusCode.UNAVAILABLE
    await within(draining)


async def test_draining_does_not_wait_longer_than_the_last_tunnel(router: Router) -> None:
    client, exporter = await router.tunnel()
    draining = asyncio.create_task(router.server.drain(timedelta(hours=1)))
    await client.vanish()

    await exporter.goodbye()
    await within(draining)


async def test_a_slow_reader_slows_the_writer_and_memory_stays_small(router: Router) -> None:
    client, exporter = await router.tunnel()
    written = 0

    async def write() -> None:
        nonlocal written
        for _ in range(1600):
            await client.call.write(StreamRequest(payload=b"x" * 65536))
            written += 1
        await client.say_goaway()
        await client.close_direction()

    writing = asyncio.create_task(write())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await until(lambda: written > 0)
    stalled = -1
    while written != stalled:
        stalled = written
        await asyncio.sleep(0.3)
    assert written < 400, "a reader that reads nothing must stop the writer"
    total = 0
    while (frame := await exporter.frame()) is not None:
        total += len(frame.payload)
        if frame.frame_type == FRAME_TYPE_GOAWAY:
            break
    assert total == 1600 * 65536
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 * 1024
    await writing


async def test_health_and_reflection_answer_without_a_token(router: Router) -> None:
    channel = router.channel()
    for service in ("", "jumpstarter.v1.RouterService"):
        watch = open_call(channel, "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckResponse.FromString, None)
        await watch.write(health_pb2.HealthCheckRequest(service=service))
        answer: Any = await within(watch.read())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    for version in ("v1", "v1alpha"):
        method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        call = open_call(channel, method, reflection_pb2.ServerReflectionResponse.FromString, None)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed: Any = await within(call.read())
        assert "jumpstarter.v1.RouterService" in [found.name for found in listed.list_services_response.service]
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="jumpstarter.v1.RouterService"))
        described: Any = await within(call.read())
        assert described.file_descriptor_response.file_descriptor_proto


async def test_a_renewed_certificate_is_served_to_the_next_connection(router: Router, tmp_path: Path) -> None:
    await router.tunnel()
    certificate, _ = write_certificate(tmp_path)
    router.certificate = certificate.read_bytes()

    await router.tunnel()


def test_a_pair_that_does_not_fit_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    certificate, key = write_certificate(tmp_path)
    files = CertificateFiles(certificate, key)
    files.load()
    other, other_key = write_certificate(tmp_path / "other")
    certificate.write_bytes(other.read_bytes())

    assert files.changed() is None
    key.write_bytes(other_key.read_bytes())
    assert files.changed() is not None
    key.unlink()
    assert files.changed() is None


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path, missing: str) -> None:
    certificate, key = write_certificate(tmp_path)
    (tmp_path / missing).unlink()

    with pytest.raises(InvalidField, match="tls: cannot read"):
        server_credentials(certificate, key)


def test_the_certificate_of_another_key_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    certificate, _ = write_certificate(tmp_path)
    _, other = write_certificate(tmp_path / "other")

    with pytest.raises(InvalidField, match="certificate chain and its private key"):
        server_credentials(certificate, other)
