"""The bytes: one RPC is one half, two halves are a tunnel, frames go through as they are.

A frame is read only when the one before it was handed to the other side, so a tunnel holds one frame per direction
and a slow reader slows the writer down. A peer that closes its direction (GOAWAY, or only the half-close of gRPC) does
not end the other direction.

jmp 0.9.0 notices at once when its RPC ends with OK or a GOAWAY comes, and not at all when the RPC is aborted: its local
socket then stays open and silent. So whatever happens, a half that is still there gets GOAWAY and then OK.

No operation on an RPC is ever cancelled while it is under way, because gRPC's core would still write to its memory:
``Half`` is therefore used from tasks that nobody cancels, and the RPC's own task only waits.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Protocol

import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from lablease.grpc_frontend.router.calls import Readable
from lablease.grpc_frontend.router.pairing import Reason
from lablease.tokens.router import Role, RouterClaims
from lablease.wire.jumpstarter.v1.router_pb2 import FRAME_TYPE_GOAWAY, StreamRequest

log = structlog.get_logger()

_LINGER_SECONDS = 0.5
"""How long a peer that was told GOAWAY may go on writing, into the void, before its RPC ends under its hands."""
GOAWAY = StreamRequest(frame_type=FRAME_TYPE_GOAWAY).SerializeToString()


class Connection(Readable, Protocol):
    """What a half needs of its RPC: ``grpc.aio.ServicerContext`` with raw bytes has it."""

    async def write(self, message: bytes) -> None:
        """Hand over one frame; return when the next one may come."""
        ...


class Half:
    """One side's RPC, from its arrival to the end of its handler."""

    def __init__(self, connection: Connection, claims: RouterClaims) -> None:
        self.claims = claims
        self.lost = False
        self.finished = asyncio.Event()
        """Set when the RPC is to end with OK."""
        self.silent = asyncio.Event()
        """Set when nobody reads from the RPC any more (or yet): its handler may return after its peer has gone."""
        self.silent.set()
        self._connection = connection
        self._usable = True
        self._sending = asyncio.Lock()
        self._last = b""

    def release(self) -> None:
        """Start no operation from now on: the handler returns."""
        self._usable = False

    async def receive(self) -> bytes | None:
        """Return the next frame, None when no more will come for whatever reason."""
        if not self._usable:
            return None
        try:
            frame = await self._connection.read()
        except grpc.aio.BaseError:
            return None
        return frame if isinstance(frame, bytes) else None

    async def send(self, frame: bytes, allowed: Callable[[], bool]) -> bool:
        """Hand one frame to the peer if it is still allowed when its turn comes; return False if it was not sent."""
        async with self._sending:
            if not self._usable or not allowed():
                return False
            self._last = frame
            try:
                await self._connection.write(frame)
            except grpc.aio.BaseError:
                return False
        return True

    async def say_goodbye(self) -> bool:
        """Tell the peer that nothing more comes; return False if the last frame said so already."""
        if _is_goaway(self._last):
            return False
        await self.send(GOAWAY, lambda: not self.lost and not _is_goaway(self._last))
        return True


class Tunnel:
    """Two halves and the two pumps between them. ``closed`` is called once, with the reason, when no byte will pass."""

    def __init__(
        self,
        client: Half,
        exporter: Half,
        *,
        end: datetime | None,
        clock: Callable[[], datetime],
        closed: Callable[["Tunnel", Reason], None],
    ) -> None:
        self.client = client
        self.exporter = exporter
        self.end = end
        self.bytes_to_exporter = 0
        self.bytes_to_client = 0
        self._clock = clock
        self._closed = closed
        self._open = True
        self._reported = False
        self._reached: set[Role] = set()
        """Sides that were told that nothing more comes, ..."""
        self._orderly: set[Role] = set()
        """... and of them those that were told by their peer."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def stream(self) -> str:
        """The UUID that both halves share."""
        return self.client.claims.stream

    def start(self) -> None:
        """Begin to copy."""
        self._spawn(self._pump(self.client, self.exporter, Role.EXPORTER))
        self._spawn(self._pump(self.exporter, self.client, Role.CLIENT))

    def lose(self, half: Half) -> None:
        """Take note that the peer of one half is gone. What it sent before still reaches the other half."""
        half.lost = True
        self._settle()

    def cut(self, reason: Reason) -> None:
        """End both halves now: after this returns no frame is handed over, except the two GOAWAYs."""
        self._open = False
        for half in (self.client, self.exporter):
            self._spawn(self._dismiss(half))
        self._close(reason)

    def _passes(self) -> bool:
        return self._open and (self.end is None or self._clock() < self.end)

    async def _pump(self, source: Half, target: Half, to: Role) -> None:
        source.silent.clear()
        while (frame := await source.receive()) is not None:
            if not await target.send(frame, self._passes):
                break
            if to is Role.EXPORTER:
                self.bytes_to_exporter += len(frame)
            else:
                self.bytes_to_client += len(frame)
        if frame is None:
            source.silent.set()
        if not await target.say_goodbye():
            self._orderly.add(to)
        self._reached.add(to)
        self._settle()
        while not source.silent.is_set():
            if await source.receive() is None:
                source.silent.set()

    async def _dismiss(self, half: Half) -> None:
        """Say goodbye and end the RPC with OK; a peer that is writing gets a moment to stop by itself."""
        await half.say_goodbye()
        try:
            await asyncio.wait_for(half.silent.wait(), _LINGER_SECONDS)
        except TimeoutError:
            log.debug("router.half.talks_on", role=half.claims.role, stream=half.claims.stream)
        half.finished.set()

    def _settle(self) -> None:
        """Dismiss each half that was told all and of which nobody will hear more; close when no byte can pass."""
        to_exporter, to_client = Role.EXPORTER in self._reached, Role.CLIENT in self._reached
        if to_exporter and (to_client or self.client.lost):
            self._spawn(self._dismiss(self.exporter))
            self._close(self._reason())
        if to_client and (to_exporter or self.exporter.lost):
            self._spawn(self._dismiss(self.client))
            self._close(self._reason())

    def _reason(self) -> Reason:
        """A peer that is gone after its GOAWAY has closed in order: jmp 0.9.0 drops its channel right behind it."""
        if self.client.lost and Role.EXPORTER not in self._orderly:
            return Reason.CLIENT_LOST
        if self.exporter.lost and Role.CLIENT not in self._orderly:
            return Reason.EXPORTER_LOST
        return Reason.CLOSED

    def _close(self, reason: Reason) -> None:
        if not self._reported:
            self._reported = True
            self._closed(self, reason)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_goaway(frame: bytes) -> bool:
    try:
        return bool(frame) and StreamRequest.FromString(frame).frame_type == FRAME_TYPE_GOAWAY
    except DecodeError:
        return False
