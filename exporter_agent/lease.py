"""One lease, from the grant to the moment when no process of it lives."""

import asyncio
import os
import random
import tempfile
from collections.abc import Callable, Coroutine
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol, TypeVar

import grpc.aio
import structlog

from lablease.driver import control
from lablease.driver.logring import LogSource
from lablease.driver.session import FAILED, Status
from lablease.exporter_agent.backoff import delay_seconds
from lablease.exporter_agent.channels import Channels
from lablease.exporter_agent.config import ExporterConfig, Hook
from lablease.exporter_agent.controller import Controller, Refused, describe
from lablease.exporter_agent.errors import ChannelProblem
from lablease.exporter_agent.hooks import HookRun, environment
from lablease.exporter_agent.hosts import Hosts
from lablease.exporter_agent.reports import Report
from lablease.exporter_agent.sessionhost import SessionHost
from lablease.exporter_agent.state import Event, Held, Phase, step
from lablease.exporter_agent.tunnels import Tunnels

Result = TypeVar("Result")

log = structlog.get_logger()

READ_GRACE_SECONDS: Final = 10.0
"""How long a failed status waits to be read by a client: one that asks for its lease every 5 s has come by then."""

SHOWN_SECONDS: Final = 1.0
"""How long a last status stays readable through the tunnel: stock clients look every 0.5 s."""

RELEASE_SECONDS: Final = 15.0
"""After an acknowledged release the controller says "not leased" within this time, or the agent ends the lease alone."""

STOP_SECONDS: Final = 5.0
"""How long a stopping agent tries to give a lease back."""

CLOCK_STEP_SECONDS: Final = 30.0
"""The longest sleep towards the planned end, so that a clock that was set is noticed."""


class Ending(StrEnum):
    """Why a lease ended."""

    TOLD = "told"
    EXPIRED = "expired"
    RELEASED = "released"
    STOPPING = "stopping"


class Reporter(Protocol):
    """Takes status reports for the controller, in order."""

    def __call__(self, report: Report, /) -> None: ...


class LeaseSession:
    """Serves one grant. ``run`` does everything; the other methods tell it what happened outside.

    After ``run``: ``ending`` says why, ``stop_agent`` is True when a hook wants the agent to stop, and ``released`` is
    True when the lease was given back by this agent.
    """

    def __init__(
        self,
        held: Held,
        *,
        config: ExporterConfig,
        exporter_uuid: str,
        hosts: Hosts,
        channels: Channels,
        controller: Controller,
        report: Reporter,
        now: Callable[[], datetime],
        directory: Path,
    ) -> None:
        self.held = held
        self.phase = Phase.IDLE
        self.ending: Ending | None = None
        self.stop_agent = False
        self.released = False
        self._config = config
        self._exporter_uuid = exporter_uuid
        self._hosts = hosts
        self._channels = channels
        self._controller = controller
        self._report_to = report
        self._now = now
        self._log = log.bind(lease=held.lease, grant=held.grant, client=held.client)
        self._directory = Path(tempfile.mkdtemp(prefix="lease-", dir=directory))
        self._over = asyncio.Event()
        self._end_asked = asyncio.Event()
        self._skip_hook = False
        self._status_read = asyncio.Event()
        self._host = SessionHost(
            hosts,
            on_event=self._on_event,
            max_failures=config.failure_detection.max_rapid_failures,
            window_seconds=config.failure_detection.rapid_failure_window,
        )
        self._tunnels = Tunnels(channels, self._socket("session"), self._host.served.wait)
        self._moved = asyncio.Event()
        self._runs: list[HookRun] = []
        self._tasks: list[asyncio.Task[None]] = []

    # what happens outside

    def end(self, why: Ending) -> None:
        """The lease is over: nobody is served from this moment on. Idempotent."""
        if self.ending is None:
            self.ending = why
            self._log.info("lease.ended", reason=why, phase=self.phase)
            self._tunnels.cut()
            self._over.set()
        if why is Ending.STOPPING:
            self._end_asked.set()

    def hurry(self) -> None:
        """Do not run the afterLease hook, and end one that runs."""
        self._skip_hook = True
        self._tasks.extend(asyncio.ensure_future(run.end()) for run in self._runs)

    def transfer(self, held: Held) -> None:
        """Serve another client under the same grant: what the old one has open ends."""
        self._log.info("lease.transferred", to=held.client)
        self.held = held
        self._tunnels.cut()
        self._host.identify(self._identity())
        self._log = self._log.bind(client=held.client)

    def retime(self, held: Held) -> None:
        """The planned end has moved."""
        self._log.info("lease.retimed", planned_end=str(held.planned_end))
        self.held = held
        self._moved.set()

    # the life of a lease

    async def run(self) -> None:
        """Serve the lease; returns when no process of it lives."""
        self._step(Event.GRANTED)
        self._tasks.append(asyncio.ensure_future(self._expire()))
        try:
            await self._serve()
        finally:
            await self._clean()

    async def _serve(self) -> None:
        before = self._config.hooks.before_lease
        if before is not None:
            self._report(Status.BEFORE_LEASE_HOOK, "Running beforeLease hook")
        problem = await self._until_over(self._host.build(self._order()))
        if problem is None:
            self._step(Event.LEFT)
            return
        self._tasks.append(asyncio.ensure_future(self._listen()))
        if problem:
            await self._fail(f"drivers could not be built: {problem}", "endLease", before is not None)
            return
        self._step(Event.BUILT)
        warning = ""
        if before is not None:
            self._show(Status.BEFORE_LEASE_HOOK, "Running beforeLease hook")
            problem = await self._until_over(self._run_hook(before, LogSource.BEFORE_LEASE_HOOK))
            if problem and before.on_failure != "warn":
                await self._fail(f"beforeLease hook {problem}", before.on_failure, reported=True)
                return
            warning = f"[HOOK_WARNING] beforeLease hook warning: {problem}" if problem else ""
        if not self._over.is_set():
            self._step(Event.PREPARED)
            self._show(Status.LEASE_READY, warning or "Ready for commands")
            self._report(Status.LEASE_READY, warning or "Ready for commands")
            self._hosts.refill()
            await self._until_over(self._end_asked.wait())
        await self._finish()

    async def _finish(self) -> None:
        """Run the afterLease hook if there is one; then wait for the end of the lease."""
        self._step(Event.FINISHING)
        after = None if self._skip_hook else self._config.hooks.after_lease
        problem = ""
        if after is not None and self.held.client:
            self._show(Status.AFTER_LEASE_HOOK, "Running afterLease hook")
            self._report(Status.AFTER_LEASE_HOOK, "Running afterLease hook")
            problem = await self._run_hook(after, LogSource.AFTER_LEASE_HOOK)
        if after is not None and problem and after.on_failure != "warn":
            self._step(Event.FAILED)
            await self._show_failure(Status.AFTER_LEASE_HOOK_FAILED, f"afterLease hook {problem}")
            self._answer(f"afterLease hook {problem}", success=False)
            self.stop_agent = after.on_failure == "exit"
        else:
            self._step(Event.FINISHED)
            warning = f"[HOOK_WARNING] afterLease hook warning: {problem}" if problem else ""
            self._show(Status.AVAILABLE, warning or "Available for new lease")
            self._answer(warning or "session ended", success=True)
        if after is not None:
            await self._until_over(asyncio.sleep(SHOWN_SECONDS))
            await self._release()
        await self._over.wait()
        self._step(Event.LEFT)

    async def _fail(self, problem: str, on_failure: str, reported: bool) -> None:
        """Show why the lease cannot be served, give it back, and wait for its end."""
        self._log.error("lease.failed", problem=problem)
        if not reported:
            self._report(Status.BEFORE_LEASE_HOOK, "Preparing")  # a status in which the controller lets the client in
        self._step(Event.FAILED)
        await self._show_failure(Status.BEFORE_LEASE_HOOK_FAILED, problem)
        self.stop_agent = on_failure == "exit"
        await self._release()
        await self._over.wait()
        self._step(Event.LEFT)

    async def _show_failure(self, status: Status, problem: str) -> None:
        """Keep a failed status readable until a client has read it, then tell the controller."""
        self._status_read.clear()
        self._show(status, problem)
        self._host.tell("ERROR", LogSource.SYSTEM, problem)
        try:
            await asyncio.wait_for(self._until_over(self._status_read.wait()), READ_GRACE_SECONDS)
        except TimeoutError:
            self._log.info("lease.failure_unread", seconds=READ_GRACE_SECONDS)
        else:
            await self._until_over(asyncio.sleep(SHOWN_SECONDS))
        self._report(status, problem)

    async def _release(self) -> None:
        """Give the lease back, and see to it that it ends."""
        if self.ending in (Ending.TOLD, Ending.EXPIRED):
            return
        self.released = True
        seconds = STOP_SECONDS if self.ending is Ending.STOPPING else None
        try:
            await asyncio.wait_for(self._controller.release(self.held), seconds)
            await asyncio.wait_for(self._over.wait(), RELEASE_SECONDS)
        except Refused as error:
            self._log.warning("lease.release_refused", problem=str(error))
        except TimeoutError:
            self._log.warning("lease.release_unconfirmed")
        self.end(Ending.RELEASED)

    async def _clean(self) -> None:
        """Nothing of the grant lives when this returns."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._tunnels.close()
        await asyncio.gather(*(run.end() for run in self._runs))
        await self._host.close()
        for name in os.listdir(self._directory):
            (self._directory / name).unlink()
        self._directory.rmdir()
        self._step(Event.CLEAN)

    # hooks

    async def _run_hook(self, hook: Hook, source: LogSource) -> str:
        """Run a hook; returns what went wrong, empty for nothing."""

        def tell(line: str) -> None:
            self._host.tell("INFO", source, line)
            self._log.info("hook.output", hook=source.name.lower(), line=line)

        env = environment(os.environ, socket_path=self._socket("hooks"), lease=self.held.lease, client=self.held.client)
        run = HookRun(hook, env, tell)
        self._runs.append(run)
        result = await run.run()
        return result.problem

    # controller and clients

    async def _listen(self) -> None:
        """Join every tunnel that the controller announces, for as long as the lease lasts."""
        failures = 0
        while True:
            try:
                async for endpoint, token in self._controller.listen(self.held.lease):
                    failures = 0
                    self._tunnels.join(endpoint, token)
            except (grpc.aio.AioRpcError, ChannelProblem) as error:
                self._log.warning("listen.lost", problem=describe(error))
                await self._controller.recover(error)
            failures += 1
            await asyncio.sleep(delay_seconds(failures, random.random()))

    async def _expire(self) -> None:
        """End the lease at its planned end, whoever can be reached."""
        while True:
            self._moved.clear()
            end = self.held.planned_end
            left = CLOCK_STEP_SECONDS if end is None else (end - self._now()).total_seconds()
            if left <= 0:
                self.end(Ending.EXPIRED)
                return
            try:
                await asyncio.wait_for(self._moved.wait(), min(left, CLOCK_STEP_SECONDS))
            except TimeoutError:
                continue

    def _on_event(self, event: control.EndSession | control.StatusRead) -> None:
        if isinstance(event, control.StatusRead):
            if Status(event.status) in FAILED:
                self._status_read.set()
        elif self.phase in (Phase.BEFORE_FAILED, Phase.AFTER_FAILED, Phase.DONE):
            self._answer("session has ended", success=True)
        else:
            self._log.info("session.end_asked")
            self._end_asked.set()

    def _answer(self, message: str, *, success: bool) -> None:
        self._host.send(control.SessionEnded(success=success, message=message))

    def _show(self, status: Status, message: str) -> None:
        self._host.show(status, message)

    def _report(self, status: Status, message: str) -> None:
        self._report_to(Report(status, message, self.held.grant))

    # small parts

    async def _until_over(self, work: Coroutine[object, object, Result]) -> Result | None:
        """Await ``work``, but no longer than the lease: then it is cancelled, and None is returned."""
        task = asyncio.ensure_future(work)
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({task, over}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            over.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _step(self, event: Event) -> None:
        self.phase = step(self.phase, event)

    def _socket(self, name: str) -> str:
        return str(self._directory / name)

    def _identity(self) -> control.Identity:
        return control.Identity(lease=self.held.lease, client=self.held.client, grant=self.held.grant)

    def _order(self) -> control.Build:
        config = self._config
        return control.Build(
            exporter=config.metadata.name,
            exporter_uuid=self._exporter_uuid,
            description=config.description,
            motd=config.motd or "",
            export=config.export,
            main_socket=self._socket("session"),
            hook_socket=self._socket("hooks"),
            identity=self._identity(),
        )
