"""Commands that the exporter's owner has prepared."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from lablease.client.drivers.base import DriverClient


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of a command's output; ``code`` only in the last one."""

    stdout: str
    stderr: str
    code: int | None


class ShellClient(DriverClient):
    """Runs prepared commands on the exporter's host."""

    async def methods(self) -> list[str]:
        """Return the names of the commands."""
        answer = await self.call("get_methods")
        if not isinstance(answer, list):
            raise self.unexpected("get_methods", answer)
        return [str(name) for name in answer]

    async def run(self, name: str, *args: str, env: Mapping[str, str] | None = None) -> AsyncGenerator[Output]:
        """Run a command and yield its output; 199 as exit code means that it took too long."""
        async for piece in self.streaming_call("call_method", name, dict(env or {}), *args):
            match piece:
                case [str() | None as stdout, str() | None as stderr, int() | None as code]:
                    yield Output(stdout or "", stderr or "", code)
                case _:
                    raise self.unexpected("call_method", piece)
