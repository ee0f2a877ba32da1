"""Byte streams between a driver and a peer."""

import asyncio
from collections import deque
from typing import Final, Protocol

PIPE_CHUNKS: Final = 32
"""Chunks that wait in one direction of a pipe before the sender waits: memory stays at 32 frames per direction."""


class BrokenStream(ConnectionError):
    """The other side went away in the middle: what was received so far is not the whole."""


class ByteStream(Protocol):
    """Both directions of one connection. Each method may be in use by at most one task at a time."""

    async def receive(self) -> bytes:
        """Return the next chunk; ``b""`` for ever after the end.

        Raises:
            BrokenStream: the peer vanished before it said that it was done.
        """
        ...

    async def send(self, data: bytes) -> None:
        """Send a chunk, waiting while the peer is slow.

        Raises:
            BrokenStream: the peer is gone.
        """
        ...

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""
        ...

    async def aclose(self) -> None:
        """Close both directions. Idempotent."""
        ...


class _Direction:
    """One direction of a pipe: bounded, with a clean end and a broken end that cannot be mistaken for each other."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._changed = asyncio.Condition()
        self._ended = False
        self._broken: str | None = None

    async def put(self, data: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._chunks) < PIPE_CHUNKS or self._broken or self._ended)
            if self._broken is not None or self._ended:
                raise BrokenStream(self._broken or "the stream is closed")
            self._chunks.append(data)
            self._changed.notify_all()

    async def get(self) -> bytes:
        async with self._changed:
            await self._changed.wait_for(lambda: self._chunks or self._ended or self._broken)
            if self._broken is not None:
                raise BrokenStream(self._broken)
            if not self._chunks:
                return b""
            data = self._chunks.popleft()
            self._changed.notify_all()
            return data

    async def end(self) -> None:
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def drop(self, reason: str) -> None:
        """Break the direction unless its end was already said."""
        async with self._changed:
            if not self._ended and self._broken is None:
                self._broken = reason
                self._chunks.clear()
            self._changed.notify_all()

    async def refuse(self, reason: str) -> None:
        """The reader has left: whoever still writes is told so, also if data wait."""
        async with self._changed:
            self._broken = self._broken or reason
            self._chunks.clear()
            self._changed.notify_all()


class PipeEnd:
    """One end of an in-memory connection (a ``ByteStream``)."""

    def __init__(self, inward: _Direction, outward: _Direction) -> None:
        self._inward = inward
        self._outward = outward

    async def receive(self) -> bytes:
        return await self._inward.get()

    async def send(self, data: bytes) -> None:
        if data:
            await self._outward.put(data)

    async def send_eof(self) -> None:
        await self._outward.end()

    async def aclose(self) -> None:
        await self._outward.end()
        await self._inward.refuse("the other side closed the stream")

    async def abort(self, reason: str) -> None:
        """Leave without having said the end: the other end raises BrokenStream unless it has the whole already."""
        await self._outward.drop(reason)
        await self._inward.refuse(reason)


def pipe() -> tuple[PipeEnd, PipeEnd]:
    """Return the two ends of a bounded in-memory connection."""
    there, back = _Direction(), _Direction()
    return PipeEnd(back, there), PipeEnd(there, back)
