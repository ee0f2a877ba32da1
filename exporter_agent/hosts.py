"""Driver hosts as the agent sees them, and the warm spare."""

import asyncio
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

import lablease.driver
from lablease.driver import control
from lablease.exporter_agent.errors import HostFailed
from lablease.exporter_agent.processes import Supervised

Wanted = TypeVar("Wanted", control.Ready, control.Classified, control.Built)

log = structlog.get_logger()

START_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 8.0
"""Longer than the host gives its drivers to close."""

GRACE_SECONDS: Final = 2.0
NATIVE_MODULE: Final = "lablease.driver.host"
UPSTREAM_SCRIPT: Final = Path(lablease.driver.__file__).with_name("upstream_host.py")


@dataclass(frozen=True, slots=True)
class HostKind:
    """How to start a host: ``command`` without its control descriptor; ``types`` are imported while it waits."""

    name: str
    command: tuple[str, ...]
    types: tuple[str, ...] = ()


def native_kind(types: tuple[str, ...] = ()) -> HostKind:
    """Host of native drivers."""
    return HostKind("native", (sys.executable, "-m", NATIVE_MODULE), types)


def upstream_kind(python: str, types: tuple[str, ...] = ()) -> HostKind:
    """Host of upstream driver packages, run by path so that ``python`` needs to have nothing of ours installed."""
    return HostKind("upstream", (python, str(UPSTREAM_SCRIPT)), types)


class DriverHost:
    """One host process.

    ``on_event`` is told EndSession and StatusRead. ``gone`` is set when the process has ended for whatever reason.
    """

    def __init__(self, process: Supervised, channel: control.Channel) -> None:
        self._process = process
        self._channel = channel
        self._answers: asyncio.Queue[control.ToAgent] = asyncio.Queue()
        self.on_event: Callable[[control.EndSession | control.StatusRead], None] | None = None
        self.gone = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, kind: HostKind) -> "DriverHost":
        """Start a host and wait until it is ready to build.

        Raises:
            HostFailed: it ended, or was not ready in time.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            command = (*kind.command, "--control-fd", str(fd))
            process = await Supervised.start(command, grace_seconds=GRACE_SECONDS, pass_fds=(fd,))
        host = cls(process, await control.Channel.open(ours))
        try:
            await host.answer(control.Ready, START_SECONDS)
        except BaseException:
            await host.kill()
            raise
        if kind.types:
            host.send(control.Preload(types=list(kind.types)))
        return host

    def send(self, message: control.ToHost) -> None:
        """Send an order; to a host that is gone it is lost."""
        self._channel.send(message)

    async def answer(self, kind: type[Wanted], seconds: float | None) -> Wanted:
        """Return the next answer, which must be of ``kind``. Raises HostFailed."""
        waiting = asyncio.ensure_future(self._answers.get())
        leaving = asyncio.ensure_future(self.gone.wait())
        try:
            await asyncio.wait({waiting, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done() and isinstance(found := waiting.result(), kind):
                return found
            if self.gone.is_set():
                raise HostFailed(f"driver host ended with {describe_exit(await self._process.code)}")
            raise HostFailed(
                f"driver host did not answer within {seconds:g} s" if seconds else "driver host is confused"
            )
        finally:
            waiting.cancel()
            leaving.cancel()

    async def exit_code(self) -> int:
        """Wait for the end of the process; negative for a signal."""
        return await asyncio.shield(self._process.code)

    async def shut_down(self) -> None:
        """Let the drivers close, then see to it that nothing lives: returns only then."""
        self.send(control.Shutdown())
        try:
            await asyncio.wait_for(asyncio.shield(self._process.code), CLOSE_SECONDS)
        except TimeoutError:
            log.warning("host.close_slow", seconds=CLOSE_SECONDS)
        await self.kill()

    async def kill(self) -> None:
        """Kill the process and every descendant; returns when none lives."""
        await self._process.end()
        self._reading.cancel()
        self._channel.close()
        self.gone.set()

    async def _read(self) -> None:
        try:
            while True:
                message = await self._channel.receive_at_agent()
                if isinstance(message, control.EndSession | control.StatusRead):
                    if self.on_event is not None:
                        self.on_event(message)
                else:
                    self._answers.put_nowait(message)
        except control.ControlLost:
            self.gone.set()


def describe_exit(code: int) -> str:
    """Return words for an exit status."""
    return f"signal {-code}" if code < 0 else f"status {code}"


class Hosts:
    """Hands out hosts; keeps one warm spare ready."""

    def __init__(self, kind: HostKind) -> None:
        self._kind = kind
        self._spare: asyncio.Task[DriverHost] | None = None

    async def take(self) -> DriverHost:
        """Return a host that is ready to build: the spare if it lives, else a new one. Raises HostFailed."""
        spare, self._spare = self._spare, None
        if spare is not None:
            try:
                host = await spare
            except HostFailed as error:
                log.warning("host.spare_failed", problem=str(error))
            else:
                if not host.gone.is_set():
                    return host
                await host.kill()
        return await DriverHost.start(self._kind)

    def refill(self) -> None:
        """Start a spare in the background unless there is one."""
        if self._spare is None:
            self._spare = asyncio.ensure_future(DriverHost.start(self._kind))

    async def close(self) -> None:
        """End the spare."""
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.cancel()
            try:
                host = await spare
            except (HostFailed, asyncio.CancelledError):
                return
            await host.kill()


def choose_python(configured: str | None, env: Mapping[str, str]) -> str:
    """Return the interpreter for upstream driver packages."""
    return configured or env.get("LABLEASE_DRIVER_PYTHON") or sys.executable
