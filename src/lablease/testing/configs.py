"""The files that people keep: client and exporter configurations as ``jmp`` 0.9.0 reads them, and manifests."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

API_VERSION = "jumpstarter.dev/v1alpha1"


def client_config(
    path: Path, namespace: str, name: str, endpoint: str, token: str, ca: bytes | None, insecure: bool = False
) -> Path:
    """Write a ClientConfig; drivers are unrestricted, as in a lab of one's own."""
    return _write(
        path,
        {
            "apiVersion": API_VERSION,
            "kind": "ClientConfig",
            "metadata": {"namespace": namespace, "name": name},
            "endpoint": endpoint,
            "tls": _tls(ca, insecure),
            "token": token,
            "grpcOptions": {},
            "drivers": {"allow": [], "unsafe": True},
        },
    )


def exporter_config(
    path: Path,
    namespace: str,
    name: str,
    endpoint: str,
    token: str,
    ca: bytes | None,
    export: Mapping[str, Any],
    insecure: bool = False,
    hooks: Mapping[str, Any] | None = None,
) -> Path:
    """Write an ExporterConfig."""
    content: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "ExporterConfig",
        "metadata": {"namespace": namespace, "name": name},
        "endpoint": endpoint,
        "tls": _tls(ca, insecure),
        "token": token,
        "export": dict(export),
    }
    if hooks is not None:
        content["hooks"] = dict(hooks)
    return _write(path, content)


def lease(name: str, client: str, labels: Mapping[str, str] | None = None, **spec: object) -> dict[str, Any]:
    """Return a Lease manifest that matches labels; further fields of the spec by their CRD names."""
    body: dict[str, Any] = {"clientRef": {"name": client}, **spec}
    if labels is not None:
        body["selector"] = {"matchLabels": dict(labels)}
    return {"apiVersion": API_VERSION, "kind": "Lease", "metadata": {"name": name}, "spec": body}


def client(name: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a Client manifest."""
    return {"apiVersion": API_VERSION, "kind": "Client", "metadata": _metadata(name, labels), "spec": {}}


def exporter(name: str, labels: Mapping[str, str] | None = None, **spec: object) -> dict[str, Any]:
    """Return an Exporter manifest."""
    return {"apiVersion": API_VERSION, "kind": "Exporter", "metadata": _metadata(name, labels), "spec": spec}


def _metadata(name: str, labels: Mapping[str, str] | None) -> dict[str, Any]:
    return {"name": name, "labels": dict(labels or {})}


def _tls(ca: bytes | None, insecure: bool) -> dict[str, Any]:
    return {"ca": base64.b64encode(ca).decode() if ca and not insecure else "", "insecure": insecure}


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
    path.chmod(0o600)
    return path
