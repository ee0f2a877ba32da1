"""Where things are on disk: the cache with the binaries, and one data directory per control plane."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of what can be made again (binaries, toolchain)."""
    return _xdg(environ, "XDG_CACHE_HOME", ".cache") / "lablease"


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of what cannot: a cache cleaner must not take a lab's leases with it."""
    return _xdg(environ, "XDG_DATA_HOME", ".local/share") / "lablease" / "control-plane"


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    named = environ.get(variable, "")
    # The XDG specification: a relative path in these variables is invalid and is to be ignored.
    return Path(named) if named.startswith("/") else Path(environ.get("HOME") or Path.home()) / fallback


@dataclass(frozen=True, slots=True)
class DataDir:
    """The files of one control plane; everything below `root` is only readable by its owner."""

    root: Path

    @property
    def version(self) -> Path:
        return self.root / "VERSION"

    @property
    def state(self) -> Path:
        """Ports and namespace, remembered from the first start on."""
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        """Held (flock) by the supervisor as long as it lives, however it dies."""
        return self.root / "lock"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        return self.root / "audit" / "audit.log"

    @property
    def audit_policy(self) -> Path:
        return self.root / "audit" / "policy.yaml"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """One file per living process: pid and start time."""
        return self.root / "run"

    @property
    def accounts(self) -> Path:
        """Kubeconfigs and token files of service accounts."""
        return self.root / "accounts"

    @property
    def router_key(self) -> Path:
        return self.root / "router.key"

    @property
    def dev_ca(self) -> Path:
        """CA of the development certificate of our gRPC services."""
        return self.pki / "service-ca.crt"

    @property
    def dev_cert(self) -> Path:
        return self.pki / "service.crt"

    @property
    def dev_key(self) -> Path:
        return self.pki / "service.key"

    def make(self) -> None:
        """Create the folders, private to the user; harmless when they exist."""
        for folder in (self.root, self.pki, self.logs, self.run, self.accounts, self.audit_log.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def free_bytes(folder: Path) -> int:
    """Return what a user may still write to the disk of a folder that exists."""
    return shutil.disk_usage(folder).free


def write_private(path: Path, content: bytes | str) -> None:
    """Write a file that only its owner can read, so that a reader sees either the old or the whole new content."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
