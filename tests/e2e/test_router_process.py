"""The router as a process of its own: start, signals, and the published 0.9.0 stream code on both sides of it."""

import asyncio
import base64
import hashlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lablease.clock import utc_now
from lablease.model.grant import Grant
from lablease.tokens.router import Role, RouterClaims, issue_control_token, issue_router_token
from lablease.wire.internal.v1 import router_control_pb2 as control_pb
from lablease.wire.jumpstarter.v1.router_pb2 import FRAME_TYPE_GOAWAY, StreamRequest, StreamResponse

KEY = b"router key of at least 32 bytes!"
NAME = "the-router:443"
GRANT = Grant("lab", "board", "lease-1", 1000, "alice")
PATIENCE_SECONDS = 20.0
T = TypeVar("T")

STOCK = '''
"""Two halves of the published stream code; the parent says through which router. Speaks JSON lines."""
import hashlib, json, sys
import anyio
from jumpstarter.common.streams import connect_router_stream
from jumpstarter.config.tls import TLSConfigV1Alpha1
from anyio.streams.stapled import StapledObjectStream

def pipe():
    a_send, b_receive = anyio.create_memory_object_stream(4)
    b_send, a_receive = anyio.create_memory_object_stream(4)
    return StapledObjectStream(a_send, a_receive), StapledObjectStream(b_send, b_receive)

def say(**line):
    print(json.dumps(line), flush=True)

async def half(job, role, inner, done):
    tls = TLSConfigV1Alpha1(ca=job["ca"])
    async with connect_router_stream(job["endpoint"], job[role], inner, tls, None):
        await done.wait()

async def push(name, stream, seed, size):
    block = hashlib.sha256(seed).digest() * 2048
    for start in range(0, size, len(block)):
        await stream.send(block[: min(len(block), size - start)])
    say(sent=name)

async def pull(name, stream, size):
    digest, left = hashlib.sha256(), size
    while left:
        chunk = await stream.receive()
        digest.update(chunk)
        left -= len(chunk)
    say(received=name, sha256=digest.hexdigest())

async def until_eof(name, stream):
    try:
        while True:
            await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError) as end:
        say(eof=name, how=type(end).__name__)

async def main():
    job = json.loads(sys.stdin.readline())
    done = anyio.Event()
    client, client_inner = pipe()
    exporter, exporter_inner = pipe()
    async with anyio.create_task_group() as group:
        group.start_soon(half, job, "client", client_inner, done)
        group.start_soon(half, job, "exporter", exporter_inner, done)
        async with anyio.create_task_group() as both:
            both.start_soon(push, "client", client, b"c", job["size"])
            both.start_soon(push, "exporter", exporter, b"e", job["size"])
            both.start_soon(pull, "client", client, job["size"])
            both.start_soon(pull, "exporter", exporter, job["size"])
        await anyio.sleep(job["idle_seconds"])
        say(idled=True)
        both = (("client", client), ("exporter", exporter))
        async with anyio.create_task_group() as ends:
            for name, stream in both:
                ends.start_soon(until_eof, name, stream)
        done.set()
        for _, stream in both:
            await stream.aclose()

anyio.run(main)
'''


def write_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "router")])
    now = utc_now()
    alternative = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "tls.crt", folder / "tls.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@dataclass
class Routers:
    """Starts routers; whatever is left of them is killed at the end."""

    folder: Path
    certificate: Path = field(init=False)
    flags: list[str] = field(init=False)
    started: "list[subprocess.Popen[bytes]]" = field(default_factory=list[Any])

    def __post_init__(self) -> None:
        self.certificate, key = write_certificate(self.folder)
        (self.folder / "router.key").write_bytes(KEY)
        self.flags = [f"--key-file={self.folder / 'router.key'}", f"--tls-cert={self.certificate}", f"--tls-key={key}"]

    def start(self, *flags: str, name: str = "router") -> "Router":
        log = self.folder / f"{name}.log"
        arguments = [sys.executable, "-m", "lablease.grpc_frontend.router.main", *self.flags, f"--name={NAME}", *flags]
        with log.open("wb") as out:
            process = subprocess.Popen(arguments, stderr=out, stdout=out)
        self.started.append(process)
        return Router(process, log, self.certificate.read_bytes())

    def run(self, *flags: str) -> "subprocess.CompletedProcess[str]":
        """Run one that ends by itself."""
        arguments = [sys.executable, "-m", "lablease.grpc_frontend.router.main", *flags]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


@dataclass
class Router:
    """A router process that was started."""

    process: "subprocess.Popen[bytes]"
    log: Path
    ca: bytes

    def event(self, name: str) -> dict[str, Any]:
        """Wait for a line of the log."""

        def look() -> dict[str, Any] | None:
            lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
            return next((line for line in lines if line["event"] == name), None)

        return until(look, lambda: f"no {name} in {self.log.read_text()}")

    @property
    def port(self) -> int:
        return int(self.event("router.listening")["port"])

    def channel(self) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(f"localhost:{self.port}", grpc.ssl_channel_credentials(self.ca), options)

    def half(self, text: str) -> Any:
        return call(self.channel(), "/jumpstarter.v1.RouterService/Stream", StreamResponse, text)

    async def front(self) -> Any:
        text = issue_control_token(KEY, frontend="f", router=NAME, now=utc_now(), jti="j")
        front = call(self.channel(), "/lablease.internal.v1.RouterControl/Control", control_pb.ControlEvent, text)
        await front.write(control_pb.ControlRequest(hello=control_pb.Hello(frontend="f")))
        assert (await front.read()).HasField("ready")
        return front


def call(channel: grpc.aio.Channel, method: str, answer: Any, text: str) -> Any:
    stub = cast(Any, channel.stream_stream(method, serialize, answer.FromString))  # pyright: ignore[reportUnknownMemberType]
    return stub(metadata=grpc.aio.Metadata(("authorization", f"Bearer {text}")))


def serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def until(look: Callable[[], T | None], problem: Callable[[], str]) -> T:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.02)
    raise AssertionError(problem())


def token(role: Role, stream: str, grant: Grant = GRANT) -> str:
    now = utc_now()
    return issue_router_token(KEY, RouterClaims(stream, role, grant, NAME, now + timedelta(minutes=5), stream), now)


def digest(seed: bytes, size: int) -> str:
    block = hashlib.sha256(seed).digest() * 2048
    return hashlib.sha256((block * (size // len(block) + 1))[:size]).hexdigest()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def routers(tmp_path: Path) -> Iterator[Routers]:
    found = Routers(tmp_path)
    yield found
    for process in found.started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


async def test_a_router_serves_counts_and_ends_with_status_zero(routers: Routers) -> None:
    router = routers.start("--listen=127.0.0.1:0", "--metrics=127.0.0.1:0", "--drain-seconds=0.5")
    private = f"http://127.0.0.1:{router.event('router.private_port')['port']}"
    client, exporter = (router.half(token(role, "s")) for role in (Role.CLIENT, Role.EXPORTER))
    await client.write(StreamRequest(payload=b"hello"))
    assert (await exporter.read()).payload == b"hello"

    assert get(f"{private}/healthz") == (200, "ok\n")
    assert get(f"{private}/readyz") == (200, "ok\n")
    assert "lablease_router_tunnels 1.0" in get(f"{private}/metrics")[1]
    router.process.send_signal(signal.SIGTERM)
    router.event("router.draining")
    assert get(f"{private}/readyz") == (503, "draining\n")
    for peer in (client, exporter):
        assert (await peer.read()).frame_type == FRAME_TYPE_GOAWAY
        assert await peer.code() is grpc.StatusCode.OK
    assert router.process.wait(PATIENCE_SECONDS) == 0
    closed = router.event("router.tunnel.closed")
    assert (closed["reason"], closed["lease"], closed["bytes_to_exporter"]) == ("drained", "lease-1", 7)
    assert "eyJ" not in router.log.read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--key-file": None}, "--key-file: field required"),
        ({"--key-file": "short"}, "router key: must have at least 32 bytes, has 5"),
        ({"--key-file": "missing"}, "router key: cannot read"),
        ({"--tls-cert": None}, "--tls-cert: field required"),
        ({"--tls-key": "short"}, "tls: "),
        ({"--listen": "8083"}, "--listen: value error, must be host:port"),
    ],
)
def test_a_router_that_cannot_be_safe_does_not_start(
    routers: Routers, change: dict[str, str | None], words: str
) -> None:
    (routers.folder / "short").write_bytes(b"short")
    flags: dict[str, str | None] = {}
    flags.update((name, value) for name, _, value in (flag.partition("=") for flag in routers.flags))
    for flag, value in change.items():
        flags[flag] = str(routers.folder / value) if value in ("short", "missing") else value
    ended = routers.run(*(f"{flag}={value}" for flag, value in flags.items() if value is not None))

    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_what_came_while_the_router_was_stopped_is_not_relayed_after_the_planned_end(routers: Routers) -> None:
    router = routers.start("--listen=127.0.0.1:0")
    end = utc_now() + timedelta(seconds=3)
    grant = Grant("lab", "board", "lease-1", 1000, "alice", end)
    client, exporter = (router.half(token(role, "s", grant)) for role in (Role.CLIENT, Role.EXPORTER))
    await client.write(StreamRequest(payload=b"in time"))
    assert (await exporter.read()).payload == b"in time"

    os.kill(router.process.pid, signal.SIGSTOP)
    await client.write(StreamRequest(payload=b"too late"))
    while utc_now() < end:
        await asyncio.sleep(0.05)
    os.kill(router.process.pid, signal.SIGCONT)
    for peer in (exporter, client):
        frame = await peer.read()
        assert (frame.frame_type, frame.payload) == (FRAME_TYPE_GOAWAY, b"")
        assert not isinstance(await peer.read(), StreamResponse)


async def test_a_successor_on_the_same_port_takes_what_comes_during_the_drain(routers: Routers) -> None:
    old = routers.start("--listen=127.0.0.1:0", name="old")
    client, exporter = (old.half(token(role, "s")) for role in (Role.CLIENT, Role.EXPORTER))
    await client.write(StreamRequest(payload=b"x"))
    assert (await exporter.read()).payload == b"x"
    new = routers.start(f"--listen=127.0.0.1:{old.port}", name="new")
    new.event("router.listening")
    old.process.send_signal(signal.SIGTERM)
    old.event("router.draining")

    fresh = [new.half(token(role, "t")) for role in (Role.CLIENT, Role.EXPORTER)]
    await fresh[0].write(StreamRequest(payload=b"y"))
    assert (await fresh[1].read()).payload == b"y"
    await client.write(StreamRequest(payload=b"the old one goes on"))
    assert (await exporter.read()).payload == b"the old one goes on"


@pytest.mark.parametrize("idle_seconds", [0, pytest.param(70, marks=pytest.mark.slow)])
async def test_stock_halves_exchange_bytes_idle_and_see_the_end_of_the_lease(
    routers: Routers, upstream: Any, idle_seconds: float
) -> None:
    router = routers.start("--listen=127.0.0.1:0")
    front = await router.front()
    stream = str(uuid.uuid4())
    job: dict[str, Any] = {
        "endpoint": f"localhost:{router.port}",
        "ca": base64.b64encode(router.ca).decode(),
        "client": token(Role.CLIENT, stream),
        "exporter": token(Role.EXPORTER, stream),
        "size": 10_000_000,
        "idle_seconds": idle_seconds,
    }
    stock = await asyncio.create_subprocess_exec(
        upstream.python, "-c", STOCK, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert stock.stdin is not None
    assert stock.stdout is not None
    stock.stdin.write(json.dumps(job).encode() + b"\n")
    said: list[dict[str, Any]] = []
    async with asyncio.timeout(idle_seconds + 2 * PATIENCE_SECONDS):
        while not any("idled" in line for line in said):
            said.append(json.loads(await stock.stdout.readline()))
        revocation = control_pb.Revocation(
            grant=control_pb.Grant(namespace="lab", exporter="board", lease="lease-1", grant=1000, client="alice")
        )
        await front.write(control_pb.ControlRequest(revocation=revocation))
        told = time.monotonic()
        while sum("eof" in line for line in said) < 2:
            said.append(json.loads(await stock.stdout.readline()))
        assert time.monotonic() - told < 1
        assert await stock.wait() == 0
    received = {line["received"]: line["sha256"] for line in said if "received" in line}
    assert received == {"client": digest(b"e", job["size"]), "exporter": digest(b"c", job["size"])}
    assert {line["how"] for line in said if "eof" in line} == {"EndOfStream"}
    assert router.event("router.tunnel.closed")["bytes_to_client"] > 10_000_000
