"""The merge patches that the operator sends. Every deciding one names the version that it was decided on."""

from collections.abc import Iterable
from datetime import datetime

from lablease.kube.api import RawObject
from lablease.model.durations import format_time
from lablease.model.exporter import Exporter
from lablease.model.lease import Lease
from lablease.model.meta import LABEL_ENDED, Condition, Meta, to_conditions
from lablease.rules.policy import Approval


def _status(meta: Meta, status: RawObject) -> RawObject:
    return {"metadata": {"resourceVersion": meta.resource_version}, "status": status}


def take_slot(exporter: Exporter, lease: str, grant: int) -> RawObject:
    """The slot names the lease; what it named before is over."""
    return _status(exporter.meta, {"leaseRef": {"name": lease}, "grant": grant})


def free_slot(exporter: Exporter) -> RawObject:
    """The slot is empty; the number of the last grant stays."""
    return _status(exporter.meta, {"leaseRef": None})


def exporter_conditions(exporter: Exporter, conditions: Iterable[Condition]) -> RawObject:
    """The conditions of an exporter."""
    return _status(exporter.meta, {"conditions": to_conditions(conditions)})


def lease_ready(
    lease: Lease, *, exporter: str, grant: int, approval: Approval, begin: datetime, conditions: Iterable[Condition]
) -> RawObject:
    """Everything that a grant says in the lease, in one write."""
    status: RawObject = {
        "ended": False,
        "exporterRef": {"name": exporter},
        "grant": grant,
        "priority": approval.priority,
        "spotAccess": approval.spot,
        "conditions": to_conditions(conditions),
    }
    if lease.status.begin is None:
        status["beginTime"] = format_time(begin)
    return _status(lease.meta, status)


def lease_conditions(lease: Lease, conditions: Iterable[Condition], notice: datetime | None) -> RawObject:
    """The conditions of a lease that has not ended, and the end that it is given notice of, if any."""
    status: RawObject = {"ended": False, "conditions": to_conditions(conditions)}
    if notice != lease.status.end:
        status["endTime"] = None if notice is None else format_time(notice)
    return _status(lease.meta, status)


def lease_ended(lease: Lease, at: datetime, conditions: Iterable[Condition]) -> RawObject:
    """The lease is over."""
    return _status(lease.meta, {"ended": True, "endTime": format_time(at), "conditions": to_conditions(conditions)})


def ended_label(version: str) -> RawObject:
    """The label that stock tools filter by."""
    return {"metadata": {"resourceVersion": version, "labels": {LABEL_ENDED: "true"}}}
