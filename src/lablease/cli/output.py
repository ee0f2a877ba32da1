"""Leases and exporters as tables, JSON, YAML or names. The keys are those of ``jmp get`` 0.9.0, plus ours."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import click

from lablease.client.durations import format_duration
from lablease.client.resources import Condition, ExporterInfo, LeaseInfo

_UNBOUNDED = 100_000  # columns; a table that goes into a pipe or file is never wrapped


def print_data(data: Mapping[str, Any], output: str) -> None:
    """Print as ``json`` or ``yaml``."""
    if output == "json":
        click.echo(json.dumps(data, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(dict(data), sort_keys=False), nl=False)


def print_names(names: Iterable[str]) -> None:
    """Print one name a line."""
    for name in names:
        click.echo(name)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns without borders; wrapped to the terminal, not wrapped elsewhere."""
    from rich.console import Console
    from rich.table import Table

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNBOUNDED
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(width=width, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def lease_data(lease: LeaseInfo) -> dict[str, Any]:
    """Return a lease as plain values; durations in seconds, instants in ISO 8601."""
    data: dict[str, Any] = {
        "namespace": lease.namespace,
        "name": lease.name,
        "selector": lease.selector,
        "exporter_name": lease.exporter_name or None,
        "tags": dict(lease.tags),
        "duration": _seconds(lease.duration),
        "effective_duration": _seconds(lease.effective_duration),
        "begin_time": _iso(lease.begin_time),
        "client": lease.client,
        "exporter": lease.exporter,
        "conditions": [_condition(c) for c in lease.conditions],
        "effective_begin_time": _iso(lease.effective_begin_time),
        "effective_end_time": _iso(lease.effective_end_time),
        "deprecated_labels": dict(lease.deprecated_labels),
    }
    if lease.queue_position:
        data["queue_position"] = lease.queue_position
    if lease.estimated_begin:
        data["estimated_begin"] = _iso(lease.estimated_begin)
    return data


def lease_row(lease: LeaseInfo, now: datetime) -> tuple[str, ...]:
    """Return the columns NAME SELECTOR, EXPIRES AT, REMAINING, CLIENT, EXPORTER, TAGS."""
    end = lease.planned_end
    if end is None and lease.begin_time and lease.duration:
        end = lease.begin_time + lease.duration
    if end is None:
        left = ""
    elif end <= now:
        left = "expired"
    else:
        left = format_duration(end - now)
    tags = ",".join(f"{k}={v}" for k, v in sorted(lease.tags.items()))
    return lease.name, lease.selector, _local(end), left, lease.client, lease.exporter, tags


LEASE_COLUMNS = ("NAME", "SELECTOR", "EXPIRES AT", "REMAINING", "CLIENT", "EXPORTER", "TAGS")


def exporter_data(exporter: ExporterInfo, shown: frozenset[str], lease: LeaseInfo | None) -> dict[str, Any]:
    """Return an exporter as plain values with the extra fields that were asked for."""
    data: dict[str, Any] = {
        "namespace": exporter.namespace,
        "name": exporter.name,
        "labels": dict(exporter.labels),
        "deprecated_labels": list(exporter.deprecated_labels),
    }
    if "online" in shown:
        data["online"] = exporter.online
    if "status" in shown:
        data["status"] = exporter.status
    if "enabled" in shown:
        data["enabled"] = exporter.enabled
    if "leases" in shown:
        data["lease"] = lease_data(lease) if lease else None
    return data


def exporter_columns(shown: frozenset[str]) -> tuple[str, ...]:
    """Return the column titles for the extra fields that were asked for."""
    return (
        "NAME",
        *(
            title
            for title, field in (("ENABLED", "enabled"), ("ONLINE", "online"), ("STATUS", "status"))
            if field in shown
        ),
        "LABELS",
        *(("LEASED BY", "LEASE STATUS", "RELEASE TIME") if "leases" in shown else ()),
    )


def exporter_row(exporter: ExporterInfo, shown: frozenset[str], lease: LeaseInfo | None) -> tuple[str, ...]:
    """Return the columns of ``exporter_columns``."""
    row = [exporter.name]
    if "enabled" in shown:
        row.append("yes" if exporter.enabled else "no")
    if "online" in shown:
        row.append("yes" if exporter.online else "no")
    if "status" in shown:
        row.append(exporter.status)
    row.append(",".join(f"{k}={v}" for k, v in sorted(exporter.labels.items())))
    if "leases" in shown:
        row += (lease.client, lease_status(lease), _local(lease.planned_end)) if lease else ("", "Available", "")
    return tuple(row)


def lease_status(lease: LeaseInfo) -> str:
    """Return one word for the state of a lease, from its last condition."""
    last = lease.conditions[-1] if lease.conditions else None
    if lease.effective_end_time or (last and last.reason in {"Released", "Expired"}):
        return "Ended"
    if last and last.type == "Ready" and last.status == "True":
        return "In-Use"
    return last.reason if last else "New"


def _condition(condition: Condition) -> dict[str, Any]:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "last_transition_time": _iso(condition.since),
    }


def _seconds(value: timedelta | None) -> float | None:
    return None if value is None else value.total_seconds()


def _iso(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat().replace("+00:00", "Z")


def _local(value: datetime | None) -> str:
    return value.astimezone().strftime("%Y-%m-%d %H:%M:%S") if value else ""
