"""Start and end the supervisor from another process: the bodies of `lablease up` and `lablease down`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lablease.embedded.control_plane import STOP_ORDER
from lablease.embedded.errors import EmbeddedError, StartError
from lablease.embedded.main import Options
from lablease.embedded.paths import DataDir
from lablease.embedded.process import is_locked, locked, recall, stop, stop_orphans
from lablease.embedded.status import Status, read_status
from lablease.embedded.tree import at, mapping, text

STOP_PATIENCE_SECONDS = 60.0  # every process may take its own patience, one after the other


def start_detached(options: Options, report: Callable[[str], None]) -> Status:
    """Start a supervisor that outlives this process, and wait until it is ready.

    Raises:
        EmbeddedError: it could not be started; nothing is left running then.
    """
    data = DataDir(options.data_dir)
    data.make()
    log_path = data.logs / "supervisor.log"
    ours, theirs = os.pipe()
    with log_path.open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-P", "-m", "lablease.embedded.main", str(theirs)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs],
            start_new_session=True,
            cwd=data.root,
        )
    os.close(theirs)
    if supervisor.stdin is not None:
        supervisor.stdin.write(options.to_json().encode())
        supervisor.stdin.close()
    try:
        _follow(ours, log_path, report)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        raise
    status = read_status(data)
    if status is None:
        raise StartError("the supervisor ended right after its start", f"Its log is {log_path}.")
    return status


def _follow(descriptor: int, log: Path, report: Callable[[str], None]) -> None:
    """Report each step until the supervisor is ready; it closes its end when it dies, however it dies."""
    with os.fdopen(descriptor) as lines:
        for line in lines:
            said: object = json.loads(line)
            if at(said, "ready") is True:
                return
            if mapping(said, "error"):
                raise StartError(text(said, "error", "problem"), text(said, "error", "help"))
            report(text(said, "step"))
    raise StartError("the supervisor died while starting", f"Its log is {log}.")


def shut_down(data: DataDir) -> bool:
    """End what runs in a data directory, also what a dead supervisor left behind.

    Returns:
        False if nothing ran.

    Raises:
        EmbeddedError: the directory stays locked by a process that does not say who it is.
    """
    ran = False
    if is_locked(data.lock):
        holder = recall(data.lock)
        if holder is None or not holder.alive:
            raise EmbeddedError(f"{data.lock} is held by an unknown process", f"`fuser {data.lock}` names it.")
        stop(holder, STOP_PATIENCE_SECONDS)
        ran = True
    return bool(stop_orphans(data.run, STOP_ORDER)) or ran


def purge(data: DataDir) -> None:
    """Delete a data directory for good.

    Raises:
        EmbeddedError: it does not look like one of ours.
    """
    if not data.root.exists():
        return
    if any(data.root.iterdir()) and not (data.lock.exists() and data.pki.is_dir()):
        raise EmbeddedError(f"{data.root} is no data directory of lablease", "It is not deleted: look what it is.")
    with locked(data.lock) as free:
        if not free:
            raise EmbeddedError(f"{data.root} is in use again", "`lablease status` shows by whom.")
        shutil.rmtree(data.root)
