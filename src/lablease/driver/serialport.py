"""A character device shared by everybody who is connected to it."""

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Final

from lablease.driver.bytestream import BrokenStream

READ_BYTES: Final = 64 * 1024
MAX_BUFFER: Final = 256 * 1024
"""Bytes that wait for one slow reader before the device is read no further."""


class PortStream:
    """One connection to the port (a ``ByteStream``): sees everything that the device says from now on."""

    def __init__(self, port: "SerialPort") -> None:
        self._port = port
        self._buffer = bytearray()
        self._filled = asyncio.Event()
        self._problem: str | None = None
        self._closed = False
        self.half_closed = False

    @property
    def full(self) -> bool:
        return len(self._buffer) >= MAX_BUFFER

    def feed(self, data: bytes) -> None:
        """Take what the device said. A peer that has said its end and reads no more loses the connection."""
        if self.half_closed and self.full:
            self.end("")
            return
        self._buffer += data
        self._filled.set()

    def end(self, problem: str) -> None:
        """End the connection: cleanly when ``problem`` is empty."""
        self._closed = True
        self._problem = problem or None
        self._filled.set()
        self._port.leave(self)

    async def receive(self) -> bytes:
        while not self._buffer:
            if self._problem is not None:
                raise BrokenStream(self._problem)
            if self._closed:
                return b""
            self._filled.clear()
            await self._filled.wait()
        data = bytes(self._buffer[:READ_BYTES])
        del self._buffer[:READ_BYTES]
        self._port.resume()
        return data

    async def send(self, data: bytes) -> None:
        if self._closed:
            raise BrokenStream(self._problem or "the port is closed")
        await self._port.write(data)

    async def send_eof(self) -> None:
        self.half_closed = True

    async def aclose(self) -> None:
        self.end("")


class SerialPort:
    """An open character device. All methods run on one event loop.

    Args:
        fd: descriptor in non-blocking mode; the caller closes it.
        chars_per_second: throttle for writes, None for none.
        emptied: called when the last connection has left.
    """

    def __init__(self, fd: int, *, chars_per_second: float | None, emptied: Callable[[], None]) -> None:
        self._fd = fd
        self._chars_per_second = chars_per_second
        self._emptied = emptied
        self._streams: set[PortStream] = set()
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._write_lock = asyncio.Lock()
        self._write_ready: asyncio.Future[None] | None = None
        self._dead = False

    def connect(self) -> PortStream:
        """Add a connection."""
        stream = PortStream(self)
        self._streams.add(stream)
        self.resume()
        return stream

    def leave(self, stream: PortStream) -> None:
        """Forget a connection."""
        if stream in self._streams:
            self._streams.discard(stream)
            if not self._streams:
                self._pause()
                self._stop_writing()
                self._emptied()
            else:
                self.resume()

    def close(self) -> None:
        """End all connections."""
        for stream in tuple(self._streams):
            stream.end("")

    def resume(self) -> None:
        """Read on if every peer that still listens has room."""
        if not self._reading and self._streams and not self._blocked():
            self._loop.add_reader(self._fd, self._readable)
            self._reading = True

    async def write(self, data: bytes) -> None:
        """Write all of ``data``; connections take turns per chunk. Raises OSError."""
        step = len(data) if self._chars_per_second is None else 1
        async with self._write_lock:
            for start in range(0, len(data), step or 1):
                await self._write_all(data[start : start + step])
                if self._chars_per_second is not None:
                    await asyncio.sleep(1 / self._chars_per_second)

    def _blocked(self) -> bool:
        return any(stream.full and not stream.half_closed for stream in self._streams)

    def _pause(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._fd)
            self._reading = False

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost("" if error.errno == errno.EIO else str(error))
            return
        if not data:
            self._lost("")
            return
        for stream in tuple(self._streams):
            stream.feed(data)
        if self._blocked():
            self._pause()

    def _lost(self, problem: str) -> None:
        self._pause()
        for stream in tuple(self._streams):
            stream.end(problem or "the device hung up")

    async def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._dead:  # the descriptor is closed, and its number may already belong to something else
                raise BrokenStream("the port is closed")
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._writable()

    async def _writable(self) -> None:
        ready = self._write_ready = self._loop.create_future()
        self._loop.add_writer(self._fd, _set, ready)
        try:
            await ready
        finally:
            if not self._dead:
                self._loop.remove_writer(self._fd)

    def _stop_writing(self) -> None:
        self._dead = True
        if self._write_ready is not None and not self._write_ready.done():
            self._loop.remove_writer(self._fd)
            self._write_ready.set_result(None)


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
