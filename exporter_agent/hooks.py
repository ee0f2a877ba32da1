"""Scripts that the lab's owner runs around a lease."""

import asyncio
import contextlib
import os
import pty
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lablease.exporter_agent.config import Hook
from lablease.exporter_agent.processes import Supervised

GRACE_SECONDS: Final = 2.0
READ_BYTES: Final = 4096
MAX_LINE: Final = 16 * 1024
DRAIN_QUIET_SECONDS: Final = 0.05
DRAIN_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class HookResult:
    """``problem`` is empty when the script ended with status 0 in time."""

    problem: str


def command(hook: Hook) -> list[str]:
    """Return the command line: ``exec`` if given, else by file name; a script of one line may name a file."""
    script = hook.script.strip()
    is_file = "\n" not in script and os.path.isfile(script)
    if hook.exec is not None:
        interpreter = hook.exec
    elif is_file and script.endswith(".py"):
        interpreter = sys.executable
    else:
        interpreter = "/bin/sh"
    return [interpreter, script] if is_file else [interpreter, "-c", hook.script]


def environment(base: Mapping[str, str], *, socket_path: str, lease: str, client: str) -> dict[str, str]:
    """Return the environment of a hook; ``j`` in it talks to the session."""
    env = dict(base)
    env.pop("PS1", None)
    return env | {
        "JUMPSTARTER_HOST": socket_path,
        "JMP_DRIVERS_ALLOW": "UNSAFE",
        "LEASE_NAME": lease,
        "CLIENT_NAME": client,
        "TERM": "dumb",
        "DEBIAN_FRONTEND": "noninteractive",
        "GIT_TERMINAL_PROMPT": "0",
    }


class HookRun:
    """One run of a hook. What the script leaves running may go on until ``end``; after a timeout nothing does."""

    def __init__(self, hook: Hook, env: Mapping[str, str], tell: Callable[[str], None]) -> None:
        self._hook = hook
        self._env = env
        self._tell = tell
        self._process: Supervised | None = None
        self._master = -1
        self._line = bytearray()
        self._quiet = asyncio.Event()
        self._last_output = 0.0

    async def run(self) -> HookResult:
        """Run the script to its end, or to its timeout. Cancelling ends all its processes."""
        self._master, slave = pty.openpty()
        try:
            self._process = await Supervised.start(
                command(self._hook), grace_seconds=GRACE_SECONDS, linger=True, stdio=slave, env=self._env
            )
        finally:
            os.close(slave)
        loop = asyncio.get_running_loop()
        os.set_blocking(self._master, False)
        loop.add_reader(self._master, self._readable)
        try:
            code = await asyncio.wait_for(asyncio.shield(self._process.code), self._hook.timeout)
        except TimeoutError:
            await self.end()
            return HookResult(f"timed out after {self._hook.timeout} s")
        except asyncio.CancelledError:
            await self.end()
            raise
        await self._drain()
        if code == 0:
            return HookResult("")
        return HookResult(f"ended with {'signal' if code < 0 else 'status'} {abs(code)}")

    async def end(self) -> None:
        """Kill whatever is left of the hook. Idempotent."""
        if self._process is not None:
            await self._process.end()
        self._close()

    async def _drain(self) -> None:
        """Wait until the output of the script has arrived: it may come after the exit status."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_SECONDS
        while self._master >= 0 and loop.time() < deadline:
            before = self._last_output
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), DRAIN_QUIET_SECONDS)
            if self._last_output == before:
                break
        self._flush()

    def _readable(self) -> None:
        try:
            data = os.read(self._master, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the other side open any more
            data = b""
        if not data:
            self._close()
            return
        self._last_output = asyncio.get_running_loop().time()
        self._line += data
        while (end := self._line.find(b"\n")) >= 0 or len(self._line) > MAX_LINE:
            cut = end if 0 <= end <= MAX_LINE else MAX_LINE
            self._say(bytes(self._line[:cut]))
            del self._line[: cut + 1 if cut == end else cut]

    def _flush(self) -> None:
        if self._line:
            self._say(bytes(self._line))
            self._line.clear()

    def _say(self, line: bytes) -> None:
        if text := line.decode(errors="replace").rstrip("\r"):
            self._tell(text)

    def _close(self) -> None:
        if self._master >= 0:
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._master)
            self._master = -1
            self._flush()
            self._quiet.set()
