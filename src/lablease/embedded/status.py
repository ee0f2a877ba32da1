"""What a supervisor tells about itself in `status.json`, and what is true of it now."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from lablease.embedded import kubeconfig
from lablease.embedded.api import Api
from lablease.embedded.errors import EmbeddedError
from lablease.embedded.paths import DataDir, write_private
from lablease.embedded.process import Identity, is_locked
from lablease.embedded.services import HttpOk
from lablease.embedded.tree import at, elements, mapping, text


class Phase(StrEnum):
    """How far a supervisor is."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Shown:
    """One process as `lablease status` shows it."""

    name: str
    process: Identity | None
    restarts: int
    log: Path
    last_event: str
    probe: str = ""
    """URL that answers 200 when it is ready; empty if being alive is all that can be seen."""

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive


@dataclass(frozen=True, slots=True)
class Status:
    """One running `lablease up`."""

    phase: Phase
    supervisor: Identity
    since: datetime
    url: str
    kubeconfig: Path
    namespace: str
    audit_log: Path | None
    service_ca: Path
    logs: Path
    kubectl: Path | None
    ports: dict[str, int]
    processes: tuple[Shown, ...]

    def to_json(self, problems: Mapping[str, str] | None = None) -> str:
        """Return the status as JSON; paths and instants are strings.

        Args:
            problems: outcome of `problems`, for a reader who wants to know how it is now.
        """
        now = {} if problems is None else {"healthy": not problems, "problems": problems}
        return json.dumps({**asdict(self), **now}, default=_plain, indent=2)


def status_file(data: DataDir) -> Path:
    return data.root / "status.json"


def write_status(data: DataDir, status: Status) -> None:
    """Replace the status of this data directory."""
    write_private(status_file(data), status.to_json() + "\n")


def read_status(data: DataDir) -> Status | None:
    """Return what the living supervisor last wrote; None if none lives, or if it has only just been started."""
    if not is_locked(data.lock):
        return None
    try:
        content: object = json.loads(status_file(data).read_text())
    except (FileNotFoundError, ValueError):
        return None
    status = _parse(content)
    return status if status.supervisor.alive else None


def problems(status: Status) -> dict[str, str]:
    """Look at every process now and return what is wrong with it, by name; empty if all is well."""
    found: dict[str, str] = {}
    for process in status.processes:
        if not process.alive:
            found[process.name] = f"down: {process.last_event}"
        elif process.probe and (problem := HttpOk(process.probe).problem()) is not None:
            found[process.name] = f"not ready: {problem}"
    if status.phase is not Phase.READY:
        found["supervisor"] = status.phase
    try:
        said = Api(kubeconfig.read(status.kubeconfig)).ready()
    except EmbeddedError as unreadable:
        said = unreadable.problem
    if said != "ok":
        found.setdefault("kube-apiserver", f"not ready: {said}")
    return found


def _parse(content: object) -> Status:
    ports = {name: port for name, port in mapping(content, "ports").items() if isinstance(port, int)}
    return Status(
        phase=Phase(text(content, "phase")),
        supervisor=_identity(at(content, "supervisor")) or Identity(0, ""),
        since=datetime.fromisoformat(text(content, "since")),
        url=text(content, "url"),
        kubeconfig=Path(text(content, "kubeconfig")),
        namespace=text(content, "namespace"),
        audit_log=Path(text(content, "audit_log")) if text(content, "audit_log") else None,
        service_ca=Path(text(content, "service_ca")),
        logs=Path(text(content, "logs")),
        kubectl=Path(text(content, "kubectl")) if text(content, "kubectl") else None,
        ports=ports,
        processes=tuple(
            Shown(
                name=text(entry, "name"),
                process=_identity(at(entry, "process")),
                restarts=_int(at(entry, "restarts")),
                log=Path(text(entry, "log")),
                last_event=text(entry, "last_event"),
                probe=text(entry, "probe"),
            )
            for entry in elements(content, "processes")
        ),
    )


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _identity(content: object) -> Identity | None:
    return Identity(_int(at(content, "pid")), text(content, "started")) if content else None


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
