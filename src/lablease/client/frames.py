"""A byte stream over one RouterService.Stream call, and copying between it and a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import grpc
import grpc.aio

from lablease.wire.jumpstarter.v1 import router_pb2
from lablease.wire.jumpstarter.v1.router_pb2 import StreamRequest, StreamResponse

MAX_FRAME = 65536
"""Payload bytes of one frame; stock peers read and send at most this many."""

Call = grpc.aio.StreamStreamCall[StreamRequest, StreamResponse]


class StreamBroken(Exception):
    """The call ended with an error, or the peer reset it; ``code`` is a gRPC status name."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"{details or 'stream broken'} ({code})")
        self.code, self.details = code, details


class ByteStream(Protocol):
    """What drivers' streams and tunnels have in common."""

    async def send(self, data: bytes) -> None:
        """Send all of it; waits while the peer does not read."""

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; receiving goes on. Doing it twice is fine."""

    async def receive(self) -> bytes:
        """Return the next bytes, b"" once the peer sends no more."""
        ...

    def close(self) -> None:
        """End the stream at once in both directions."""


class FrameStream:
    """One call as a byte stream.

    GOAWAY and the end of the call both mean end of file. Cancelling a task that waits in ``receive`` ends the
    call: grpc.aio works that way. ``close`` cancels, because a stock exporter keeps the device side of a stream
    open until its call is cancelled.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._ended = False
        self._sent_eof = False

    async def opened(self) -> dict[str, str]:
        """Wait for the peer's initial metadata and return its text entries.

        Raises:
            StreamBroken: the peer refused the stream.
        """
        metadata = await self._call.initial_metadata()
        if self._call.done():
            await self._raise_unless_ok()
        return {key: value for key, value in metadata or () if isinstance(value, str)}

    async def send(self, data: bytes) -> None:
        for chunk in _chunks(data):
            await self._write(StreamRequest(payload=chunk, frame_type=router_pb2.FRAME_TYPE_DATA))

    async def send_eof(self) -> None:
        if self._sent_eof:
            return
        self._sent_eof = True
        if self._call.done():
            return
        await self._write(StreamRequest(frame_type=router_pb2.FRAME_TYPE_GOAWAY))
        await self._call.done_writing()

    async def receive(self) -> bytes:
        while not self._ended:
            try:
                frame = await self._call.read()
            except grpc.aio.AioRpcError as error:
                self._ended = True
                raise StreamBroken(error.code().name, error.details() or "") from None
            if not isinstance(frame, StreamResponse) or frame.frame_type == router_pb2.FRAME_TYPE_GOAWAY:
                self._ended = True
            elif frame.frame_type == router_pb2.FRAME_TYPE_RST_STREAM:
                self._ended = True
                raise StreamBroken("ABORTED", "the peer reset the stream")
            elif frame.frame_type == router_pb2.FRAME_TYPE_DATA and frame.payload:
                return frame.payload
        return b""

    async def finish(self, within_seconds: float) -> None:
        """After both ends of file: let the peer end the call by itself, so that it sees no cancellation."""
        with suppress(TimeoutError, grpc.aio.AioRpcError):
            async with asyncio.timeout(within_seconds):
                while isinstance(await self._call.read(), StreamResponse):
                    pass

    def close(self) -> None:
        self._call.cancel()

    async def _write(self, frame: StreamRequest) -> None:
        try:
            await self._call.write(frame)
        except grpc.aio.AioRpcError as error:
            raise StreamBroken(error.code().name, error.details() or "") from None
        except asyncio.InvalidStateError:  # grpc.aio says so when the call has ended
            await self._raise_unless_ok()
            raise StreamBroken("OK", "the peer has ended the stream") from None

    async def _raise_unless_ok(self) -> None:
        code = await self._call.code()
        if code is not grpc.StatusCode.OK:
            raise StreamBroken(code.name, await self._call.details() or "") from None


def _chunks(data: bytes) -> Iterator[bytes]:
    if len(data) <= MAX_FRAME:
        if data:
            yield data
        return
    view = memoryview(data)
    for start in range(0, len(data), MAX_FRAME):
        yield bytes(view[start : start + MAX_FRAME])


async def join(
    stream: FrameStream,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    linger_seconds: float | None = None,
) -> None:
    """Copy both ways until both directions have ended, then close both sides.

    Half-close is kept: the end of one direction leaves the other open, but not longer than ``linger_seconds``
    after the socket's end of file if that is given; then the peer is also given that long to end the call. A broken
    stream aborts the socket, so that its owner sees an error and not a clean end.
    """
    down = asyncio.create_task(_down(stream, writer))
    try:
        await _up(stream, reader)
        await asyncio.wait((down,), timeout=linger_seconds)
        if linger_seconds and down.done():
            await stream.finish(linger_seconds)
    finally:
        down.cancel()
        stream.close()
        writer.close()
        await asyncio.gather(down, return_exceptions=True)


async def _up(stream: ByteStream, reader: asyncio.StreamReader) -> None:
    with suppress(StreamBroken):  # the other direction sees it too, and tells the socket
        with suppress(ConnectionError):  # a socket that was closed with bytes unread ends like any other
            while data := await reader.read(MAX_FRAME):
                await stream.send(data)
        await stream.send_eof()


async def _down(stream: ByteStream, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(ConnectionError):  # nobody is there to read the rest
            while data := await stream.receive():
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
    except StreamBroken:
        writer.transport.abort()
