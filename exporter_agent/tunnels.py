"""The tunnels of one lease: joined as Listen announces them, cut all at once."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
import grpc.aio
import structlog

from lablease.exporter_agent.backoff import delay_seconds
from lablease.exporter_agent.channels import Channels
from lablease.exporter_agent.controller import describe
from lablease.exporter_agent.errors import ChannelProblem
from lablease.exporter_agent.tunnel import carry

log = structlog.get_logger()

MAX_TUNNELS: Final = 256
"""Connections of one lease at a time; a client that opens more waits for the router to give up."""

JOIN_ATTEMPTS: Final = 3


class Tunnels:
    """Joins routers on behalf of one session.

    Args:
        ready: waits until the session's socket is served.
        socket_path: the session's main socket.
    """

    def __init__(self, channels: Channels, socket_path: str, ready: Callable[[], Awaitable[object]]) -> None:
        self._channels = channels
        self._socket_path = socket_path
        self._ready = ready
        self._open: set[asyncio.Task[None]] = set()

    def join(self, endpoint: str, token: str) -> None:
        """Start a tunnel."""
        if len(self._open) >= MAX_TUNNELS:
            log.warning("tunnel.refused", problem=f"{MAX_TUNNELS} tunnels are open")
            return
        task = asyncio.ensure_future(self._carry(endpoint, token))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    def cut(self) -> None:
        """End every tunnel now: nothing is copied after this returns."""
        for task in self._open:
            task.cancel()

    async def close(self) -> None:
        """Cut, and wait until all is closed."""
        self.cut()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _carry(self, endpoint: str, token: str) -> None:
        await self._ready()
        for attempt in range(1, JOIN_ATTEMPTS + 1):
            try:
                channel = await self._channels.get(endpoint)
                await carry(channel, token, self._socket_path)
                return
            except (grpc.aio.AioRpcError, ChannelProblem) as error:
                log.warning("tunnel.broken", router=endpoint, problem=describe(error), attempt=attempt)
                unreachable = isinstance(error, ChannelProblem) or error.code() is grpc.StatusCode.UNAVAILABLE
                if not unreachable:
                    return
                await self._channels.forget(endpoint)
                await asyncio.sleep(delay_seconds(attempt, random.random()))
            except OSError as error:
                log.info("tunnel.session_gone", problem=str(error))
                return
