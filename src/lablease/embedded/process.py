"""Processes that outlive whoever started them: known by pid and start time, never by name."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from lablease.embedded.paths import write_private

STOP_PATIENCE_SECONDS = 15.0  # etcd and the API server need well under 5 s to stop when asked
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, for ever: a pid alone is given to another process some day."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started


def start_time(pid: int) -> str | None:
    """Return when the process started, in a form that only compares equal for the same process; None if it is gone.

    A zombie counts as gone. On Linux: boot id and clock ticks since boot; elsewhere what `ps` says.
    """
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, started = after_name[0], after_name[19]
        return None if state in "ZX" else f"{_boot_id()}/{started}"
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = shown.stdout.strip().partition(" ")
    return None if shown.returncode != 0 or state.startswith("Z") else started.strip()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def remember(path: Path, pid: int) -> Identity | None:
    """Write the pid file of a process that was just started; None if it is gone already."""
    started = start_time(pid)
    if started is None:
        return None
    write_private(path, json.dumps({"pid": pid, "started": started}) + "\n")
    return Identity(pid, started)


def claim(lock: Path) -> None:
    """Write into a lock file who holds it; in place, because a replaced file would be a lock that nobody holds."""
    pid = os.getpid()
    lock.write_text(json.dumps({"pid": pid, "started": start_time(pid)}) + "\n")


def recall(path: Path) -> Identity | None:
    """Read a pid file or a claimed lock; None if there is none, or if it cannot be understood."""
    try:
        content = json.loads(path.read_text())
        return Identity(int(content["pid"]), str(content["started"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def stop(identity: Identity, patience_seconds: float = STOP_PATIENCE_SECONDS) -> bool:
    """End a process, which need not be a child: SIGTERM, then SIGKILL.

    Returns:
        False if it had to be killed.
    """
    if _signal_and_wait(identity, signal.SIGTERM, patience_seconds):
        return True
    _signal_and_wait(identity, signal.SIGKILL, STOP_PATIENCE_SECONDS)
    return False


def _signal_and_wait(identity: Identity, number: signal.Signals, patience_seconds: float) -> bool:
    if not identity.alive:
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(identity.pid, number)
    deadline = time.monotonic() + patience_seconds
    while identity.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def stop_orphans(run: Path, order: tuple[str, ...]) -> list[str]:
    """End what a supervisor that was killed left behind; the names of what was ended.

    Args:
        run: folder of the pid files.
        order: names that must be ended in this order, after everything else (the API server before etcd).
    """
    found = {path.stem: path for path in run.glob("*.json")}
    ended: list[str] = []
    for name in [*sorted(found.keys() - set(order)), *(name for name in order if name in found)]:
        identity = recall(found[name])
        if identity is not None and identity.alive:
            stop(identity)
            ended.append(name)
        found[name].unlink(missing_ok=True)
    return ended


@contextlib.contextmanager
def locked(path: Path) -> Generator[bool]:
    """Hold a file lock, or yield False at once when another process holds it. The kernel drops it with its holder."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as refused:
            if refused.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Say whether a process holds the lock; it is not created."""
    if not path.exists():
        return False
    with locked(path) as free:
        return not free
