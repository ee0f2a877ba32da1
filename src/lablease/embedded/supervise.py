"""Keep one process running: restart it when it ends, later each time that it does so early."""

import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lablease.embedded.process import STOP_PATIENCE_SECONDS, Identity, remember, stop

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 15.0
SETTLED_SECONDS = 30.0  # a process that ran this long starts again with the first delay

LOG_TAIL_LINES = 12
_LOG_LIMIT_BYTES = 20 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """What to run.

    Args:
        env: the whole environment, nothing is inherited beside it.
        log: file that takes stdout and stderr, appended to.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: Path


def next_delay(delay_seconds: float, ran_seconds: float) -> float:
    """Return how long to wait before the restart after this one, given the wait before this run and how long it ran."""
    if ran_seconds >= SETTLED_SECONDS:
        return FIRST_DELAY_SECONDS
    return min(delay_seconds * 2, LONGEST_DELAY_SECONDS)


def log_tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines of a log, for an error message; empty if there is no log."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


@dataclass(slots=True)
class Supervised:
    """A process and the thread that restarts it.

    Args:
        pid_file: written at every start, so that a later supervisor finds the orphan.
        on_event: told `started`, `exited 1, again in 0.2 s` and the like; called in the supervising thread.
    """

    command: Command
    pid_file: Path
    on_event: Callable[[str, str], None] = lambda name, event: None
    restarts: int = 0
    identity: Identity | None = None
    last_exit: int | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)
    _spawning: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the process now.

        Raises:
            OSError: the program cannot be executed.
        """
        process = self._spawn()
        self._thread = threading.Thread(target=self._keep, args=(process,), name=self.command.name, daemon=True)
        self._thread.start()

    def stop(self, patience_seconds: float = STOP_PATIENCE_SECONDS) -> None:
        """End the process and do not restart it; harmless when it does not run."""
        with self._spawning:  # no start is under way, and none follows
            self._stopping.set()
        if self.identity is not None:
            stop(self.identity, patience_seconds)
        if self._thread is not None:
            self._thread.join()
        self.pid_file.unlink(missing_ok=True)

    @property
    def alive(self) -> bool:
        return self.identity is not None and self.identity.alive

    def _spawn(self) -> "subprocess.Popen[bytes] | None":
        """Start the process; None when it is to stay down."""
        command = self.command
        with self._spawning:
            if self._stopping.is_set():
                return None
            keep_size(command.log)
            with command.log.open("ab") as log:
                process = subprocess.Popen(
                    list(command.argv),
                    env=dict(command.env),
                    cwd=command.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in a terminal reaches the supervisor only, which stops all in order
                )
            self.identity = remember(self.pid_file, process.pid)
        self.on_event(command.name, "started")
        return process

    def _keep(self, process: "subprocess.Popen[bytes] | None") -> None:
        delay = FIRST_DELAY_SECONDS
        while not self._stopping.is_set():
            began = time.monotonic()
            if process is not None:
                self.last_exit = process.wait()
                if self._stopping.is_set():
                    return
                self.on_event(self.command.name, f"exited {self.last_exit}, again in {delay:.1f} s")
            if self._stopping.wait(delay):
                return
            delay = next_delay(delay, time.monotonic() - began)
            self.restarts += 1
            try:
                process = self._spawn()
            except OSError as refused:
                process = None
                self.on_event(self.command.name, f"cannot be started: {refused.strerror}")


def keep_size(log: Path) -> None:
    """Before a start: set a log aside that has grown past 20 MB; one older log is kept."""
    if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".old.log"))
