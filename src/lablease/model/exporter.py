"""The Exporter CRD as a value."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lablease.errors import InvalidField
from lablease.model.fields import Json, as_bool, as_int, as_mapping, as_string, ref_name
from lablease.model.keys import Key
from lablease.model.lease import optional_time
from lablease.model.meta import Condition, Meta, parse_conditions, parse_meta


class ExporterStatus(StrEnum):
    """The life-cycle that an exporter reports, as the CRD spells it."""

    UNSPECIFIED = "Unspecified"
    OFFLINE = "Offline"
    AVAILABLE = "Available"
    BEFORE_LEASE_HOOK = "BeforeLeaseHook"
    LEASE_READY = "LeaseReady"
    AFTER_LEASE_HOOK = "AfterLeaseHook"
    BEFORE_LEASE_HOOK_FAILED = "BeforeLeaseHookFailed"
    AFTER_LEASE_HOOK_FAILED = "AfterLeaseHookFailed"


class ExporterCondition(StrEnum):
    """The condition types of an exporter."""

    ONLINE = "Online"
    REGISTERED = "Registered"
    STUCK = "Stuck"
    DUPLICATE_SESSION = "DuplicateSession"


@dataclass(frozen=True, slots=True)
class Session:
    """The Status stream that an exporter holds: at which front end replica, which stream, since when."""

    frontend: str
    id: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Exporter:
    """One exporter. ``lease`` is the name in its slot, with ``grant`` the number of the last grant (0: none yet)."""

    meta: Meta
    username: str | None = None
    enabled: bool = True
    lease: str | None = None
    grant: int = 0
    conditions: tuple[Condition, ...] = ()
    status: ExporterStatus | None = None
    status_message: str = ""
    registered: bool = False
    """It has reported at least one device."""
    last_seen: datetime | None = None
    session: Session | None = None
    credential: str | None = None
    credential_generation: int = 0
    endpoint: str = ""
    problems: tuple[InvalidField, ...] = ()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.meta.key


def parse_exporter(raw: Json) -> Exporter:
    """Read a stored Exporter object; an ``exporterStatus`` of a later version reads as Unspecified."""
    spec = as_mapping(raw.get("spec"), "spec")
    status = as_mapping(raw.get("status"), "status")
    return Exporter(
        meta=parse_meta(raw),
        username=as_string(spec.get("username"), "spec.username") or None,
        enabled=as_bool(spec.get("enabled"), "spec.enabled", default=True),
        lease=ref_name(status.get("leaseRef"), "status.leaseRef"),
        grant=as_int(status.get("grant"), "status.grant"),
        conditions=parse_conditions(status.get("conditions"), "status.conditions"),
        status=parse_exporter_status(as_string(status.get("exporterStatus"), "status.exporterStatus")),
        status_message=as_string(status.get("statusMessage"), "status.statusMessage"),
        registered=bool(status.get("devices")),
        last_seen=optional_time(status.get("lastSeen"), "status.lastSeen"),
        session=_parse_session(status.get("session")),
        credential=ref_name(status.get("credential"), "status.credential"),
        credential_generation=as_int(status.get("credentialGeneration"), "status.credentialGeneration"),
        endpoint=as_string(status.get("endpoint"), "status.endpoint"),
    )


def parse_exporter_status(text: str) -> ExporterStatus | None:
    """Read ``exporterStatus``: absent reads as None, an unknown word as Unspecified."""
    if not text:
        return None
    try:
        return ExporterStatus(text)
    except ValueError:
        return ExporterStatus.UNSPECIFIED


def _parse_session(raw: object) -> Session | None:
    if raw is None:
        return None
    body = as_mapping(raw, "status.session")
    since = optional_time(body.get("since"), "status.session.since")
    identity = as_string(body.get("id"), "status.session.id")
    if since is None or not identity:
        return None
    return Session(as_string(body.get("frontend"), "status.session.frontend"), identity, since)
