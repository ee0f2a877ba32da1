"""Network endpoints next to the device."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from lablease.driver.base import Driver, export, exportstream
from lablease.driver.bytestream import ByteStream, pipe
from lablease.driver.frames import MAX_PAYLOAD

Port = Annotated[int, Field(ge=1, le=65535)]
CONNECT_SECONDS: Final = 30.0


class SocketStream:
    """A connected stream socket as a ``ByteStream``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> bytes:
        return await self._reader.read(MAX_PAYLOAD)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def send_eof(self) -> None:
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    async def aclose(self) -> None:
        self._writer.close()


class Network(Driver):
    """What clients of an endpoint rely on: the byte stream ``connect`` and ``address``. Base of network drivers."""

    client_class = "jumpstarter_driver_network.client.NetworkClient"


@dataclass(kw_only=True)
class TcpNetwork(Network):
    """A TCP endpoint that the exporter can reach. Each ``connect`` is one connection."""

    host: str
    port: Port
    enable_address: bool = True

    @exportstream
    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[ByteStream]:
        """Connect to the endpoint."""
        opening = asyncio.open_connection(self.host, self.port, limit=MAX_PAYLOAD)
        reader, writer = await asyncio.wait_for(opening, CONNECT_SECONDS)
        stream = SocketStream(reader, writer)
        try:
            yield stream
        finally:
            await stream.aclose()

    @export
    def address(self) -> str:
        """Return the endpoint as tcp://ADDRESS:PORT, its host name resolved."""
        if not self.enable_address:
            raise ValueError("the address of this endpoint is not given out (enable_address: false)")
        resolved = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][4][0]
        address = ipaddress.ip_address(str(resolved).partition("%")[0])
        return f"tcp://[{address}]:{self.port}" if address.version == 6 else f"tcp://{address}:{self.port}"


@dataclass(kw_only=True)
class UnixNetwork(Network):
    """A unix stream socket on the exporter's machine."""

    path: str

    @exportstream
    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[ByteStream]:
        """Connect to the socket."""
        opening = asyncio.open_unix_connection(self.path, limit=MAX_PAYLOAD)
        stream = SocketStream(*await asyncio.wait_for(opening, CONNECT_SECONDS))
        try:
            yield stream
        finally:
            await stream.aclose()


@dataclass(kw_only=True)
class EchoNetwork(Network):
    """Sends back what it gets; for tests of the way there."""

    @exportstream
    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[ByteStream]:
        """Open an echo."""
        ours, theirs = pipe()

        async def echo() -> None:
            while data := await ours.receive():
                await ours.send(data)
            await ours.send_eof()

        task = asyncio.create_task(echo())
        try:
            yield theirs
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
