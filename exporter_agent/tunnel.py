"""One tunnel: a byte connection between a client, through a router, and the session's unix socket."""

import asyncio
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
    """Join the router with ``router_token`` and copy bytes both ways until both directions are done.

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
        await asyncio.gather(inward, outward)
    finally:
        inward.cancel()
        outward.cancel()
        call.cancel()
        writer.transport.abort()
        await asyncio.gather(inward, outward, return_exceptions=True)


async def _from_router(call: _RawCall, writer: asyncio.StreamWriter) -> None:
    while (frame := await call.read()) is not _EOF:
        try:
            kind, payload = read_frame(cast("bytes", frame))
        except BadFrame as error:
            raise ConnectionError(f"router sent what is no frame: {error}") from error
        if kind is FrameType.DATA:
            writer.write(payload)
            await writer.drain()
        elif kind is FrameType.GOAWAY:
            break
    if not writer.is_closing():
        writer.write_eof()


async def _to_router(reader: asyncio.StreamReader, call: _RawCall) -> None:
    while data := await reader.read(MAX_PAYLOAD):
        await call.write(data_frame(data))
    await call.write(GOAWAY)
    await call.done_writing()
