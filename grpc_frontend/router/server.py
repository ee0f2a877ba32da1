"""The router's gRPC server: services, options, start and drain."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Self

import grpc
import grpc.aio
import structlog
from prometheus_client import CollectorRegistry

from lablease.errors import Unavailable
from lablease.grpc_frontend.router.control import Control
from lablease.grpc_frontend.router.figures import Figures
from lablease.grpc_frontend.router.hub import Hub
from lablease.grpc_frontend.router.pairing import Limits, PairingTable
from lablease.grpc_frontend.router.rendezvous import Rendezvous
from lablease.grpc_frontend.router.services import Health, add_services, new_server
from lablease.tokens.router import RouterTokenVerifier

log = structlog.get_logger()

OPTIONS: list[tuple[str, int]] = [
    # jmp 0.9.0 pings every 20 s on idle streams; a server with default options hangs up on it after a minute.
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    # Our own pings notice a peer that lost its power.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.so_reuseport", 1),
]
_LAST_WORDS = timedelta(seconds=5)
"""What peers get, after the drain, to take the last frames."""


class RouterServer:
    """One router: started by ``start``, ended by ``drain``."""

    def __init__(self, server: grpc.aio.Server, rendezvous: Rendezvous, hub: Hub, health: Health) -> None:
        self.port = 0
        self.rendezvous = rendezvous
        self.hub = hub
        self._server = server
        self._health = health
        self._beat: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        address: str,
        *,
        name: str,
        key: bytes,
        credentials: grpc.ServerCredentials,
        limits: Limits,
        registry: CollectorRegistry,
        clock: Callable[[], datetime],
    ) -> Self:
        """Bind and serve.

        Args:
            address: ``host:port``, port 0 lets the system choose; ``port`` of the result tells which.
            name: what tokens for this router carry; empty means ``address`` with the port that was bound.
            key: the router key.
            credentials: TLS of the port.
            limits: what to refuse as too much.
            registry: where the figures go.
            clock: the wall clock.

        Raises:
            InvalidField: the key is too short.
            Unavailable: the address cannot be bound.
        """
        verifier = RouterTokenVerifier(key)
        server = new_server(OPTIONS)
        try:
            port = server.add_secure_port(address, credentials)
        except RuntimeError:
            raise Unavailable(f"cannot listen on {address}") from None
        name = name or f"{address.rpartition(':')[0]}:{port}"
        hub, figures = Hub(name), Figures(registry)
        rendezvous = Rendezvous(PairingTable(name, limits), verifier, hub, figures, clock)
        figures.tunnels.set_function(rendezvous.open_tunnels)
        figures.pending.set_function(rendezvous.pending)
        control = Control(rendezvous, hub, key=key, router=name, clock=clock)
        self = cls(server, rendezvous, hub, await add_services(server, rendezvous, control))
        self.port = port
        await server.start()
        self._beat = asyncio.create_task(rendezvous.run())
        log.info("router.listening", address=address, port=port, name=name)
        return self

    async def drain(self, patience: timedelta) -> None:
        """Stop listening at once, end halves that wait, give open tunnels ``patience``, then end them too.

        A successor on the same port takes what comes meanwhile (SO_REUSEPORT).
        """
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.create_task(self._server.stop((patience + _LAST_WORDS).total_seconds()))
        await self.rendezvous.drain(patience)
        self.hub.close()
        await stopping
        if self._beat is not None:
            self._beat.cancel()
        log.info("router.stopped")
