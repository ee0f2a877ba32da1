"""The private HTTP port of a server process: ``/metrics``, ``/healthz`` and ``/readyz``.

It is for the machine's own supervisor and for Prometheus; bind it where no user can reach it.
"""

import socket
from collections.abc import Callable
from typing import Self

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Ready = Callable[[], str | None]
"""Returns None when the process can do its work, else what it waits for."""


def new_registry() -> CollectorRegistry:
    """Return a registry that has the figures of the process (memory, CPU, garbage collection) already."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class PrivatePort:
    """An HTTP server for probes and metrics, started by ``start`` and stopped by ``stop``."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        self._runner = runner
        self.port = port

    @classmethod
    async def start(cls, host: str, port: int, *, registry: CollectorRegistry, ready: Ready) -> Self:
        """Listen on ``host:port``; port 0 lets the system choose, ``port`` of the result tells which.

        Raises:
            OSError: the address cannot be bound.
        """
        app = web.Application()

        async def metrics(_request: web.Request) -> web.Response:
            return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

        async def healthz(_request: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def readyz(_request: web.Request) -> web.Response:
            problem = ready()
            return web.Response(text="ok\n") if problem is None else web.Response(status=503, text=f"{problem}\n")

        app.router.add_get("/metrics", metrics)
        app.router.add_get("/healthz", healthz)
        app.router.add_get("/readyz", readyz)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        listener = _bound(host, port)
        await web.SockSite(runner, listener).start()
        return cls(runner, listener.getsockname()[1])

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # a successor binds before this process stops
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
