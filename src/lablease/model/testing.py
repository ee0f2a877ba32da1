"""Objects as the API server stores them, for tests: each argument is one field, what is not given is as usual."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from lablease.model.client import Client, parse_client
from lablease.model.durations import format_time
from lablease.model.exporter import Exporter, parse_exporter
from lablease.model.lease import Lease, parse_lease
from lablease.model.policy import Policy, parse_policy

NAMESPACE = "lab"
NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)

Raw = dict[str, Any]


def metadata(
    name: str,
    *,
    created: datetime = NOON,
    labels: Mapping[str, str] | None = None,
    version: int = 1,
    generation: int = 1,
) -> Raw:
    """The metadata of a stored object."""
    return {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "generation": generation,
        "creationTimestamp": format_time(created.replace(microsecond=0)),
        "labels": dict(labels or {}),
    }


def raw_lease(name: str = "l1", *, meta: Raw | None = None, status: Raw | None = None, **spec: Any) -> Raw:
    """A lease of alice for an rpi4 for one hour, unless said otherwise; a field that is None is left out."""
    usual: Raw = {"clientRef": {"name": "alice"}, "selector": {"matchLabels": {"board": "rpi4"}}, "duration": "1h"}
    given = {key: value for key, value in (usual | spec).items() if value is not None}
    return {"metadata": meta or metadata(name), "spec": given} | ({} if status is None else {"status": status})


def lease(name: str = "l1", *, meta: Raw | None = None, status: Raw | None = None, **spec: Any) -> Lease:
    """``raw_lease``, read."""
    return parse_lease(raw_lease(name, meta=meta, status=status, **spec))


def raw_exporter(name: str = "e1", *, meta: Raw | None = None, spec: Raw | None = None, **status: Any) -> Raw:
    """An rpi4 that is registered, connected and available, unless said otherwise; a field that is None is left out."""
    usual: Raw = {
        "devices": [{"uuid": "u"}],
        "exporterStatus": "Available",
        "session": {"frontend": "f1", "id": "s1", "since": format_time(NOON)},
    }
    given = {key: value for key, value in (usual | status).items() if value is not None}
    return {"metadata": meta or metadata(name, labels={"board": "rpi4"}), "spec": spec or {}, "status": given}


def exporter(name: str = "e1", *, meta: Raw | None = None, spec: Raw | None = None, **status: Any) -> Exporter:
    """``raw_exporter``, read."""
    return parse_exporter(raw_exporter(name, meta=meta, spec=spec, **status))


def raw_client(name: str = "alice", *, labels: Mapping[str, str] | None = None, status: Raw | None = None) -> Raw:
    """A client."""
    return {"metadata": metadata(name, labels=labels), "spec": {}} | ({} if status is None else {"status": status})


def client(name: str = "alice", *, labels: Mapping[str, str] | None = None, status: Raw | None = None) -> Client:
    """``raw_client``, read."""
    return parse_client(raw_client(name, labels=labels, status=status))


def rule(clients: Mapping[str, str] | None = None, **fields: Any) -> Raw:
    """A rule for clients with these labels (None: all)."""
    selector = {} if clients is None else {"matchLabels": dict(clients)}
    return {"from": [{"clientSelector": selector}]} | fields


def raw_policy(name: str, *rules: Raw, exporters: Mapping[str, str] | None = None) -> Raw:
    """A policy about exporters with these labels (None: all)."""
    selector = {} if exporters is None else {"matchLabels": dict(exporters)}
    return {"metadata": metadata(name), "spec": {"exporterSelector": selector, "policies": list(rules)}}


def policy(name: str, *rules: Raw, exporters: Mapping[str, str] | None = None) -> Policy:
    """``raw_policy``, read."""
    return parse_policy(raw_policy(name, *rules, exporters=exporters))


def conditions(*triples: tuple[str, str, str], generation: int = 1, since: datetime = NOON) -> list[Raw]:
    """Stored conditions from (type, status, reason)."""
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": reason,
            "lastTransitionTime": format_time(since),
            "observedGeneration": generation,
        }
        for kind, status, reason in triples
    ]
