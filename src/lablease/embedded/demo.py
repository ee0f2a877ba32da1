"""The demo lab of `lablease up`: a board without hardware, a client, and the config file of each."""

import base64
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from lablease.embedded.api import Api, load_manifests
from lablease.embedded.errors import EmbeddedError
from lablease.embedded.paths import DataDir, write_private
from lablease.embedded.resources import MANIFESTS
from lablease.embedded.tree import Object, mapping, text

BOARD = "demo-board"
"""Name of the Exporter, and of its agent among the processes."""
CLIENT = "demo"
SELECTOR = "example.com/board=demo"
CREDENTIAL_PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.05
_ROOT = "/apis/jumpstarter.dev/v1alpha1"


@dataclass(frozen=True, slots=True)
class DemoLab:
    """Where the files of the demo lab are; below the data directory, readable by its owner only."""

    root: Path

    @property
    def exporter_config(self) -> Path:
        return self.root / "demo-board.yaml"

    @property
    def client_config(self) -> Path:
        return self.root / "demo-client.yaml"

    @property
    def device_log(self) -> Path:
        """What the board's power switch was told, by whom: one JSON object per line."""
        return self.root / "device.jsonl"

    @property
    def storage(self) -> Path:
        """What was flashed."""
        return self.root / "storage"


def lab(data_dir: Path) -> DemoLab:
    """Return the demo lab of a data directory."""
    return DemoLab(data_dir / "demo")


def install(api: Api, namespace: str, data: DataDir) -> DemoLab:
    """Create the board and the client, wait for their credentials, and write their config files.

    Raises:
        EmbeddedError: the operator did not give them credentials in time.
        ApiError: an object was refused.
    """
    files = lab(data.root)
    files.storage.mkdir(mode=0o700, parents=True, exist_ok=True)
    manifests = load_manifests([MANIFESTS / "demo" / "exporter.yaml", MANIFESTS / "demo" / "client.yaml"])
    api.apply({**item, "metadata": {**mapping(item, "metadata"), "namespace": namespace}} for item in manifests)
    authority = base64.b64encode(data.dev_ca.read_bytes()).decode("ascii")
    exporter = _config(api, namespace, "exporters", BOARD, "ExporterConfig", authority)
    write_private(files.exporter_config, _yaml(exporter | {"export": _board(files)}))
    client = _config(api, namespace, "clients", CLIENT, "ClientConfig", authority)
    write_private(files.client_config, _yaml(client | {"drivers": {"unsafe": True}}))
    return files


def _board(files: DemoLab) -> Object:
    config = {"log": str(files.device_log), "storage": str(files.storage)}
    parts = {name: {"ref": f"board.{name}"} for name in ("power", "serial", "storage")}
    return {"board": {"type": "lablease.driver.board.DemoBoard", "config": config}, **parts}


def _config(api: Api, namespace: str, plural: str, name: str, kind: str, authority: str) -> dict[str, object]:
    published = _published(api, f"{_ROOT}/namespaces/{namespace}/{plural}/{name}", name)
    secret = api.request(
        "GET", f"/api/v1/namespaces/{namespace}/secrets/{text(published, 'status', 'credential', 'name')}"
    )
    return {
        "apiVersion": "jumpstarter.dev/v1alpha1",
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name},
        "endpoint": text(published, "status", "endpoint"),
        "tls": {"ca": authority, "insecure": False},
        "token": base64.b64decode(text(secret, "data", "token")).decode("ascii"),
    }


def _published(api: Api, path: str, name: str) -> Object:
    deadline = time.monotonic() + CREDENTIAL_PATIENCE_SECONDS
    while True:
        found = api.request("GET", path)
        if text(found, "status", "credential", "name"):
            return found
        if time.monotonic() > deadline:
            raise EmbeddedError(f"the operator gave {name} no credential", "its log says why: lablease status")
        time.sleep(_POLL_SECONDS)


def _yaml(config: Object) -> str:
    return yaml.safe_dump(config, sort_keys=False)
