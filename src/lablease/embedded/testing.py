"""A real control plane for tests: own ports, fresh data, gone afterwards."""

import contextlib
import sys
from collections.abc import Generator
from pathlib import Path

from lablease.embedded import gobuild
from lablease.embedded.control_plane import ControlPlane
from lablease.embedded.paths import DataDir, cache_dir


@contextlib.contextmanager
def control_plane(folder: Path, namespace: str = "lab", install: bool = True) -> Generator[ControlPlane]:
    """Run a control plane in `folder`, with our CRDs, accounts and RBAC unless `install` is False.

    The first use on a machine builds the binaries (minutes); afterwards a start takes 3 to 4 s.
    """
    binaries = gobuild.ensure(cache_dir(), _print_progress)
    with ControlPlane(DataDir(folder), binaries, namespace) as running:
        if install:
            running.install()
        yield running


def _print_progress(text: str, done: int, total: int) -> None:
    if total == 0 or done % 100 == 0:
        sys.stderr.write(f"{text} {f'{done}/{total}' if total else ''}\n")
