"""Files that a driver reads or writes through a resource stream."""

from __future__ import annotations

import asyncio
import bz2
import lzma
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from lablease.client.errors import ClientError
from lablease.client.frames import ByteStream, StreamBroken
from lablease.client.session import Session
from lablease.client.values import Json

BLOCK = 1 << 20
"""Bytes read from or written to a file at once."""

Encoding = Literal["gzip", "xz", "bz2", "zstd"]
Progress = Callable[[int], None]
Handle = Mapping[str, Json]
WithHandle = Callable[[Handle], Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class _Codec:
    step: Callable[[bytes], bytes]
    finish: Callable[[], bytes] = bytes


def ignore_progress(count: int) -> None:
    """Tell nobody."""


def open_source(path: Path) -> BinaryIO:
    """Open a file to be sent; raises OSError."""
    return path.open("rb")


async def read_blocks(file: BinaryIO) -> AsyncGenerator[bytes]:
    """Yield a file's content in blocks; the reading does not stop the event loop."""
    while block := await asyncio.to_thread(file.read, BLOCK):
        yield block


async def upload(
    session: Session,
    uuid: str,
    source: AsyncIterable[bytes],
    use: WithHandle,
    encoding: Encoding | None = None,
    progress: Progress = ignore_progress,
) -> Json:
    """Let a driver read ``source``: ``use`` gets the handle and calls the driver's method with it.

    ``encoding`` says how the source is compressed; the exporter unpacks it, or this side does where the exporter
    cannot. ``progress`` is told the bytes of each block once they are sent. A source that fails makes the
    stream break instead of end, and its error is raised.
    """
    async with session.resource(uuid, encoding) as (stream, handle, accepted):
        unpack = None if encoding is None or accepted else _decompressor(encoding)
        call = asyncio.ensure_future(use(handle))
        pump = asyncio.create_task(_push(stream, source, unpack, progress))
        try:
            await asyncio.wait((call, pump), return_when=asyncio.FIRST_COMPLETED)
            if pump.done() and (error := pump.exception()) and not isinstance(error, StreamBroken):
                raise error
            return await call
        finally:
            await _drop(call, pump)


async def download(
    session: Session,
    uuid: str,
    sink: Callable[[bytes], Awaitable[object]],
    use: WithHandle,
    encoding: Encoding | None = None,
    progress: Progress = ignore_progress,
) -> Json:
    """Let a driver write a file: everything it writes has gone to ``sink`` when this returns.

    ``encoding`` says how the sink wants it compressed. That is done on this side: stock exporters 0.9.0 close
    their compressor without flushing it, and what they write is cut off.

    Raises:
        ClientError: the stream broke, so the file is not whole.
    """
    async with session.resource(uuid) as (stream, handle, _):
        pack = _compressor(encoding) if encoding else None
        call = asyncio.ensure_future(use(handle))
        pump = asyncio.create_task(_pull(stream, sink, pack, progress))
        try:
            await asyncio.wait((call, pump), return_when=asyncio.FIRST_EXCEPTION)
            result = await call
            try:
                await pump
            except StreamBroken as error:
                raise ClientError(f"the file is not whole: {error}") from None
            return result
        finally:
            await _drop(call, pump)


def is_url(source: Path | str) -> bool:
    """Tell whether the exporter can fetch this by itself."""
    return str(source).startswith(("http://", "https://"))


async def use_url(url: str, use: WithHandle) -> Json:
    """Let the exporter itself fetch an ``http(s)://`` source."""
    return await use({"kind": "presigned_request", "method": "GET", "url": url, "headers": {}})


@asynccontextmanager
async def writing(path: Path) -> AsyncGenerator[Callable[[bytes], Awaitable[object]]]:
    """Yield a sink that fills a temporary file; it takes the name of ``path`` only if all went well."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            yield lambda data: asyncio.to_thread(file.write, data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


async def _push(stream: ByteStream, source: AsyncIterable[bytes], unpack: _Codec | None, progress: Progress) -> None:
    async for block in source:
        await stream.send(unpack.step(block) if unpack else block)
        progress(len(block))
    if unpack:
        await stream.send(unpack.finish())
    await stream.send_eof()


async def _pull(
    stream: ByteStream, sink: Callable[[bytes], Awaitable[object]], pack: _Codec | None, progress: Progress
) -> None:
    gathered = bytearray()
    while data := await stream.receive():
        progress(len(data))
        gathered += pack.step(data) if pack else data
        if len(gathered) >= BLOCK:
            await sink(bytes(gathered))
            gathered.clear()
    if pack:
        gathered += pack.finish()
    await sink(bytes(gathered))


async def _drop(*tasks: asyncio.Future[Json] | asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, ClientError, StreamBroken, OSError):
            await task


def _decompressor(encoding: Encoding) -> _Codec:
    match encoding:
        case "gzip":
            unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
            return _Codec(unzip.decompress, unzip.flush)
        case "xz":
            return _Codec(lzma.LZMADecompressor().decompress)
        case "bz2":
            return _Codec(bz2.BZ2Decompressor().decompress)
        case "zstd":
            raise ClientError("the exporter does not unpack zstd, and neither does this side: unpack the file first")


def _compressor(encoding: Encoding) -> _Codec:
    match encoding:
        case "gzip":
            pack = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
            return _Codec(pack.compress, pack.flush)
        case "xz":
            xz = lzma.LZMACompressor()
            return _Codec(xz.compress, xz.flush)
        case "bz2":
            bz = bz2.BZ2Compressor()
            return _Codec(bz.compress, bz.flush)
        case "zstd":
            raise ClientError("zstd cannot be written here: use gzip, xz or bz2")
