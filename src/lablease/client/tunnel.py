"""The client's end of a leased exporter: a private unix socket, each connection of which is one tunnel.

Stock ``j`` and our own ``lablease call`` reach the exporter through the socket's path in JUMPSTARTER_HOST.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import grpc.aio

from lablease.client.channel import Trust, open_channel
from lablease.client.errors import ClientError, ServiceError
from lablease.client.frames import MAX_FRAME, FrameStream, join
from lablease.client.listening import listening
from lablease.client.service import Tunnelling
from lablease.wire.jumpstarter.v1.router_pb2_grpc import RouterServiceStub

# After the local end has closed, the exporter's answer is worth waiting for only to let the router see a clean end.
_LINGER_SECONDS = 2.0
_TRANSIENT = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})

OnTrouble = Callable[[ClientError], None]


class Dialer(Protocol):
    """Who hands out tokens for tunnels; ``lablease.client.service.Controller`` does."""

    async def dial(self, lease: str, within: timedelta) -> Tunnelling:
        """Return endpoint and single-use token, or raise ServiceError."""
        ...


class Tunnel:
    """``path`` is the socket. ``refused`` is set once, when a tunnel was refused for good (lease over or transferred)."""

    def __init__(
        self, dialer: Dialer, lease: str, trust: Trust, dial_within: timedelta, on_trouble: OnTrouble, path: Path
    ) -> None:
        self.path = path
        self.refused: asyncio.Future[ClientError] = asyncio.get_running_loop().create_future()
        self._dialer = dialer
        self._lease = lease
        self._trust = trust
        self._dial_within = dial_within
        self._on_trouble = on_trouble
        self._routers: dict[str, grpc.aio.Channel] = {}
        self._opening = asyncio.Lock()
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one accepted connection to the exporter and back."""
        self._open += 1
        try:
            await self._carry(reader, writer)
        except ClientError as error:
            if isinstance(error, ServiceError) and error.code in _TRANSIENT:
                self._on_trouble(error)
            elif not self.refused.done():
                self.refused.set_result(error)
        finally:
            self._open -= 1

    async def close(self) -> None:
        """Close the channels to routers."""
        for channel in self._routers.values():
            await channel.close(None)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ticket = await self._dialer.dial(self._lease, self._dial_within)
        channel = await self._router(ticket.endpoint)
        call = RouterServiceStub(channel).Stream(None, metadata=(("authorization", f"Bearer {ticket.token}"),))
        await join(FrameStream(call), reader, writer, _LINGER_SECONDS)
        if call.done() and (await call.code()).name in _TRANSIENT:
            await self._forget(ticket.endpoint, channel)

    async def _router(self, endpoint: str) -> grpc.aio.Channel:
        async with self._opening:
            if endpoint not in self._routers:
                self._routers[endpoint] = await open_channel(endpoint, self._trust)
            return self._routers[endpoint]

    async def _forget(self, endpoint: str, channel: grpc.aio.Channel) -> None:
        """A router that restarted may present another certificate: the next tunnel opens a new channel."""
        if self._routers.get(endpoint) is channel and self._open == 1:
            del self._routers[endpoint]
            await channel.close(None)


@asynccontextmanager
async def open_tunnel(
    dialer: Dialer, lease: str, trust: Trust, dial_within: timedelta, on_trouble: OnTrouble | None = None
) -> AsyncGenerator[Tunnel]:
    """Listen on a new socket in a new directory that only this user can enter; both vanish with the context."""
    directory = Path(tempfile.mkdtemp(prefix="lablease-", dir=os.environ.get("XDG_RUNTIME_DIR")))
    try:
        tunnel = Tunnel(dialer, lease, trust, dial_within, on_trouble or _ignore, directory / "socket")
        try:
            async with listening(
                lambda accept: asyncio.start_unix_server(accept, tunnel.path, limit=MAX_FRAME), tunnel.serve
            ):
                yield tunnel
        finally:
            await tunnel.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _ignore(error: ClientError) -> None:
    """Tell nobody."""
