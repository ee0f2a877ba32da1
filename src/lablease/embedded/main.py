"""The supervisor process: `python -m lablease.embedded.main`, started by `lablease up`, or run in its place.

Options come as JSON on stdin. Progress goes as JSON lines to the descriptor that is the first argument, until the
control plane is ready or has failed; from then on to stdout, which `lablease up` has pointed at `logs/supervisor.log`.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lablease.clock import utc_now
from lablease.embedded import gobuild
from lablease.embedded.control_plane import ControlPlane
from lablease.embedded.errors import EmbeddedError
from lablease.embedded.existing import ExistingCluster
from lablease.embedded.paths import DataDir, cache_dir
from lablease.embedded.runner import Runner
from lablease.embedded.services import table
from lablease.embedded.status import Status
from lablease.embedded.tree import at, text


@dataclass(frozen=True, slots=True)
class Options:
    """What `lablease up` was asked for.

    Args:
        kubeconfig: of an existing cluster; None runs our own.
        namespace: None keeps the remembered one.
    """

    data_dir: Path
    kubeconfig: Path | None = None
    namespace: str | None = None
    api_port: int | None = None
    services: bool = True
    demo: bool = False

    def to_json(self) -> str:
        return json.dumps(
            {
                "data_dir": str(self.data_dir),
                "kubeconfig": str(self.kubeconfig) if self.kubeconfig else None,
                "namespace": self.namespace,
                "api_port": self.api_port,
                "services": self.services,
                "demo": self.demo,
            }
        )

    @classmethod
    def from_json(cls, written: str) -> "Options":
        content: object = json.loads(written)
        port = at(content, "api_port")
        return cls(
            data_dir=Path(text(content, "data_dir")),
            kubeconfig=Path(text(content, "kubeconfig")) if text(content, "kubeconfig") else None,
            namespace=text(content, "namespace") or None,
            api_port=port if isinstance(port, int) else None,
            services=at(content, "services") is not False,
            demo=at(content, "demo") is True,
        )


def run(options: Options, report: Callable[[str], None], on_ready: Callable[[Status], None]) -> None:
    """Work until SIGTERM or SIGINT.

    Raises:
        EmbeddedError: it could not be started.
    """
    data = DataDir(options.data_dir)
    cluster = (
        ControlPlane(
            data,
            gobuild.ensure(cache_dir(), lambda step, done, total: report(step)),
            options.namespace,
            options.api_port,
        )
        if options.kubeconfig is None
        else ExistingCluster(data, options.kubeconfig, options.namespace)
    )
    runner = Runner(cluster, table if options.services else None, options.demo, report)

    def stop(number: int, frame: FrameType | None) -> None:
        # In a thread of its own: the main thread may hold the very lock that `stop` needs.
        threading.Thread(target=runner.stop, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    runner.run(on_ready)


def main() -> int:
    """Run detached from any terminal."""
    parent = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    listening = True

    def tell(key: str, value: object) -> None:
        nonlocal listening
        if not listening:
            return
        try:
            parent.write(json.dumps({key: value}) + "\n")
        except BrokenPipeError:  # whoever waited was interrupted; the control plane was wanted all the same
            listening = False

    def log(line: str) -> None:
        sys.stdout.write(f"{utc_now():%Y-%m-%dT%H:%M:%SZ} {line}\n")
        sys.stdout.flush()

    def report(line: str) -> None:
        log(line)
        tell("step", line)

    def on_ready(status: Status) -> None:
        nonlocal listening
        tell("ready", True)
        listening = False
        parent.close()

    try:
        run(Options.from_json(sys.stdin.read()), report, on_ready)
    except EmbeddedError as failed:
        log(str(failed))
        tell("error", {"problem": failed.problem, "help": failed.help})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
