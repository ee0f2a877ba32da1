"""The driver host of a lease session: one process after another if it crashes, the same session to its client."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog

from lablease.driver import control
from lablease.driver.logring import LogSource
from lablease.driver.session import Status
from lablease.exporter_agent.backoff import delay_seconds
from lablease.exporter_agent.errors import HostFailed
from lablease.exporter_agent.hosts import DriverHost, Hosts, describe_exit

log = structlog.get_logger()

BUILD_SECONDS: Final = 300.0
"""Constructors of drivers may wait for devices; clients wait this long for LEASE_READY."""


class SessionHost:
    """Keeps a host running for one lease.

    ``served`` is set while the session's sockets are served. A host that ends by itself costs one restart: drivers keep
    their ids, clients reconnect through new tunnels. More than ``max_failures`` within ``window_seconds`` of each other
    are given up: the session then stays without a host until its lease ends.
    """

    def __init__(
        self,
        hosts: Hosts,
        *,
        on_event: Callable[[control.EndSession | control.StatusRead], None],
        max_failures: int,
        window_seconds: float,
    ) -> None:
        self.served = asyncio.Event()
        self.reports: list[control.ReportEntry] = []
        self._hosts = hosts
        self._on_event = on_event
        self._max_failures = max_failures
        self._window_seconds = window_seconds
        self._host: DriverHost | None = None
        self._order: control.Build | None = None
        self._status = control.SetStatus(status=int(Status.AVAILABLE), version=0)
        self._guard: asyncio.Task[None] | None = None

    async def build(self, order: control.Build) -> str:
        """Build the tree and serve it; returns what is wrong with the tree, empty for nothing.

        With a wrong tree an empty one is served, so that clients can read why.
        """
        self._order = order
        failures = 0
        while True:
            try:
                problem = await self._start()
                self._guard = asyncio.ensure_future(self._watch())
                return problem
            except HostFailed as error:
                failures += 1
                log.error("host.failed", problem=str(error), attempt=failures)
                if failures >= self._max_failures:
                    return str(error)
                await asyncio.sleep(delay_seconds(failures, random.random()))

    def show(self, status: Status, message: str) -> None:
        """Set what GetStatus answers; the version grows, also across restarts of the host."""
        old = self._status
        self._status = control.SetStatus(
            status=int(status), message=message, version=old.version + 1, previous=old.status
        )
        self.send(self._status)

    def identify(self, identity: control.Identity) -> None:
        """Change whom the session serves."""
        if self._order is not None:
            self._order = self._order.model_copy(update={"identity": identity})
        self.send(identity)

    def tell(self, severity: str, source: LogSource, message: str) -> None:
        """Put a line into the session's log."""
        self.send(control.AddLog(severity=severity, source=int(source), message=message))

    def send(self, message: control.ToHost) -> None:
        """Send an order; without a host it is lost, except for status and identity, which a new host gets."""
        if self._host is not None:
            self._host.send(message)

    async def close(self) -> None:
        """Let the drivers close; returns when no process of the session lives."""
        self.served.clear()
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.gather(self._guard, return_exceptions=True)
        if self._host is not None:
            await self._host.shut_down()
            self._host = None

    async def _start(self) -> str:
        """Take a host, build, serve. Raises HostFailed, and HostFailed only with nothing left running."""
        order = self._order
        if order is None:
            raise HostFailed("there is nothing to build yet")
        host = self._host = await self._hosts.take()
        try:
            host.on_event = self._on_event
            host.send(order)
            built = await host.answer(control.Built, BUILD_SECONDS)
        except HostFailed:
            await host.kill()
            self._host = None
            raise
        self.reports = built.reports
        if self._status.version:
            host.send(self._status)
        self.served.set()
        return built.error

    async def _watch(self) -> None:
        """Start the next host when one has ended by itself."""
        loop = asyncio.get_running_loop()
        failures, started = 0, loop.time()
        while self._host is not None and failures < self._max_failures:
            code = await self._host.exit_code()
            self.served.clear()
            log.error("host.crashed", exit=describe_exit(code))
            await self._host.kill()
            self._host = None
            failures = failures + 1 if loop.time() - started < self._window_seconds else 1
            while self._host is None and failures < self._max_failures:
                await asyncio.sleep(delay_seconds(failures, random.random()))
                started = loop.time()
                try:
                    await self._start()
                except HostFailed as error:
                    failures += 1
                    log.error("host.failed", problem=str(error), attempt=failures)
                else:
                    self.tell("ERROR", LogSource.SYSTEM, f"driver host ended with {describe_exit(code)}: started anew")
        log.error("host.given_up", failures=failures)
