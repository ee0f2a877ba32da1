"""Parent of one driver host or hook: nothing that it started, at whatever remove, outlives it.

Run by path with ``python -I -S``; needs nothing but the standard library, so that it starts in milliseconds and stays
small. It is a child subreaper: orphans of its command, also those that called setsid, become its children.

``--control-fd N`` is its end of a socket pair. It writes ``{"exit": <code>}`` when the command ends (negative: signal).
When the other end closes, or on SIGTERM, it ends the command (SIGTERM, then SIGKILL after ``--grace`` seconds); then it
kills all descendants and leaves when none lives. Without ``--linger`` it does so too when the command ends by itself.
"""

import argparse
import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.02


def descendants(root: int) -> list[int]:
    """Return the pids below ``root``, zombies left out, as /proc shows them at this moment."""
    children: dict[int, list[tuple[int, bytes]]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as stat:
                state, parent = stat.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(int(parent), []).append((int(entry), state))
    found: list[int] = []
    todo = [root]
    while todo:
        for pid, state in children.get(todo.pop(), ()):
            todo.append(pid)
            if state not in (b"Z", b"X"):
                found.append(pid)
    return found


def reap() -> dict[int, int]:
    """Collect every child that has ended: pid to exit code, negative for a signal."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def kill_descendants() -> None:
    """Kill until none lives. A process that may not be killed is waited for: the device is not free before."""
    while alive := descendants(os.getpid()):
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(POLL_SECONDS / 10)
        reap()
    reap()


class Supervisor:
    """Runs one command."""

    def __init__(self, control_fd: int, grace_seconds: float, linger: bool) -> None:
        self._control = control_fd
        self._grace = grace_seconds
        self._linger = linger
        self._told = False

    def run(self, command: list[str], pass_fds: list[int]) -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        stop: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda signum, _frame: stop.append(signum))
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
        parent = os.getpid()

        def tie_to_supervisor() -> None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        started = subprocess.Popen(  # this process has one thread
            command,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=tie_to_supervisor,  # noqa: PLW1509
        )
        child = (
            started.pid
        )  # the object stays referenced: when it is dropped it collects the exit status that reap wants
        for fd in pass_fds:
            os.close(fd)
        alive = True
        while not stop:
            readable, _, _ = select.select([self._control, wake_read], [], [])
            if wake_read in readable:
                os.read(wake_read, 4096)
                ended = reap()
                if child in ended:
                    alive = False
                    self._tell(ended[child])
                    if not self._linger:
                        break
            if self._control in readable and not self._peer_lives():
                break
        if alive:
            self._end(started.pid)
        kill_descendants()
        return 0

    def _end(self, child: int) -> None:
        """Ask the command and its process group to end, and give it the grace time."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        while time.monotonic() < deadline:
            ended = reap()
            if child in ended:
                self._tell(ended[child])
                return
            time.sleep(POLL_SECONDS)
        self._tell(-signal.SIGKILL)

    def _tell(self, code: int) -> None:
        if self._told:
            return
        self._told = True
        try:
            os.write(self._control, json.dumps({"exit": code}).encode() + b"\n")
        except OSError:
            return  # nobody listens any more

    def _peer_lives(self) -> bool:
        try:
            return bool(os.read(self._control, 4096))
        except OSError:
            return False


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--grace", type=float, default=2.0)
    parser.add_argument("--linger", action="store_true")
    parser.add_argument("--pass-fd", type=int, action="append", default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    os.set_inheritable(options.control_fd, False)
    return Supervisor(options.control_fd, options.grace, options.linger).run(options.command, options.pass_fd)


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())  # nothing is left to take down, and the next lease waits for this
