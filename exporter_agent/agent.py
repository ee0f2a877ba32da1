"""The agent: registers, holds Status, serves one lease at a time, reports."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar, cast

import grpc
import grpc.aio
import structlog

from lablease.driver import control
from lablease.driver.session import Status
from lablease.exporter_agent.backoff import delay_seconds
from lablease.exporter_agent.channels import Channels
from lablease.exporter_agent.config import ExporterConfig
from lablease.exporter_agent.controller import STABLE_SECONDS, Controller, Refused, describe
from lablease.exporter_agent.errors import ChannelProblem, ConfigProblem
from lablease.exporter_agent.hosts import Hosts
from lablease.exporter_agent.lease import Ending, LeaseSession
from lablease.exporter_agent.reports import Report, enqueue
from lablease.exporter_agent.sessionhost import SessionHost
from lablease.exporter_agent.state import Held, Move, Told, react

Result = TypeVar("Result")

log = structlog.get_logger()

GOODBYE_SECONDS: Final = 10.0
REGISTER_AGAIN_SECONDS: Final = 60.0
"""After a longer time without a controller the exporter registers again: it may be another one, or restored."""


class StopMode(StrEnum):
    """How the agent is asked to stop."""

    AFTER_LEASE = "after-lease"
    NOW = "now"


class Agent:
    """One exporter.

    Args:
        exporter_uuid: id of this process in GetReport.
        directory: private directory for sockets, mode 0700.
    """

    def __init__(
        self,
        *,
        config: ExporterConfig,
        exporter_uuid: str,
        hosts: Hosts,
        channels: Channels,
        controller: Controller,
        now: Callable[[], datetime],
        directory: Path,
    ) -> None:
        self._config = config
        self._exporter_uuid = exporter_uuid
        self._hosts = hosts
        self._channels = channels
        self._controller = controller
        self._now = now
        self._directory = directory
        self._labels: Mapping[str, str] = {}
        self._devices: list[control.ReportEntry] = []
        self._wanted: Held | None = None
        self._changed = asyncio.Event()
        self._session: LeaseSession | None = None
        self._closed: Held | None = None
        self._highest_grant = 0
        self._pending: tuple[Report, ...] = ()
        self._reports = asyncio.Event()
        self._stop: StopMode | None = None
        self._failed = False

    @property
    def devices(self) -> int:
        """Number of drivers, known after ``run`` has built the tree once."""
        return len(self._devices)

    def stop(self, mode: StopMode) -> None:
        """Stop: after the lease that is served, or now. A second NOW does not wait for the afterLease hook."""
        if self._session is not None and mode is StopMode.NOW:
            if self._stop is StopMode.NOW:
                self._session.hurry()
            self._session.end(Ending.STOPPING)
        log.info("agent.stopping", mode=mode)
        self._stop = mode if self._stop is not StopMode.NOW else StopMode.NOW
        self._changed.set()

    async def run(self) -> bool:
        """Serve until told to stop; True when nothing failed.

        Raises:
            ConfigProblem: the configured drivers cannot be built.
        """
        await self._inspect()
        self._hosts.refill()
        tasks = [asyncio.ensure_future(self._follow()), asyncio.ensure_future(self._deliver())]
        try:
            await self._serve_leases(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._hosts.close()
        await self._leave()
        return not self._failed

    async def _inspect(self) -> None:
        """Build the tree once: its drivers are what is registered, and a configuration that cannot work shows now."""
        host = SessionHost(
            self._hosts,
            on_event=lambda _event: None,
            max_failures=self._config.failure_detection.max_rapid_failures,
            window_seconds=self._config.failure_detection.rapid_failure_window,
        )
        try:
            problem = await host.build(
                control.Build(
                    exporter=self._config.metadata.name,
                    exporter_uuid=self._exporter_uuid,
                    description=self._config.description,
                    export=self._config.export,
                    main_socket=str(self._directory / "inspect"),
                    hook_socket=str(self._directory / "inspect-hooks"),
                    identity=control.Identity(),
                )
            )
            if problem:
                raise ConfigProblem(problem)
            self._devices = host.reports
        finally:
            await host.close()
        log.info("agent.drivers", count=len(self._devices) - 1)

    # what the controller says

    async def _follow(self) -> None:
        """Hold Status for ever; register first, and again when the controller may have forgotten us."""
        loop = asyncio.get_running_loop()
        failures, lost_at = 0, -REGISTER_AGAIN_SECONDS
        register = True
        while True:
            if register or loop.time() - lost_at > REGISTER_AGAIN_SECONDS:
                await self._register()
                register, lost_at = False, loop.time()
            began = loop.time()
            try:
                async for told in self._controller.status():
                    failures = 0
                    self._hear(told)
                log.info("status.ended")
            except (grpc.aio.AioRpcError, ChannelProblem) as error:
                log.warning("status.lost", problem=describe(error))
                register = isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.NOT_FOUND
                await self._controller.recover(error)
            if loop.time() - began > STABLE_SECONDS:
                failures, lost_at = 0, loop.time()
            failures += 1
            await asyncio.sleep(delay_seconds(failures, random.random()))

    async def _register(self) -> None:
        failures = 0
        while True:
            try:
                await self._controller.register(dict(self._labels), self._devices)
            except Refused as error:
                failures += 1
                log.error("agent.register_refused", problem=str(error), attempt=failures)
                await asyncio.sleep(delay_seconds(failures, random.random(), limit=30.0))
            else:
                break
        log.info("agent.registered", endpoint=self._controller.endpoint)
        if self._session is None:
            self._report(Report(Status.AVAILABLE, "Exporter registered and available"))

    def _hear(self, told: Told) -> None:
        session = self._session
        current = session.held if session is not None and session.ending is None else self._wanted
        closed = (_closed_by(session) if session is not None else None) or self._closed
        move = react(current, closed, self._highest_grant, told, self._now())
        held = told.held
        match move:
            case Move.NOTHING:
                return
            case Move.END:
                self._wanted = None
                if session is not None:
                    session.end(Ending.TOLD)
            case Move.START | Move.REPLACE if held is not None:
                if session is not None:
                    session.end(Ending.TOLD)
                self._wanted = held
                self._highest_grant = max(self._highest_grant, held.grant)
            case _ if held is not None:
                self._adjust(move, held)
            case _:
                return
        self._changed.set()

    def _adjust(self, move: Move, held: Held) -> None:
        if self._session is None or self._session.ending is not None:
            self._wanted = held
        elif move is Move.TRANSFER:
            self._session.transfer(held)
        else:
            self._session.retime(held)

    # leases

    async def _serve_leases(self, tasks: Sequence["asyncio.Future[None]"]) -> None:
        """Serve one lease after the other; the next begins only when no process of the last one lives."""
        while self._stop is None:
            if self._wanted is not None:
                held, self._wanted = self._wanted, None
                await self._serve(held, tasks)
                if self._config.exit_on_lease_end:
                    self._stop = self._stop or StopMode.AFTER_LEASE
                continue
            self._changed.clear()
            await self._first(asyncio.ensure_future(self._changed.wait()), tasks)

    async def _serve(self, held: Held, tasks: Sequence["asyncio.Future[None]"]) -> None:
        session = self._session = LeaseSession(
            held,
            config=self._config,
            exporter_uuid=self._exporter_uuid,
            hosts=self._hosts,
            channels=self._channels,
            controller=self._controller,
            report=self._report,
            now=self._now,
            directory=self._directory,
        )
        log.info("lease.started", lease=held.lease, grant=held.grant, client=held.client, until=str(held.planned_end))
        running = asyncio.ensure_future(session.run())
        try:
            await self._first(running, tasks)
        finally:
            if not running.done():
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
        self._session = None
        self._closed = _closed_by(session) or self._closed
        if session.stop_agent:
            self._failed = True
            self._stop = self._stop or StopMode.AFTER_LEASE
        if self._stop is None:
            self._report(Report(Status.AVAILABLE, "Available for new lease", held.grant))
        self._hosts.refill()

    async def _first(self, wanted: "asyncio.Future[Result]", tasks: Sequence["asyncio.Future[None]"]) -> None:
        """Wait for ``wanted``; a background task that ends first is a defect, and its error is raised."""
        everything = {cast("asyncio.Future[object]", task) for task in (wanted, *tasks)}
        await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                wanted.cancel()
                task.result()
        if wanted.done():
            wanted.result()

    # reports

    def _report(self, report: Report) -> None:
        self._pending = enqueue(self._pending, report)
        self._reports.set()

    async def _deliver(self) -> None:
        """Send reports one after the other; one that cannot be sent now holds up the others."""
        while True:
            while self._pending:
                first = self._pending[0]
                try:
                    await self._controller.report(first)
                except Refused as error:
                    log.warning("report.refused", status=first.status.name, problem=str(error))
                self._pending = tuple(report for report in self._pending if report is not first)
            self._reports.clear()
            await self._reports.wait()

    async def _leave(self) -> None:
        """Tell the controller that the exporter goes away."""
        report = Report(Status.OFFLINE, "Exporter shutting down", self._highest_grant)
        try:
            await asyncio.wait_for(self._controller.goodbye(report, "Exporter shutdown"), GOODBYE_SECONDS)
        except (grpc.aio.AioRpcError, ChannelProblem) as error:
            log.warning("agent.goodbye_failed", problem=describe(error))
            self._failed = True
        except TimeoutError:
            log.warning("agent.goodbye_failed", problem=f"no answer within {GOODBYE_SECONDS:g} s")
            self._failed = True
        else:
            log.info("agent.unregistered")


def _closed_by(session: LeaseSession) -> Held | None:
    """Return the lease that a session ends by itself, as far as only an extension may bring it back."""
    if session.ending not in (Ending.EXPIRED, Ending.RELEASED):
        return None
    return replace(session.held, planned_end=None if session.released else session.held.planned_end)
