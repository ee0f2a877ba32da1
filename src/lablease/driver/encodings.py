"""Content encodings of resource streams: the client's file is compressed, the driver sees plain bytes."""

import bz2
import importlib
import lzma
import os
import zlib
from collections.abc import Callable
from typing import Final, Protocol, cast

from lablease.driver.bytestream import ByteStream

MAX_CHUNK: Final = 1024 * 1024
"""Bytes of plain data handed on at once: a small chunk that expands a thousandfold does not fill memory."""

DISABLE_VARIABLE: Final = "JMP_DISABLE_COMPRESSION"


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Decompressor(Protocol):
    def feed(self, data: bytes) -> bytes: ...
    def more(self) -> bytes: ...
    @property
    def complete(self) -> bool: ...


class BadEncoding(ValueError):
    """The data are not what the encoding says, or are cut off."""


class _Zlib:
    """gzip or zlib; several gzip members after each other are one file."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=47)
        self._rest = b""
        self._fed = False

    def feed(self, data: bytes) -> bytes:
        self._fed = self._fed or bool(data)
        self._rest += data
        return self.more()

    def more(self) -> bytes:
        if self._inner.eof and self._rest:
            self._inner = zlib.decompressobj(wbits=47)
        if self._inner.eof:
            return b""
        plain = self._inner.decompress(self._rest, MAX_CHUNK)
        self._rest = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
        return plain

    @property
    def complete(self) -> bool:
        return self._inner.eof or not self._fed


class _LimitedDecompressor(Protocol):
    """Shape that bz2, lzma and zstd share."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class _Limited:
    """Streams of bz2, xz and zstd; several after each other are one file."""

    def __init__(self, make: Callable[[], _LimitedDecompressor]) -> None:
        self._make = make
        self._inner = make()
        self._fed = False

    def feed(self, data: bytes) -> bytes:
        self._fed = self._fed or bool(data)
        if self._inner.eof:
            data = self._restart() + data
            if not data:
                return b""
            self._inner = self._make()
        return self._inner.decompress(data, MAX_CHUNK)

    def more(self) -> bytes:
        if self._inner.eof:
            return self.feed(b"") if self._inner.unused_data else b""
        return b"" if self._inner.needs_input else self._inner.decompress(b"", MAX_CHUNK)

    def _restart(self) -> bytes:
        return self._inner.unused_data

    @property
    def complete(self) -> bool:
        return self._inner.eof or not self._fed


def _zstd() -> object | None:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def supported() -> frozenset[str]:
    """Return the names that this process can decode: none when JMP_DISABLE_COMPRESSION is 1."""
    if os.environ.get(DISABLE_VARIABLE) == "1":
        return frozenset()
    return frozenset({"gzip", "xz", "bz2"} | ({"zstd"} if _zstd() is not None else set()))


def _codec(encoding: str) -> tuple[_Compressor, _Decompressor]:
    match encoding:
        case "gzip":
            return zlib.compressobj(wbits=31), _Zlib()
        case "xz":
            return lzma.LZMACompressor(), _Limited(lzma.LZMADecompressor)
        case "bz2":
            return bz2.BZ2Compressor(), _Limited(bz2.BZ2Decompressor)
        case "zstd" if (module := _zstd()) is not None:
            make = cast("Callable[[], _Compressor]", getattr(module, "ZstdCompressor"))  # noqa: B009
            unmake = cast("Callable[[], _LimitedDecompressor]", getattr(module, "ZstdDecompressor"))  # noqa: B009
            return make(), _Limited(unmake)
        case _:
            raise ValueError(f"content encoding {encoding!r} is not supported; use gzip, xz or bz2")


class EncodedStream:
    """A ``ByteStream`` that decodes what it receives and encodes what it sends."""

    def __init__(self, inner: ByteStream, encoding: str) -> None:
        self._inner = inner
        self._encoding = encoding
        self._compressor, self._decompressor = _codec(encoding)
        self._sent = False
        self._flushed = False

    async def receive(self) -> bytes:
        """Return plain bytes.

        Raises:
            BadEncoding: the data are damaged or end in the middle.
        """
        try:
            plain = self._decompressor.more()
            while not plain:
                data = await self._inner.receive()
                if not data:
                    break
                plain = self._decompressor.feed(data)
        except (zlib.error, lzma.LZMAError) as error:
            raise BadEncoding(f"data are no valid {self._encoding}: {error}") from error
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            raise BadEncoding(f"data are no valid {self._encoding}: {error}") from error
        if not plain and not self._decompressor.complete:
            raise BadEncoding(f"{self._encoding} data end in the middle")
        return plain

    async def send(self, data: bytes) -> None:
        self._sent = self._sent or bool(data)
        if encoded := self._compressor.compress(data):
            await self._inner.send(encoded)

    async def send_eof(self) -> None:
        await self._flush()
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._flush()
        await self._inner.aclose()

    async def _flush(self) -> None:
        if self._sent and not self._flushed:
            self._flushed = True
            if rest := self._compressor.flush():
                await self._inner.send(rest)
