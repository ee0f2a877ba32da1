"""What a supervisor tells about itself in `status.json`, and what is true of it now."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from lablease.embedded.paths import DataDir, write_private
from lablease.embedded.process import Identity, is_locked
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
    ports: dict[str, int]
    processes: tuple[Shown, ...]

    @property
    def healthy(self) -> bool:
        """Every process lives and start-up is over; asks the kernel, not the file."""
        return self.phase is Phase.READY and all(process.alive for process in self.processes)

    def to_json(self) -> str:
        """Return the status as JSON; paths and instants are strings."""
        return json.dumps(asdict(self), default=_plain, indent=2)


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
        ports=ports,
        processes=tuple(
            Shown(
                name=text(entry, "name"),
                process=_identity(at(entry, "process")),
                restarts=_int(at(entry, "restarts")),
                log=Path(text(entry, "log")),
                last_event=text(entry, "last_event"),
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
