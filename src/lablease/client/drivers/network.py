"""Network drivers: a byte stream per connection to something near the exporter."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from lablease.client.drivers.base import DriverClient
from lablease.client.errors import ClientError
from lablease.client.frames import MAX_FRAME, join
from lablease.client.listening import listening


class StreamClient(DriverClient):
    """A driver with a ``connect`` stream, which local ports and sockets can be joined to."""

    @asynccontextmanager
    async def forward_tcp(self, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[tuple[str, int]]:
        """Listen on a local TCP port; each connection opens one stream. Yields the bound address.

        Raises:
            OSError: the address cannot be bound.
        """
        async with listening(
            lambda accept: asyncio.start_server(accept, host, port, limit=MAX_FRAME), self._serve
        ) as server:
            bound = server.sockets[0].getsockname()
            yield str(bound[0]), int(bound[1])

    @asynccontextmanager
    async def forward_unix(self, path: Path | None = None) -> AsyncGenerator[Path]:
        """Listen on a unix socket, by default in a new private directory. Yields its path."""
        with tempfile.TemporaryDirectory(prefix="lablease-", dir=os.environ.get("XDG_RUNTIME_DIR")) as directory:
            where = path or Path(directory) / "socket"
            try:
                async with listening(
                    lambda accept: asyncio.start_unix_server(accept, where, limit=MAX_FRAME), self._serve
                ):
                    yield where
            finally:
                where.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self.stream() as stream:
                await join(stream, reader, writer)
        except ClientError:
            writer.transport.abort()  # the peer sees a reset; the driver refused or the lease is over


class NetworkClient(StreamClient):
    """A network target near the exporter."""

    async def address(self) -> str:
        """Return where the exporter connects to, such as ``tcp://192.0.2.7:22``.

        Raises:
            DriverInvalidArgument: the exporter keeps it secret.
        """
        answer = await self.call("address")
        if not isinstance(answer, str):
            raise self.unexpected("address", answer)
        return answer
