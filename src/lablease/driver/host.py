"""The driver host: one process per lease session. Builds the tree, serves it, and leaves.

Started by the agent under ``supervisor.py``; takes orders over the socket pair whose number is in ``--control-fd``.
A host waits as a warm spare, everything imported and nothing built, until it is told to build.
"""

import argparse
import asyncio
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NoReturn, Protocol, TypeVar

import grpc.aio

from lablease.driver import control
from lablease.driver.base import DriverConfigError, LeaseHolder, LeaseInfo
from lablease.driver.config import Entry
from lablease.driver.exporter_service import ExporterService
from lablease.driver.faults import details
from lablease.driver.logring import LogLine, LogRing, LogSource
from lablease.driver.messages import jumpstarter_pb2_grpc
from lablease.driver.router_service import RouterService
from lablease.driver.session import EndAnswer, Session, Status, StatusView
from lablease.driver.tree import Tree

logger = logging.getLogger("lablease.driver.host")

THREADS: Final = 40
"""Driver methods that may block at the same time."""

END_SESSION_SECONDS: Final = 4.0
"""EndSession answers within this time: clients of 0.9.0 wait 5 s."""

CLOSE_SECONDS: Final = 5.0
_STOP_GRACE_SECONDS: Final = 0.2


Result = TypeVar("Result")


class Builder(Protocol):
    """Makes the tree of one kind of drivers."""

    def __call__(
        self, exporter: str, export: Mapping[str, Entry], holder: LeaseHolder, description: str | None, /
    ) -> Tree: ...


class RingHandler(logging.Handler):
    """Puts log records of this process into the session's log; loggers below ``driver`` are the drivers'."""

    def __init__(self, ring: LogRing) -> None:
        super().__init__()
        self._ring = ring

    def emit(self, record: logging.LogRecord) -> None:
        source = LogSource.DRIVER if f"{record.name}.".startswith("driver.") else LogSource.SYSTEM
        self._ring.append(LogLine(record.levelname, source, self.format(record)))


class Host:
    """One host process.

    Args:
        build: makes the tree.
        is_native: tells whether a class path names a driver of the kind that ``build`` takes.
        on_loop: build and close the drivers on the event loop instead of in a thread.
    """

    def __init__(
        self, channel: control.Channel, build: Builder, is_native: Callable[[str], bool], *, on_loop: bool
    ) -> None:
        self._channel = channel
        self._build = build
        self._is_native = is_native
        self._on_loop = on_loop
        self._session: Session | None = None
        self._servers: list[grpc.aio.Server] = []
        self._ended: asyncio.Future[EndAnswer] | None = None
        self._orders: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until the agent says so or is gone."""
        self._channel.send(control.Ready())
        self._orders = asyncio.ensure_future(self._take_orders())
        await asyncio.wait({self._orders})
        if not self._orders.cancelled():
            self._orders.result()
        await self._close()

    def leave(self) -> None:
        """Take no more orders, close the drivers, and end ``run``."""
        if self._orders is not None:
            self._orders.cancel()

    async def _take_orders(self) -> None:
        try:
            while not isinstance(message := await self._channel.receive_at_host(), control.Shutdown):
                await self._obey(message)
        except control.ControlLost:
            logger.warning("agent is gone: closing the drivers")

    async def _obey(self, message: control.ToHost) -> None:
        match message:
            case control.Preload():
                await asyncio.to_thread(_preload, message.types)
            case control.Classify():
                native = [name for name in message.types if self._is_native(name)]
                self._channel.send(control.Classified(native=native))
            case control.Build():
                self._channel.send(await self._serve(message))
            case control.SessionEnded():
                if self._ended is not None and not self._ended.done():
                    self._ended.set_result(EndAnswer(message.success, message.message))
            case _:
                if self._session is not None:
                    _update(self._session, message)

    async def _serve(self, order: control.Build) -> control.Built:
        who = order.identity
        holder = LeaseHolder(LeaseInfo(order.exporter, who.lease, who.client, who.grant))
        log = LogRing()
        logging.getLogger().addHandler(RingHandler(log))
        error = ""
        try:
            tree = await self._run(lambda: self._start(order, order.export, holder))
        except Exception as problem:  # code of a driver's author: the session must say what went wrong, not vanish
            error = details(problem)
            if not isinstance(problem, DriverConfigError):
                logger.exception("the driver tree could not be built")
            tree = await self._run(lambda: self._start(order, {}, holder))
        self._session = Session(
            tree=tree,
            exporter_uuid=order.exporter_uuid,
            labels=order.labels,
            motd=order.motd,
            log=log,
            holder=holder,
            end_session=self._end_session,
            status_read=lambda status: self._channel.send(control.StatusRead(status=status)),
        )
        await self._listen(self._session, order.main_socket, via_hook=False)
        await self._listen(self._session, order.hook_socket, via_hook=True)
        reports = [
            control.ReportEntry(
                uuid=report.uuid,
                parent_uuid=report.parent_uuid,
                labels=dict(report.labels),
                description=report.description,
                methods_description=dict(report.methods_description),
            )
            for report in tree.reports
        ]
        return control.Built(error=error, reports=reports)

    def _start(self, order: control.Build, export: Mapping[str, Entry], holder: LeaseHolder) -> Tree:
        tree = self._build(order.exporter, export, holder, order.description)
        try:
            tree.start()
            tree.reset()
        except BaseException:
            tree.close()
            raise
        return tree

    async def _listen(self, session: Session, path: str, *, via_hook: bool) -> None:
        server: grpc.aio.Server = grpc.aio.server()  # pyright: ignore[reportUnknownMemberType]
        jumpstarter_pb2_grpc.add_ExporterServiceServicer_to_server(ExporterService(session, via_hook=via_hook), server)
        server.add_generic_rpc_handlers((RouterService(session, via_hook=via_hook).handlers(),))  # pyright: ignore[reportUnknownMemberType]
        await asyncio.to_thread(Path(path).unlink, missing_ok=True)  # of a host that crashed
        server.add_insecure_port(f"unix://{path}")
        await server.start()
        self._servers.append(server)

    async def _end_session(self) -> EndAnswer:
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
            self._channel.send(control.EndSession())
        try:
            return await asyncio.wait_for(asyncio.shield(self._ended), END_SESSION_SECONDS)
        except TimeoutError:
            return EndAnswer(True, "the afterLease hook is still running; GetStatus tells when it is done")

    async def _close(self) -> None:
        session = self._session
        if session is None:
            return
        await session.close_streams()
        session.log.close()
        await asyncio.gather(*(server.stop(_STOP_GRACE_SECONDS) for server in self._servers))
        try:
            await asyncio.wait_for(self._run(session.tree.close), CLOSE_SECONDS)
        except TimeoutError:
            logger.error("drivers did not close within %s s", CLOSE_SECONDS)

    async def _run(self, work: Callable[[], Result]) -> Result:
        return work() if self._on_loop else await asyncio.to_thread(work)


def _update(session: Session, message: control.ToHost) -> None:
    match message:
        case control.SetStatus():
            previous = None if message.previous is None else Status(message.previous)
            session.set_status(StatusView(Status(message.status), message.message, message.version, previous))
        case control.Identity():
            exporter = session.holder.info.exporter
            session.holder.info = LeaseInfo(exporter, message.lease, message.client, message.grant)
        case control.AddLog():
            session.log.append(LogLine(message.severity, LogSource(message.source), message.message))
        case _:
            logger.error("unexpected order %s", message.op)


def _preload(types: list[str]) -> None:
    for dotted in types:
        try:
            importlib.import_module(dotted.rpartition(".")[0])
        except (ImportError, ValueError) as error:
            logger.info("preload of %s: %s", dotted, error)


async def serve(control_fd: int, build: Builder, is_native: Callable[[str], bool], *, on_loop: bool) -> None:
    """Run a host on the inherited socket pair."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="driver"))
    channel = await control.Channel.open(socket.socket(fileno=control_fd))
    host = Host(channel, build, is_native, on_loop=on_loop)
    loop.add_signal_handler(signal.SIGTERM, host.leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the agent, which ends hosts in order
    await host.run()


def run(build: Builder, is_native: Callable[[str], bool], *, on_loop: bool = False) -> NoReturn:
    """Entry point of a host process: serves, then ends the process with status 0."""
    parser = argparse.ArgumentParser(description="lablease driver host; started by the exporter agent")
    parser.add_argument("--control-fd", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(serve(options.control_fd, build, is_native, on_loop=on_loop))
    logging.shutdown()
    os._exit(0)  # the drivers are closed; taking the interpreter down would only keep the next lease waiting


def main() -> NoReturn:
    """Host of native drivers."""
    from lablease.driver import native

    def is_native(dotted: str) -> bool:
        try:
            native.load_class(dotted, "")
        except Exception:  # noqa: BLE001 - importing runs anything: whatever it raises, it is no native driver
            return False
        return True

    run(native.build, is_native)


if __name__ == "__main__":
    main()
