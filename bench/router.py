"""How much goes through one router, and how fast, beside a plain TCP relay in the same run.

    python bench/router.py [--runs 5] [--megabytes 256] [--pings 2000]

One direction at full speed, from a writer through the router to a reader, at 32 and 64 KiB a frame; then 64 bytes there
and back. Writer, middle and reader are processes of their own on loopback. The router speaks gRPC over TLS on both
sides, the relay copies bytes between two plain sockets (asyncio): the difference is what tunnels cost.
"""

import argparse
import asyncio
import ipaddress
import os
import platform
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lablease.clock import utc_now
from lablease.model.grant import Grant
from lablease.tokens.router import Role, RouterClaims, issue_router_token
from lablease.wire.jumpstarter.v1.router_pb2 import StreamRequest

NAME = "bench"
FRAMES = (32 * 1024, 64 * 1024)
PING_BYTES = 64


@dataclass(frozen=True)
class Flow:
    """One run at full speed."""

    megabytes_per_second: float
    cpu_seconds_per_gib: float


def certificate(folder: Path) -> None:
    """Write ``tls.crt`` and ``tls.key`` for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = utc_now()
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.key").write_bytes(pem)


def stream(folder: Path, port: int, role: Role, uid: str) -> Any:
    """Open one half with raw frames."""
    channel = grpc.aio.secure_channel(
        f"localhost:{port}",
        grpc.ssl_channel_credentials((folder / "tls.crt").read_bytes()),
        [("grpc.use_local_subchannel_pool", 1)],
    )
    now = utc_now()
    grant = Grant("bench", "board", "lease", 1, "client")
    claims = RouterClaims(uid, role, grant, NAME, now + timedelta(minutes=20), secrets.token_hex(8))
    token = issue_router_token((folder / "key").read_bytes(), claims, now)
    stub = cast(Any, channel.stream_stream("/jumpstarter.v1.RouterService/Stream", None, None))  # pyright: ignore[reportUnknownMemberType]
    return stub(metadata=grpc.aio.Metadata(("authorization", f"Bearer {token}")))


async def far_end(arguments: argparse.Namespace) -> None:
    """Be the reader: swallow so many bytes and say so in one frame, or send every frame back."""
    if arguments.middle == "router":
        call = stream(arguments.folder, arguments.port, Role.EXPORTER, arguments.stream)
        if arguments.echo:
            while isinstance(frame := await call.read(), bytes):
                await call.write(frame)
            return
        left = arguments.bytes
        while left > 0:
            left -= len(await call.read())
        await call.write(StreamRequest(payload=b"done").SerializeToString())
        await call.read()
        return
    reader, writer = await asyncio.open_connection("127.0.0.1", arguments.port)
    left = arguments.bytes
    while chunk := await reader.read(65536):
        left -= len(chunk)
        if arguments.echo:
            writer.write(chunk)
        elif left <= 0:
            writer.write(b"done")


async def relay(_arguments: argparse.Namespace) -> None:
    """Be the plain relay: couple each two connections that come."""
    waiting: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not waiting:
            waiting.append((reader, writer))
            return
        other = waiting.pop()
        await asyncio.gather(copy(reader, other[1]), copy(other[0], writer), return_exceptions=True)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(f'"port": {server.sockets[0].getsockname()[1]}', file=sys.stderr, flush=True)
    await server.serve_forever()


class Middle:
    """The process in the middle: a router or the relay."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        arguments = [sys.executable, __file__, "--part", "relay"]
        if kind == "router":
            arguments = [sys.executable, "-m", "lablease.grpc_frontend.router.main", "--listen=127.0.0.1:0"]
            arguments += [f"--name={NAME}", f"--key-file={folder / 'key'}"]
            arguments += [f"--tls-cert={folder / 'tls.crt'}", f"--tls-key={folder / 'tls.key'}"]
        self.log = folder / f"{kind}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(arguments, stderr=log)
        self.port = self._port()

    def _port(self) -> int:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if found := re.search(r'"port": (\d+)', self.log.read_text()):
                return int(found[1])
            time.sleep(0.02)
        raise SystemExit(f"{self.kind} did not start:\n{self.log.read_text()}")

    def cpu_seconds(self) -> float:
        """CPU time of the process so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def far_end(self, uid: str, *, size: int = 0, echo: bool = False) -> "subprocess.Popen[bytes]":
        """Start the process at the other end."""
        arguments = [sys.executable, __file__, "--part", "far-end", "--middle", self.kind, "--stream", uid]
        arguments += ["--port", str(self.port), "--folder", str(self.folder), "--bytes", str(size)]
        return subprocess.Popen(arguments + (["--echo"] if echo else []))

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait()


class Near:
    """This process's end of the tunnel, whatever is in the middle."""

    def __init__(self, middle: Middle, uid: str) -> None:
        self._middle = middle
        self._uid = uid
        self._call: Any = None

    async def open(self) -> None:
        """Connect."""
        if self._middle.kind == "router":
            self._call = stream(self._middle.folder, self._middle.port, Role.CLIENT, self._uid)
        else:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._middle.port)

    async def send(self, payload: bytes, frame: bytes) -> None:
        """Send a payload: as it is over the relay, in its frame through the router."""
        if self._call is not None:
            await self._call.write(frame)
        else:
            self._writer.write(payload)
            await self._writer.drain()

    async def receive(self, size: int) -> None:
        """Wait for one frame, or so many bytes."""
        if self._call is not None:
            await self._call.read()
        else:
            await self._reader.readexactly(size)

    def close(self) -> None:
        """Hang up."""
        if self._call is not None:
            self._call.cancel()
        else:
            self._writer.close()


async def flow(middle: Middle, frame_bytes: int, megabytes: int) -> Flow:
    """One direction at full speed."""
    payload = secrets.token_bytes(frame_bytes)
    frame = StreamRequest(payload=payload).SerializeToString()
    count = megabytes * 1024 * 1024 // frame_bytes
    uid = str(uuid.uuid4())
    expected = count * (len(frame) if middle.kind == "router" else frame_bytes)
    far = middle.far_end(uid, size=expected + len(frame) if middle.kind == "router" else expected + frame_bytes)
    near = Near(middle, uid)
    await near.open()
    await near.send(payload, frame)  # the first frame also waits for the tunnel
    await asyncio.sleep(1.5)
    cpu, start = middle.cpu_seconds(), time.perf_counter()
    for _ in range(count):
        await near.send(payload, frame)
    await near.receive(4)
    seconds = time.perf_counter() - start
    used = middle.cpu_seconds() - cpu
    near.close()
    far.kill()
    far.wait()
    size = count * frame_bytes
    return Flow(size / 1e6 / seconds, used / (size / 2**30))


async def pings(middle: Middle, count: int) -> list[float]:
    """Return round trips of 64 bytes in milliseconds."""
    payload = secrets.token_bytes(PING_BYTES)
    frame = StreamRequest(payload=payload).SerializeToString()
    uid = str(uuid.uuid4())
    far = middle.far_end(uid, size=sys.maxsize, echo=True)
    near = Near(middle, uid)
    await near.open()
    times: list[float] = []
    for number in range(count + 200):
        start = time.perf_counter()
        await near.send(payload, frame)
        await near.receive(PING_BYTES)
        if number >= 200:
            times.append((time.perf_counter() - start) * 1000)
    near.close()
    far.kill()
    far.wait()
    return times


def spread(values: Sequence[float], form: str) -> str:
    """Return the median with the lowest and the highest."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def processor() -> str:
    """Name the machine's processor."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.processor()


async def bench(arguments: argparse.Namespace) -> None:
    """Run everything and print one table."""
    print(f"machine: {processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"python {platform.python_version()}, grpcio {grpc.__version__}, {utc_now():%Y-%m-%d}")
    print(f"command: python bench/router.py --runs {arguments.runs} --megabytes {arguments.megabytes}", end=" ")
    print(f"--pings {arguments.pings}\nmedian of {arguments.runs} runs (lowest to highest)\n")
    kinds = ("router", "relay")
    flows: dict[tuple[str, int], list[Flow]] = {(kind, size): [] for kind in kinds for size in FRAMES}
    p50: dict[str, list[float]] = {kind: [] for kind in kinds}
    p99: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key").write_bytes(secrets.token_bytes(32))
        certificate(folder)
        middles = [Middle(kind, folder) for kind in kinds]
        for _ in range(arguments.runs):  # the middles take turns, so that both see the same noise
            for middle in middles:
                for size in FRAMES:
                    flows[middle.kind, size].append(await flow(middle, size, arguments.megabytes))
                times = sorted(await pings(middle, arguments.pings))
                p50[middle.kind].append(times[len(times) // 2])
                p99[middle.kind].append(times[len(times) * 99 // 100])
        for middle in middles:
            middle.stop()
    for (kind, size), found in flows.items():
        speed = spread([one.megabytes_per_second for one in found], ".0f")
        cost = spread([one.cpu_seconds_per_gib for one in found], ".2f")
        print(f"{kind:7} {size // 1024:3} KiB frames   {speed} MB/s   {cost} CPU s/GiB")
    for kind in kinds:
        print(
            f"{kind:7}  64 bytes there and back   p50 {spread(p50[kind], '.2f')} ms   p99 {spread(p99[kind], '.2f')} ms"
        )


def main() -> None:
    """Read the flags; the process is the bench, or one of its parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--pings", type=int, default=2000)
    for hidden, kind in (("part", str), ("middle", str), ("stream", str), ("port", int), ("folder", Path)):
        parser.add_argument(f"--{hidden}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--bytes", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    parts = {"far-end": far_end, "relay": relay, None: bench}
    uvloop.run(parts[arguments.part](arguments))


if __name__ == "__main__":
    main()
