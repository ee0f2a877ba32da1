"""What every Kubernetes object has: metadata and conditions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from lablease.errors import InvalidField
from lablease.model.durations import format_time, parse_time
from lablease.model.fields import Json, as_int, as_list, as_mapping, as_string, as_string_map
from lablease.model.keys import Key

GROUP = "jumpstarter.dev"
VERSION = "v1alpha1"
LABEL_PREFIX = f"{GROUP}/"
"""Labels of exporters below this prefix belong to Register; on leases it is reserved."""
TAG_PREFIX = f"metadata.{GROUP}/"
LABEL_ENDED = f"{GROUP}/lease-ended"
ORIGIN_LABEL = "lablease.dev/origin"
"""On a lease: who made it. Such a lease ends when it cannot be met; one from a manifest stays open."""
ORIGIN_FRONTEND = "frontend"
FRONTEND_LEASE_PREFIX = "lablease-frontend-"
"""Before the name of a front end, it names the ``coordination.k8s.io`` Lease that this front end renews."""
MANAGED_LABEL = "app.kubernetes.io/managed-by"
"""On the token Secrets that the operator made, with the value ``lablease``."""
MANAGED_BY = "lablease"


@dataclass(frozen=True, slots=True)
class Meta:
    """The metadata of one object as seen at ``resource_version``."""

    key: Key
    uid: str
    resource_version: str
    generation: int
    created: datetime
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    deleting: bool = False


def parse_meta(raw: Json) -> Meta:
    """Read ``metadata``; an object without a creation time (it was never stored) is as old as time."""
    body = as_mapping(raw.get("metadata"), "metadata")
    created = as_string(body.get("creationTimestamp"), "metadata.creationTimestamp")
    return Meta(
        key=Key(as_string(body.get("namespace"), "metadata.namespace"), as_string(body.get("name"), "metadata.name")),
        uid=as_string(body.get("uid"), "metadata.uid"),
        resource_version=as_string(body.get("resourceVersion"), "metadata.resourceVersion"),
        generation=as_int(body.get("generation"), "metadata.generation"),
        created=parse_time(created, "metadata.creationTimestamp") if created else datetime.min.replace(tzinfo=UTC),
        labels=as_string_map(body.get("labels"), "metadata.labels"),
        annotations=as_string_map(body.get("annotations"), "metadata.annotations"),
        deleting=body.get("deletionTimestamp") is not None,
    )


class Truth(StrEnum):
    """The three values of a condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One ``metav1.Condition``; ``type`` and ``reason`` are CamelCase words."""

    type: str
    status: Truth
    reason: str
    message: str
    last_transition: datetime
    observed_generation: int = 0


def parse_conditions(raw: object, field: str) -> tuple[Condition, ...]:
    """Read a list of conditions; the order is kept, since clients read the last one as the decisive one."""
    return tuple(
        _parse_condition(as_mapping(item, f"{field}[{index}]"), f"{field}[{index}]")
        for index, item in enumerate(as_list(raw, field))
    )


def _parse_condition(raw: Json, field: str) -> Condition:
    return Condition(
        type=as_string(raw.get("type"), f"{field}.type"),
        status=_parse_truth(as_string(raw.get("status"), f"{field}.status"), f"{field}.status"),
        reason=as_string(raw.get("reason"), f"{field}.reason"),
        message=as_string(raw.get("message"), f"{field}.message"),
        last_transition=parse_time(
            as_string(raw.get("lastTransitionTime"), f"{field}.lastTransitionTime"), f"{field}.lastTransitionTime"
        ),
        observed_generation=as_int(raw.get("observedGeneration"), f"{field}.observedGeneration"),
    )


def _parse_truth(text: str, field: str) -> Truth:
    try:
        return Truth(text)
    except ValueError:
        raise InvalidField(field, "must be True, False or Unknown") from None


def to_conditions(conditions: Iterable[Condition]) -> list[dict[str, object]]:
    """Return the JSON list of conditions, each with all six fields: ``jmp admin`` 0.9.0 needs every one."""
    return [
        {
            "type": item.type,
            "status": str(item.status),
            "reason": item.reason,
            "message": item.message,
            "lastTransitionTime": format_time(item.last_transition.replace(microsecond=0)),
            "observedGeneration": item.observed_generation,
        }
        for item in conditions
    ]


def condition(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """Return the condition of a type, or None."""
    return next((item for item in conditions if item.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: str) -> bool:
    """True if the condition exists and holds."""
    found = condition(conditions, kind)
    return found is not None and found.status is Truth.TRUE
