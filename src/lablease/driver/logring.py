"""The log of one session: bounded, replayed to every reader, pushed when it grows."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MAX_LINES: Final = 10_000
MAX_BYTES: Final = 4 * 1024 * 1024
MAX_MESSAGE_BYTES: Final = 64 * 1024
"""One line may not eat the replay of the others; a longer message is cut and says so."""

_BATCH: Final = 256


class LogSource(IntEnum):
    """Numbers of the wire enum."""

    DRIVER = 1
    BEFORE_LEASE_HOOK = 2
    AFTER_LEASE_HOOK = 3
    SYSTEM = 4


@dataclass(frozen=True, slots=True)
class LogLine:
    """``severity`` is a Python level name, as clients expect it."""

    severity: str
    source: LogSource
    message: str


class LogRing:
    """Lines of a session. ``append`` may be called from any thread; readers run on the loop that made the ring."""

    def __init__(self, *, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> None:
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._lines: deque[tuple[LogLine, int]] = deque()
        self._bytes = 0
        self._first = 0
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._wake_pending = False
        self._closed = False
        self._waiters: set[asyncio.Event] = set()

    def append(self, line: LogLine) -> None:
        """Add a line; the oldest lines go when a bound is passed."""
        size = len(line.message.encode(errors="replace"))
        if size > MAX_MESSAGE_BYTES:
            kept = line.message.encode(errors="replace")[:MAX_MESSAGE_BYTES].decode(errors="ignore")
            line = LogLine(line.severity, line.source, f"{kept} [cut: {size} bytes]")
            size = MAX_MESSAGE_BYTES
        with self._lock:
            self._lines.append((line, size))
            self._bytes += size
            while len(self._lines) > self._max_lines or self._bytes > self._max_bytes:
                self._bytes -= self._lines.popleft()[1]
                self._first += 1
            wake = not self._wake_pending and not self._loop.is_closed()
            self._wake_pending = self._wake_pending or wake
        if wake:
            self._loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """End every reader once it has read what there is. Call on the loop."""
        self._closed = True
        self._wake()

    async def follow(self) -> AsyncIterator[LogLine]:
        """Yield every line from the oldest kept one on; a line of its own says how many a slow reader has lost."""
        cursor = 0
        changed = asyncio.Event()
        self._waiters.add(changed)
        try:
            while True:
                changed.clear()
                lines, lost, cursor = self._after(cursor)
                if lost:
                    yield LogLine("WARNING", LogSource.SYSTEM, f"{lost} log lines were lost: more than is kept")
                for line in lines:
                    yield line
                if lines:
                    continue
                if self._closed:
                    return
                await changed.wait()
        finally:
            self._waiters.discard(changed)

    def _after(self, cursor: int) -> tuple[list[LogLine], int, int]:
        with self._lock:
            lost = max(0, self._first - cursor)
            start = max(cursor, self._first) - self._first
            stop = min(start + _BATCH, len(self._lines))
            lines = [self._lines[index][0] for index in range(start, stop)]
            return lines, lost, self._first + stop

    def _wake(self) -> None:
        with self._lock:
            self._wake_pending = False
        for waiter in self._waiters:
            waiter.set()
