"""Composition root of the router: ``python -m lablease.grpc_frontend.router.main`` or ``lablease router``.

Exit status: 0 after SIGTERM or SIGINT and the drain, 1 when the port cannot be bound, 2 when a setting is not usable.
"""

import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry

from lablease.clock import utc_now
from lablease.errors import Unavailable
from lablease.grpc_frontend.router.pairing import Limits
from lablease.grpc_frontend.router.server import RouterServer
from lablease.grpc_frontend.router.settings import Address, RouterSettings
from lablease.grpc_frontend.router.tls import server_credentials
from lablease.obs.metrics import PrivatePort, new_registry
from lablease.obs.process import run_server
from lablease.tokens.router import read_router_key

log = structlog.get_logger()


async def serve(settings: RouterSettings) -> None:
    """Run a router until SIGTERM or SIGINT; a second signal ends the drain.

    Raises:
        InvalidField: key or certificate are not usable.
        Unavailable: a port cannot be bound.
    """
    stop = asyncio.Event()
    patience = timedelta(seconds=settings.drain_seconds)
    registry = new_registry()
    server = await RouterServer.start(
        settings.listen,
        name=settings.name,
        key=read_router_key(settings.key_file),
        credentials=server_credentials(settings.tls_cert, settings.tls_key),
        limits=Limits(settings.max_pending, settings.max_pending_per_exporter, settings.max_tunnels),
        registry=registry,
        clock=utc_now,
    )

    def on_signal() -> None:
        if stop.is_set():
            server.rendezvous.end_all()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    private = None
    if settings.metrics is not None:
        private = await _private_port(Address(settings.metrics), registry, server)
    gc.collect()
    gc.freeze()  # what was imported stays; no collection needs to look at it again
    await stop.wait()
    await server.drain(patience)
    if private is not None:
        await private.stop()


async def _private_port(address: Address, registry: CollectorRegistry, server: RouterServer) -> PrivatePort:
    def ready() -> str | None:
        return "draining" if server.rendezvous.table.draining else None

    try:
        private = await PrivatePort.start(address.host, address.port, registry=registry, ready=ready)
    except OSError as error:
        raise Unavailable(f"cannot listen on {address}: {error.strerror}") from None
    log.info("router.private_port", port=private.port)
    return private


def main(argv: Sequence[str] | None = None) -> int:
    """Run the router with these flags (None: those of the process); return the exit status."""
    return run_server("lablease router", argv, RouterSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
