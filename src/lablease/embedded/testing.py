"""A real control plane for tests: own ports, fresh data, gone afterwards."""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Generator
from pathlib import Path

from lablease.embedded import gobuild
from lablease.embedded.control_plane import STOP_ORDER, ControlPlane
from lablease.embedded.paths import DataDir, cache_dir, write_private
from lablease.embedded.process import recall, start_time, stop_orphans
from lablease.embedded.tree import text


@contextlib.contextmanager
def control_plane(folder: Path, namespace: str = "lab", install: bool = True) -> Generator[ControlPlane]:
    """Run a control plane in `folder`, with our CRDs, accounts and RBAC unless `install` is False.

    The first use on a machine builds the binaries (minutes); afterwards a start takes 3 to 4 s. Logs and the audit log
    stay in `folder`; the database, which takes 64 MB even when empty, does not.
    """
    binaries = gobuild.ensure(cache_dir(), _print_progress)
    data = DataDir(folder)
    with registered(cache_dir() / "test-runs", data), ControlPlane(data, binaries, namespace) as running:
        if install:
            running.install()
        yield running
    shutil.rmtree(data.etcd)


@contextlib.contextmanager
def registered(runs: Path, data: DataDir) -> Generator[None]:
    """Note this run, so that a later one can end what it leaves behind if it is killed; do that for earlier ones."""
    runs.mkdir(parents=True, exist_ok=True)
    for path in runs.glob("*.json"):
        with contextlib.suppress(FileNotFoundError):  # another run may do the same now
            holder, root = recall(path), text(json.loads(path.read_text()), "root")
            if holder is None or not holder.alive:
                stop_orphans(Path(root) / data.run.name, STOP_ORDER)
                path.unlink()
    pid = os.getpid()
    note = runs / f"{pid}-{data.root.name}.json"
    write_private(note, json.dumps({"pid": pid, "started": start_time(pid), "root": str(data.root)}))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _print_progress(text: str, done: int, total: int) -> None:
    if total == 0 or done % 100 == 0:
        sys.stderr.write(f"{text} {f'{done}/{total}' if total else ''}\n")
