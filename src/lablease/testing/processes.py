"""Processes that a test starts: known by pid, one log file each, ended with all that they started."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lablease.testing.waiting import eventually

STOP_PATIENCE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended: its exit status and what it printed."""

    command: str
    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams, for looking at what a person would have seen."""
        return self.stdout + self.stderr

    def ok(self) -> "Finished":
        """Return itself.

        Raises:
            AssertionError: the command failed; with its output.
        """
        assert self.status == 0, f"{self.command}: exit status {self.status}\n{self.output[-6000:]}"
        return self


@dataclass(slots=True)
class Process:
    """A process with its own session, so that a signal reaches its children too and nobody else."""

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def text(self) -> str:
        """Return the log so far."""
        return self.log.read_text(errors="replace")

    def await_text(self, text: str, within_seconds: float = 20.0) -> None:
        """Wait until the log contains ``text``.

        Raises:
            AssertionError: it ended without, or did not say it in time.
        """

        def look() -> bool:
            said = text in self.text()
            assert said or self.alive, f"{self.name} ended ({self.popen.returncode}):\n{self.text()[-4000:]}"
            return said

        eventually(look, f"{self.name} says {text!r}", within_seconds)

    def wait(self, within_seconds: float) -> int:
        """Return its exit status."""
        return self.popen.wait(within_seconds)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if self.alive:
            os.kill(self.pid, number)

    def stop(self, first: signal.Signals = signal.SIGTERM) -> None:
        """End it: the signal to the process, KILL for all of its session that is left after that."""
        self.send(signal.SIGCONT)
        self.send(first)
        try:
            self.popen.wait(STOP_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for pid in session_members(self.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended between the look and the signal


def session_members(session: int) -> list[int]:
    """Return the pids that belong to a session, its leader excluded. Sessions that a child opened count by its parent."""
    members: list[int] = []
    parents: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(entry.name)] = (int(fields[1]), int(fields[3]))
    for pid, (parent, its_session) in parents.items():
        if pid != session and (its_session == session or _descends(parent, session, parents)):
            members.append(pid)
    return members


def _descends(pid: int, ancestor: int, parents: Mapping[int, tuple[int, int]]) -> bool:
    while pid in parents and pid > 1:
        if pid == ancestor or parents[pid][1] == ancestor:
            return True
        pid = parents[pid][0]
    return False


@dataclass(slots=True)
class Processes:
    """All processes of one lab. Each command runs in ``folder`` with exactly the environment that it is given."""

    folder: Path
    started: list[Process] = field(default_factory=list[Process])

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Process:
        """Start a process that goes on. A name that was used before gets a number, so that no log is overwritten."""
        log = self._log_file(name)
        with log.open("wb") as sink:
            popen = subprocess.Popen(
                list(argv),
                env=dict(env),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = Process(name, popen, log)
        self.started.append(process)
        return process

    def run(
        self, argv: Sequence[str], env: Mapping[str, str], within_seconds: float = 60.0, stdin: str = ""
    ) -> Finished:
        """Run a command to its end.

        Raises:
            AssertionError: it did not end in time; it is killed, and what it printed is in the message.
        """
        popen = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        process = Process(Path(argv[0]).name, popen, self.folder / "none")  # type: ignore[arg-type]
        command = " ".join(argv)
        try:
            stdout, stderr = popen.communicate(stdin, timeout=within_seconds)
        except subprocess.TimeoutExpired:
            process.stop(signal.SIGKILL)
            stdout, stderr = popen.communicate()
            raise AssertionError(f"{command}: not done after {within_seconds} s\n{(stdout + stderr)[-6000:]}") from None
        return Finished(command, popen.returncode, stdout, stderr)

    def stop_all(self) -> None:
        """End all, the youngest first."""
        for process in reversed(self.started):
            process.stop()

    def logs(self) -> list[Path]:
        """Return the log files, the oldest process first."""
        return [process.log for process in self.started]

    def _log_file(self, name: str) -> Path:
        folder = self.folder / "logs"
        folder.mkdir(exist_ok=True)
        taken = sum(process.name == name for process in self.started)
        return folder / (f"{name}.{taken}.log" if taken else f"{name}.log")
