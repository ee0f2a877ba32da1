"""One tunnel: a byte connection between a client, through a router, and the session's unix socket."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol, cast

import grpc
import grpc.aio

from lablease.driver.frames import GOAWAY, MAX_PAYLOAD, BadFrame, FrameType, data_frame, read_frame

_METHOD: Final = "/jumpstarter.v1.RouterService/Stream"
_EOF: Final = cast("object", getattr(grpc.aio, "EOF"))  # noqa: B009 - the type stubs lack it


class _RawCall(Protocol):
    """A bidirectional call whose messages are bytes."""

    async def read(self) -> object: ...
    async def write(self, request: bytes) -> None: ...
    async def done_writing(self) -> None: ...
    def cancel(self) -> bool: ...


async def carry(channel: grpc.aio.Channel, router_token: str, socket_path: str) -> None:
    """Join the router with ``router_token`` and copy bytes both ways until the router ends the stream.

    Cancelling cuts both ends at once.

    Raises:
        AioRpcError: the router refuses, or the way to it broke.
        OSError: the session's socket is gone.
    """
    open_stream = cast("Callable[[str], Callable[..., _RawCall]]", channel.stream_stream)  # pyright: ignore[reportUnknownMemberType]
    reader, writer = await asyncio.open_unix_connection(socket_path, limit=MAX_PAYLOAD)
    call = open_stream(_METHOD)(metadata=(("authorization", f"Bearer {router_token}"),))
    inward = asyncio.ensure_future(_from_router(call, writer))
    outward = asyncio.ensure_future(_to_router(reader, call))
    try:
        await _first_end(inward, outward)
        writer.close()
    finally:
        for task in (inward, outward):
            task.cancel()
        await asyncio.gather(inward, outward, return_exceptions=True)
        call.cancel()
        if not writer.is_closing():
            writer.transport.abort()


async def _first_end(inward: "asyncio.Future[None]", outward: "asyncio.Future[None]") -> None:
    """Wait for the end of the router's direction, or for an error of ours."""
    await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
    if not inward.done():
        with contextlib.suppress(asyncio.InvalidStateError):  # the router ended the stream while we were writing:
            await outward  # the other direction says how
    await inward


async def _from_router(call: _RawCall, writer: asyncio.StreamWriter) -> None:
    """Copy until the router has ended the stream; GOAWAY before that is the end of this direction only."""
    while (frame := await call.read()) is not _EOF:
        try:
            kind, payload = read_frame(cast("bytes", frame))
        except BadFrame as error:
            raise ConnectionError(f"router sent what is no frame: {error}") from error
        if kind is FrameType.DATA:
            writer.write(payload)
            await writer.drain()
        elif kind is FrameType.GOAWAY:
            writer.write_eof()
    if not writer.is_closing():
        writer.write_eof()


async def _to_router(reader: asyncio.StreamReader, call: _RawCall) -> None:
    while data := await reader.read(MAX_PAYLOAD):
        await call.write(data_frame(data))
    await call.write(GOAWAY)
    await call.done_writing()
