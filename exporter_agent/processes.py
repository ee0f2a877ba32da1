"""Supervised processes: whatever is started here is gone when its handle has ended."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import lablease.driver

SUPERVISOR: Final = Path(lablease.driver.__file__).with_name("supervisor.py")


class Supervised:
    """A command under a supervisor process.

    ``code`` is the command's exit status (negative: signal) once it has ended. ``end`` returns when no descendant lives.
    """

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._process = process
        self._reader = reader
        self._writer = writer
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watch = asyncio.ensure_future(self._watch_exit())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        grace_seconds: float,
        linger: bool = False,
        pass_fds: Sequence[int] = (),
        stdio: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> "Supervised":
        """Start a command.

        Args:
            command: program and arguments.
            grace_seconds: between SIGTERM and SIGKILL when it is ended.
            linger: leave what the command left behind alone until ``end``.
            pass_fds: descriptors that the command inherits under the same numbers.
            stdio: descriptor for standard input, output and error; None: no input, the agent's output.
            env: environment, None for the agent's own.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [sys.executable, "-I", "-S", str(SUPERVISOR), "--control-fd", str(theirs.fileno())]
            arguments += ["--grace", str(grace_seconds), *(["--linger"] if linger else [])]
            for fd in pass_fds:
                arguments += ["--pass-fd", str(fd)]
            process = await asyncio.create_subprocess_exec(
                *arguments,
                "--",
                *command,
                stdin=asyncio.subprocess.DEVNULL if stdio is None else stdio,
                stdout=stdio,
                stderr=stdio,
                pass_fds=(theirs.fileno(), *pass_fds),
                start_new_session=True,
                env=dict(os.environ if env is None else env),
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        return self._process.pid

    async def end(self) -> None:
        """End the command if it still runs, kill all that it left behind, and return when none lives. Idempotent."""
        self._writer.close()
        await self._process.wait()
        await self._watch

    async def ended(self) -> None:
        """Wait until the supervisor has left, which it does when none lives."""
        await self._process.wait()

    async def _watch_exit(self) -> None:
        code = -9  # of a supervisor that was killed; its command dies with it
        try:
            if line := await self._reader.readline():
                code = int(json.loads(line)["exit"])
        except (OSError, ValueError):
            code = -9
        if not self.code.done():
            self.code.set_result(code)
