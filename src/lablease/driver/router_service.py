"""``jumpstarter.v1.RouterService`` of a session: byte streams of drivers, and files that clients pass to calls."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NoReturn, Protocol, cast
from uuid import uuid4

import grpc
import grpc.aio
from pydantic import BaseModel, Discriminator, Field, TypeAdapter, ValidationError

from lablease.driver import encodings
from lablease.driver.bytestream import BrokenStream, ByteStream, PipeEnd, pipe
from lablease.driver.exporter_service import fail
from lablease.driver.frames import GOAWAY, MAX_PAYLOAD, BadFrame, FrameType, data_frame, read_frame
from lablease.driver.session import Session
from lablease.driver.tree import Callee

logger = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 0.1
"""A half close without GOAWAY means the end, but a cancelled call looks the same to ``read``, a moment before grpc cancels
the handler. The driver is told the end only when that has not happened: a broken upload must not look like a whole one."""

_REQUEST_KEY: Final = "request"
_EOF: Final = cast("object", getattr(grpc.aio, "EOF"))  # noqa: B009 - the type stubs lack it


class DriverStreamRequest(BaseModel):
    """Open a stream that a driver exports."""

    kind: Literal["driver"]
    uuid: str
    method: str


class ResourceStreamRequest(BaseModel):
    """Announce a file for a later call."""

    kind: Literal["resource"]
    uuid: str
    encoding: str | None = Field(default=None, alias="x_jmp_content_encoding")


_Request: Final[TypeAdapter[DriverStreamRequest | ResourceStreamRequest]] = TypeAdapter(
    Annotated[DriverStreamRequest | ResourceStreamRequest, Discriminator("kind")]
)

Metadata = tuple[tuple[str, str], ...]


class _Context(Protocol):
    """The part of a raw ``grpc.aio`` context that is used here."""

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...] | None: ...
    async def send_initial_metadata(self, initial_metadata: Metadata) -> None: ...
    async def read(self) -> object: ...
    async def write(self, message: bytes) -> None: ...
    async def abort(self, code: grpc.StatusCode, details: str = ...) -> NoReturn: ...


@dataclass(frozen=True, slots=True)
class _Opened:
    stream: ByteStream
    metadata: Metadata


class RouterService:
    """One instance per socket. Frames stay raw bytes: they are registered without message classes."""

    def __init__(self, session: Session, *, via_hook: bool) -> None:
        self._session = session
        self._via_hook = via_hook

    def handlers(self) -> "grpc.GenericRpcHandler[bytes, bytes]":
        """Return what ``add_generic_rpc_handlers`` takes."""
        make = cast("Callable[..., grpc.RpcMethodHandler[bytes, bytes]]", grpc.stream_stream_rpc_method_handler)  # pyright: ignore[reportUnknownMemberType]
        table = cast("Callable[..., grpc.GenericRpcHandler[bytes, bytes]]", grpc.method_handlers_generic_handler)  # pyright: ignore[reportUnknownMemberType]
        return table("jumpstarter.v1.RouterService", {"Stream": make(self._stream)})

    async def _stream(self, _frames: object, raw_context: object) -> None:
        context = cast("_Context", raw_context)
        carrying = asyncio.ensure_future(self._carry(context))
        self._session.track(carrying, via_hook=self._via_hook)
        try:
            await carrying
        except asyncio.CancelledError:
            if not carrying.done() or cast("asyncio.Task[None]", asyncio.current_task()).cancelling():
                carrying.cancel()
                await asyncio.gather(carrying, return_exceptions=True)
                raise
            await context.abort(grpc.StatusCode.ABORTED, "the session closed the stream")
        except Exception as error:  # noqa: BLE001 - drivers raise anything: the table says what the peer is told
            await fail(context, error, "stream")

    async def _carry(self, context: _Context) -> None:
        self._session.admit(via_hook=self._via_hook)
        async with self._open(context) as opened:
            await context.send_initial_metadata(opened.metadata)
            await pump(context, opened.stream)

    def _open(self, context: _Context) -> AbstractAsyncContextManager[_Opened]:
        request = _read_request(context)
        callee = self._session.callee(request.uuid)
        if isinstance(request, DriverStreamRequest):
            return _driver_stream(callee, request.method)
        return _resource_stream(callee, request.encoding)


def _read_request(context: _Context) -> DriverStreamRequest | ResourceStreamRequest:
    values = [value for key, value in context.invocation_metadata() or () if key == _REQUEST_KEY]
    if len(values) != 1:
        raise ValueError(f"metadata: exactly one {_REQUEST_KEY!r} key is needed, with a JSON object")
    try:
        return _Request.validate_json(values[0])
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"metadata {_REQUEST_KEY!r}: {problems}") from error


@asynccontextmanager
async def _driver_stream(callee: Callee, method: str) -> AsyncGenerator[_Opened]:
    async with callee.stream(method)() as stream:
        yield _Opened(stream, ())


@asynccontextmanager
async def _resource_stream(callee: Callee, encoding: str | None) -> AsyncGenerator[_Opened]:
    """Announce a file. Whatever ends the call before the peer said the end breaks the stream for the driver."""
    ours, drivers = pipe()
    resource = uuid4()
    callee.add_resource(resource, drivers)
    handle = {"kind": "client_stream", "uuid": str(resource), "x_jmp_content_encoding": encoding}
    metadata: Metadata = (("resource", json.dumps(handle)),)
    if encoding is None or encoding in encodings.supported():
        metadata = (*metadata, ("x_jmp_accept_encoding", encoding or ""))
    try:
        yield _Opened(ours, metadata)
    finally:
        callee.drop_resource(resource)
        await ours.abort("the client went away before the end of the file")


async def pump(context: _Context, stream: ByteStream) -> None:
    """Copy both ways until both directions are done.

    Raises:
        BrokenStream: the peer said RST_STREAM, or sent what is no frame.
        OSError: whatever the driver's stream raised.
    """
    inbound = asyncio.ensure_future(_inbound(context, stream))
    outbound = asyncio.ensure_future(_outbound(context, stream))
    try:
        await asyncio.gather(inbound, outbound)
    finally:
        inbound.cancel()
        outbound.cancel()
        await asyncio.gather(inbound, outbound, return_exceptions=True)
        if not isinstance(stream, PipeEnd):
            await stream.aclose()


async def _inbound(context: _Context, stream: ByteStream) -> None:
    wanted, said_end = True, False
    while not said_end and (frame := await context.read()) is not _EOF:
        try:
            kind, payload = read_frame(cast("bytes", frame))
        except BadFrame as error:
            raise BrokenStream(f"peer sent what is no frame: {error}") from error
        if kind is FrameType.DATA:
            wanted = wanted and await _deliver(stream, payload)
        elif kind is FrameType.GOAWAY:
            said_end = True
        elif kind is FrameType.RST_STREAM:
            raise BrokenStream("peer broke the stream")
    if not said_end:
        await asyncio.sleep(SETTLE_SECONDS)
    await stream.send_eof()


async def _deliver(stream: ByteStream, payload: bytes) -> bool:
    """Hand data on; False when a call has closed the file before its end and wants no more of it."""
    try:
        if payload:
            await stream.send(payload)
    except BrokenStream:
        if isinstance(stream, PipeEnd):
            return False
        raise
    return True


async def _outbound(context: _Context, stream: ByteStream) -> None:
    while data := await stream.receive():
        for start in range(0, len(data), MAX_PAYLOAD):
            chunk = data if len(data) <= MAX_PAYLOAD else data[start : start + MAX_PAYLOAD]
            await context.write(data_frame(chunk))
    await context.write(GOAWAY)
