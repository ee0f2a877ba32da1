"""INT, TERM and HUP: by default they cancel the command, so that what it holds is given back before it ends."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")
Receive = Callable[[int], None]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Desk:
    """Where signals arrive; ``receive`` is who deals with them now."""

    def __init__(self) -> None:
        self.receive: Receive = self._stop
        self.stopped_by = 0
        self._task: asyncio.Task[Any] | None = None

    def open(self) -> None:
        self._task = asyncio.current_task()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._arrived, number)

    def _arrived(self, number: int) -> None:
        self.receive(number)

    def _stop(self, number: int) -> None:
        self.stopped_by = self.stopped_by or number
        if self._task:
            self._task.cancel()


_desk: ContextVar[_Desk] = ContextVar("_desk")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a new event loop.

    Raises:
        SystemExit: 128 + n if signal n has stopped it.
    """
    desk = _Desk()

    async def supervised() -> T:
        _desk.set(desk)
        desk.open()
        return await main

    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        if not desk.stopped_by:
            raise
        sys.exit(128 + desk.stopped_by)


@contextmanager
def signals_to(receive: Receive) -> Generator[None]:
    """Let ``receive`` deal with signals for the life of the context, inside ``run``."""
    desk = _desk.get()
    before, desk.receive = desk.receive, receive
    try:
        yield
    finally:
        desk.receive = before
