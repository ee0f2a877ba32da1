"""Composition root of the operator: ``python -m lablease.operator.main`` or ``lablease operator``.

Exit status: 0 after SIGTERM or SIGINT, 1 when a port cannot be bound or a part fails, 2 when a setting is not usable.
"""

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

import structlog

from lablease.errors import InvalidField, LableaseError, NotAllowed, Unavailable
from lablease.kube.api import KubeApi, connect
from lablease.obs.metrics import PrivatePort, new_registry
from lablease.obs.process import run_server
from lablease.operator import keyring, plane
from lablease.operator.brain import Brain
from lablease.operator.events import Teller
from lablease.operator.frontends import Frontends
from lablease.operator.settings import Settings
from lablease.operator.sweep import Sweep
from lablease.operator.tokens import Issuer, Keeper
from lablease.tokens.identity import SigningKey

HANDLERS = (
    "lablease.operator.handlers.lease",
    "lablease.operator.handlers.exporter",
    "lablease.operator.handlers.client",
    "lablease.operator.handlers.policy",
    "lablease.operator.handlers.secret",
)
_PAUSE_SECONDS = 0.5

log = structlog.get_logger("lablease.operator")


class Operator:
    """All parts of one operator, put together."""

    def __init__(self, settings: Settings, api: KubeApi, key: SigningKey, session: plane.Session) -> None:
        namespaces = tuple(settings.namespace)
        self.session = session
        self.namespaces = namespaces
        keeper = Keeper(Issuer(key, settings.endpoint, settings.token_lifetime))
        self.frontends = Frontends(api, settings.system_namespace, lambda name: self.brain.frontend_changed(name))
        self.teller = Teller(api, f"{socket.gethostname()}-{os.getpid()}")
        self.brain = Brain(api, keeper, namespaces, self.frontends.presence, self.teller.tell)
        self.sweep = Sweep(api, self.brain, namespaces)
        self.following = asyncio.Event()

    def parts(self, api: KubeApi) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs as long as the process."""
        memo = plane.Memo(self.brain, self.sweep, self.session)
        return (
            self.brain.run(),
            self.frontends.run(),
            self.sweep.run(),
            self.teller.run(),
            plane.keep_authorized(self.session, api.config),
            plane.follow(memo, self.namespaces, self.following),
        )


async def serve(settings: Settings) -> None:
    """Run an operator until SIGTERM or SIGINT.

    Raises:
        InvalidField: a setting or the signing key is not usable.
        Unavailable: a port cannot be bound.
    """
    logging.getLogger("kopf").setLevel(logging.WARNING)
    stop = asyncio.Event()
    _stop_on_signals(stop)
    for module in HANDLERS:
        importlib.import_module(module)
    async with AsyncExitStack() as stack:
        api = await connect(settings.kubeconfig, "lablease-operator")
        stack.push_async_callback(api.aclose)
        session = await plane.session_for(api.config)
        stack.push_async_callback(session.aiohttp_session.close)
        starting = asyncio.create_task(_start(settings, api, session))
        if not await _first(starting, stop):
            return
        operator = starting.result()
        await _open_port(settings, operator, stack)
        gc.collect()
        gc.freeze()  # what was imported and listed stays; no collection needs to look at it again
        gc.set_threshold(2_000, 10, 1_000)
        await _run(operator, api, stop)


async def _start(settings: Settings, api: KubeApi, session: plane.Session) -> Operator:
    """Get the key and the first complete lists, however long the API server takes."""
    attempt = 0
    while True:
        try:
            key = await keyring.signing_key(api, settings.system_namespace)
            await keyring.publish(api, settings.system_namespace, key)
            operator = Operator(settings, api, key, session)
            await operator.sweep.fill()
        except InvalidField:
            raise
        except LableaseError as problem:
            if attempt % 20 == 0:
                log.warning("operator.waits", reason=str(problem), retryable=not isinstance(problem, NotAllowed))
            attempt += 1
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return operator


async def _run(operator: Operator, api: KubeApi, stop: asyncio.Event) -> None:
    tasks = [asyncio.create_task(part) for part in operator.parts(api)]
    try:
        await _follow_signals(operator, stop, tasks)
        log.info("operator.runs", namespaces=list(operator.namespaces))
        if await _first(asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED), stop):
            for task in tasks:
                if task.done():
                    task.result()
            raise Unavailable("a part of the operator has ended")
        log.info("operator.stops")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(operator.brain.settled(), _PAUSE_SECONDS * 10)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow_signals(operator: Operator, stop: asyncio.Event, tasks: "Sequence[asyncio.Task[None]]") -> None:
    """Take the signals back from Kopf, whose way to stop would wait five seconds."""
    following = asyncio.create_task(operator.following.wait())
    await asyncio.wait([following, *tasks], return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    _stop_on_signals(stop)


def _stop_on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _first(work: "Coroutine[Any, Any, Any] | asyncio.Task[Any]", stop: asyncio.Event) -> bool:
    """Wait for some work or the signal; True if the work is done. The work is cancelled if the signal came first."""
    working = work if isinstance(work, asyncio.Task) else asyncio.create_task(work)
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not working.done():
        working.cancel()
        return False
    return True


async def _open_port(settings: Settings, operator: Operator, stack: AsyncExitStack) -> None:
    if settings.metrics is None:
        return
    host, _, port = settings.metrics.rpartition(":")

    def ready() -> str | None:
        return None if operator.following.is_set() else "does not follow the API server yet"

    try:
        private = await PrivatePort.start(host.strip("[]"), int(port), registry=new_registry(), ready=ready)
    except OSError as error:
        raise Unavailable(f"cannot listen on {settings.metrics}: {error.strerror}") from None
    stack.push_async_callback(private.stop)
    log.info("operator.private_port", port=private.port)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the operator with these flags (None: those of the process); return the exit status."""
    return run_server("lablease operator", argv, Settings, serve)


if __name__ == "__main__":
    sys.exit(main())
