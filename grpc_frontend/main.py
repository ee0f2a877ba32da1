"""Composition root of the front end: ``python -m lablease.grpc_frontend.main`` or ``lablease frontend``.

Exit status: 0 after SIGTERM or SIGINT and the drain, 1 when a port cannot be bound or a part fails, 2 when a setting
is not usable.
"""

import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from lablease.errors import InvalidField, Unavailable
from lablease.grpc_frontend.auth import Authenticator
from lablease.grpc_frontend.control import RouterLink, RouterLinks
from lablease.grpc_frontend.fencing import Fencing
from lablease.grpc_frontend.figures import Figures
from lablease.grpc_frontend.gate import Gate
from lablease.grpc_frontend.heartbeat import Heartbeat
from lablease.grpc_frontend.lab import Lab
from lablease.grpc_frontend.leases import LeaseDesk
from lablease.grpc_frontend.parts import Parts
from lablease.grpc_frontend.places import Places
from lablease.grpc_frontend.public import PublicFacts, PublicPort
from lablease.grpc_frontend.router.settings import Address
from lablease.grpc_frontend.router.tls import server_credentials
from lablease.grpc_frontend.routers import Router
from lablease.grpc_frontend.server import FrontendServer
from lablease.grpc_frontend.services.client import client_service
from lablease.grpc_frontend.services.controller import controller_service
from lablease.grpc_frontend.sessions import Sessions
from lablease.grpc_frontend.settings import FrontendSettings
from lablease.grpc_frontend.store import Store
from lablease.grpc_frontend.tunnels import Listeners, WaitingHalves
from lablease.kube.api import connect
from lablease.obs.metrics import PrivatePort, new_registry
from lablease.obs.process import run_server
from lablease.tokens.router import read_router_key

log = structlog.get_logger(__name__)


class Frontend:
    """All parts of one front end, put together."""

    def __init__(self, settings: FrontendSettings, store: Store, registry: CollectorRegistry) -> None:
        figures = Figures(registry)
        key = read_router_key(settings.router_key_file)
        waiting = WaitingHalves(store.bells)
        fencing = Fencing(store)
        authority = None if settings.router_ca is None else _read(settings.router_ca, "router-ca")
        self.links = RouterLinks(
            [
                RouterLink(
                    Router(entry.endpoint, entry.labels),
                    frontend=settings.id,
                    key=key,
                    authority=authority,
                    fencing=fencing,
                    waiting=waiting,
                )
                for entry in settings.router
            ]
        )
        self.parts = Parts(
            store=store,
            authenticator=Authenticator(store),
            leases=LeaseDesk(store),
            sessions=Sessions(store, settings.id),
            listeners=Listeners(store.bells),
            waiting=waiting,
            routers=self.links.healthy,
            router_key=key,
        )
        self.lab = Lab(store)
        figures.waiting.set_function(waiting.count)
        figures.routers.set_function(lambda: len(self.links.healthy()))
        self.gate = Gate(store, self.parts.authenticator, figures)
        self.services = (
            controller_service(self.gate, self.parts),
            client_service(self.gate, self.parts, self.lab, Places(store)),
        )


async def serve(settings: FrontendSettings) -> None:
    """Run a front end until SIGTERM or SIGINT.

    Raises:
        InvalidField: a setting, key or certificate is not usable.
        Unavailable: a port cannot be bound.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        api = await connect(settings.kubeconfig, "lablease-frontend")
        stack.push_async_callback(api.aclose)
        store = Store(api, settings.namespace, settings.system_namespace)
        registry = new_registry()
        frontend = Frontend(settings, store, registry)
        credentials = server_credentials(settings.tls_cert, settings.tls_key)
        server = await FrontendServer.start(settings.listen, credentials, frontend.services)
        patience = timedelta(seconds=settings.drain_seconds)
        stack.push_async_callback(server.drain, frontend.parts.draining, store.bells, patience)
        await _open_http(settings, frontend, registry, stack)
        gc.collect()
        gc.freeze()  # what was imported stays; no collection needs to look at it again
        heartbeat = Heartbeat(store, settings.id)
        tasks = [asyncio.create_task(part) for part in (store.run(), frontend.links.run(), heartbeat.run())]
        try:
            await _until(stop, tasks)
        finally:
            await server.drain(frontend.parts.draining, store.bells, patience)
            frontend.parts.sessions.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await heartbeat.stop()


async def _until(stop: asyncio.Event, tasks: "Sequence[asyncio.Task[None]]") -> None:
    """Wait for the signal; a part that ends before it has failed."""
    waiting = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for task in done:
        if task is not waiting:
            task.result()


async def _open_http(
    settings: FrontendSettings, frontend: Frontend, registry: CollectorRegistry, stack: AsyncExitStack
) -> None:
    if settings.public_http is not None:
        routers = settings.router
        facts = PublicFacts(
            settings.endpoint,
            routers[0].endpoint if routers else None,
            settings.namespace,
            settings.ca_bundle,
        )
        public = await PublicPort.start(Address(settings.public_http), facts)
        stack.push_async_callback(public.stop)
        log.info("frontend.public_port", port=public.port)
    if settings.private_http is not None:
        address = Address(settings.private_http)

        def ready() -> str | None:
            if frontend.parts.draining.is_set():
                return "draining"
            return None if frontend.parts.store.ready else "caches are not filled yet"

        try:
            private = await PrivatePort.start(address.host, address.port, registry=registry, ready=ready)
        except OSError as error:
            raise Unavailable(f"cannot listen on {address}: {error.strerror}") from None
        stack.push_async_callback(private.stop)
        log.info("frontend.private_port", port=private.port)


def _read(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidField(field, f"cannot read {path}: {error.strerror}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the front end with these flags (None: those of the process); return the exit status."""
    return run_server("lablease frontend", argv, FrontendSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
