"""The client library without async: a lease, its drivers, and their methods as plain calls.

    with lease(selector="board=rpi4") as board:
        power = board.driver("power", PowerClient)
        board.run(power.on())

Everything runs in one event loop in a thread of its own; ``run`` hands it a coroutine and waits for the result.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from lablease.client.config import ClientConfig, choose_client
from lablease.client.connect import connect_exporter
from lablease.client.drivers import Client, driver
from lablease.client.frames import FrameStream
from lablease.client.lease import OnWait, borrow, hold, ignore_wait
from lablease.client.resources import LeaseInfo, LeaseRequest
from lablease.client.service import connect
from lablease.client.session import Session, open_session
from lablease.client.tree import DriverNode
from lablease.client.values import Json

T = TypeVar("T")


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lablease", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine; it is cancelled if the waiting is interrupted."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @contextmanager
    def entered(self, context: AbstractAsyncContextManager[T]) -> Generator[T]:
        """Enter an async context in the loop, and leave it there."""
        stack = AsyncExitStack()
        value = self.run(stack.enter_async_context(context))
        try:
            yield value
        finally:
            self.run(stack.aclose())

    def iterate(self, items: AsyncGenerator[T]) -> Iterator[T]:
        """Iterate over an async generator; leaving early closes it."""
        try:
            while True:
                try:
                    yield self.run(anext(items))
                except StopAsyncIteration:
                    return
        finally:
            self.run(items.aclose())

    def close(self) -> None:
        """Stop the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Stream:
    """A byte stream with blocking calls."""

    def __init__(self, thread: LoopThread, stream: FrameStream) -> None:
        self._thread = thread
        self._stream = stream

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._thread.run(self._stream.send(data))

    def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        self._thread.run(self._stream.send_eof())

    def receive(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        return self._thread.run(self._stream.receive())


class Board:
    """A leased exporter. ``info`` is None where there is no lease of ours: inside ``lablease shell``."""

    def __init__(self, thread: LoopThread, session: Session, info: LeaseInfo | None) -> None:
        self.thread = thread
        self.session = session
        self.info = info

    @property
    def root(self) -> DriverNode:
        """Return the driver tree."""
        return self.session.root

    def driver(self, path: str, kind: type[Client]) -> Client:
        """Return the client of the driver at a dotted path; give what its methods return to ``run``.

        Raises:
            NoSuchDriver: nothing is there, or it is of another kind.
        """
        return driver(self.session, path, kind)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for what a method of a driver client returned."""
        return self.thread.run(work)

    def iterate(self, items: AsyncGenerator[T]) -> Iterator[T]:
        """Iterate over what a method of a driver client yields."""
        return self.thread.iterate(items)

    def call(self, path: str, method: str, *args: object) -> Json:
        """Call any method of any driver by their names."""
        return self.run(self.session.call(self.root.find(path).uuid, method, *args))

    @contextmanager
    def stream(self, path: str, method: str = "connect") -> Generator[Stream]:
        """Open a byte stream of a driver."""
        with self.thread.entered(self.session.stream(self.root.find(path).uuid, method)) as stream:
            yield Stream(self.thread, stream)

    @contextmanager
    def entered(self, context: AbstractAsyncContextManager[T]) -> Generator[T]:
        """Enter an async context of a driver client, such as ``NetworkClient.forward_tcp``."""
        with self.thread.entered(context) as value:
            yield value


@contextmanager
def lease(
    selector: str = "",
    *,
    exporter_name: str = "",
    name: str | None = None,
    duration: timedelta = timedelta(minutes=30),
    tags: Mapping[str, str] | None = None,
    config: ClientConfig | None = None,
    on_wait: OnWait = ignore_wait,
) -> Generator[Board]:
    """Lease an exporter for the life of the context; with ``name`` use that lease and leave it alone.

    Raises:
        LeaseFailed, ExporterNotReady, ExporterUnreachable, ServiceError, ConfigError.
    """
    settings = config or choose_client()
    request = LeaseRequest(duration, selector, exporter_name, tags=dict(tags or {}))
    with _loop_thread() as thread, thread.entered(connect(settings)) as controller:
        holding = borrow(controller, name, on_wait) if name else hold(controller, request, on_wait)
        with thread.entered(holding) as held, thread.entered(connect_exporter(held)) as (session, _):
            try:
                yield Board(thread, session, held.info)
            finally:
                if held.mine:
                    thread.run(session.end())


@contextmanager
def here(host: str) -> Generator[Board]:
    """Use the exporter that JUMPSTARTER_HOST names, inside ``lablease shell`` or ``jmp shell``."""
    with _loop_thread() as thread, thread.entered(open_session(host)) as session:
        thread.run(session.load())
        yield Board(thread, session, None)


@contextmanager
def _loop_thread() -> Generator[LoopThread]:
    thread = LoopThread()
    try:
        yield thread
    finally:
        thread.close()
