"""The published 0.9.0 packages: where their interpreter is, and the environment that their commands run in."""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


class Missing(Exception):
    """The interpreter with the published packages is not there."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A virtual environment with ``jumpstarter-cli`` 0.9.0, its admin command and some driver packages."""

    bin: Path

    @property
    def python(self) -> str:
        return str(self.bin / "python")

    @property
    def jmp(self) -> str:
        return str(self.bin / "jmp")

    @property
    def j(self) -> str:
        return str(self.bin / "j")


def find() -> Upstream:
    """Return what ``LABLEASE_UPSTREAM`` names, else ``.venv-upstream`` of this checkout.

    Raises:
        Missing: says how to make it.
    """
    venv = Path(os.environ.get("LABLEASE_UPSTREAM") or ROOT / ".venv-upstream")
    if not (venv / "bin" / "jmp").exists():
        raise Missing(f"{venv} has no jmp: run `make upstream`, or name a virtual environment in LABLEASE_UPSTREAM")
    return Upstream(venv / "bin")


def environment(upstream: Upstream, home: Path, runtime: Path) -> dict[str, str]:
    """Return the whole environment of a stock command.

    Args:
        home: stands for the user's home; nothing outside it is read or written.
        runtime: for unix sockets, whose paths must stay short.
    """
    return {
        "PATH": f"{upstream.bin}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_RUNTIME_DIR": str(runtime),
        "TMPDIR": str(runtime),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "COLUMNS": "250",
        "NONINTERACTIVE": "1",
        "PYTHONUNBUFFERED": "1",
    }
