"""Objects of the Kubernetes API as rows of a table. A field that is not there yet is an empty cell."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from lablease.client.durations import format_duration
from lablease.model.fields import as_list, as_mapping, as_string

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "client": ("NAME", "ENDPOINT"),
    "exporter": ("NAME", "STATUS", "ENDPOINT", "DEVICES", "AGE"),
    "lease": ("NAME", "CLIENT", "SELECTOR", "EXPORTER", "DURATION", "STATUS", "REASON", "BEGIN", "END", "AGE"),
}


def row(kind: str, item: Mapping[str, object], now: datetime) -> tuple[str, ...]:
    """Return the cells of ``COLUMNS[kind]``."""
    meta, spec, status = (as_mapping(item.get(part), part) for part in ("metadata", "spec", "status"))
    name = as_string(meta.get("name"), "metadata.name")
    created = as_string(meta.get("creationTimestamp"), "metadata.creationTimestamp")
    age = format_duration(now - datetime.fromisoformat(created))
    match kind:
        case "client":
            return name, as_string(status.get("endpoint"), "status.endpoint")
        case "exporter":
            state = as_string(status.get("exporterStatus"), "status.exporterStatus") or "Unknown"
            devices = str(len(as_list(status.get("devices"), "status.devices")))
            return name, state, as_string(status.get("endpoint"), "status.endpoint"), devices, age
        case _:
            return name, *_lease(spec, status), age


def _lease(spec: Mapping[str, object], status: Mapping[str, object]) -> tuple[str, ...]:
    conditions = as_list(status.get("conditions"), "status.conditions")
    last = as_mapping(conditions[-1] if conditions else None, "status.conditions")
    return (
        _name(spec, "clientRef"),
        _selector(as_mapping(spec.get("selector"), "spec.selector")),
        _name(status, "exporterRef") or _name(spec, "exporterRef"),
        as_string(spec.get("duration"), "spec.duration"),
        "Ended" if status.get("ended") else "InProgress",
        as_string(last.get("reason"), "reason"),
        as_string(status.get("beginTime"), "status.beginTime"),
        as_string(status.get("endTime"), "status.endTime"),
    )


def _name(part: Mapping[str, object], ref: str) -> str:
    return as_string(as_mapping(part.get(ref), ref).get("name"), f"{ref}.name")


def _selector(selector: Mapping[str, object]) -> str:
    parts = [f"{key}={value}" for key, value in as_mapping(selector.get("matchLabels"), "matchLabels").items()]
    for expression in as_list(selector.get("matchExpressions"), "matchExpressions"):
        item = as_mapping(expression, "matchExpressions")
        values = ",".join(str(value) for value in as_list(item.get("values"), "values"))
        parts.append(f"{item.get('key')} {item.get('operator')} {values}".rstrip())
    return ",".join(parts) or "*"
