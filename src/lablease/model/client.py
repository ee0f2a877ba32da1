"""The Client CRD as a value."""

from dataclasses import dataclass
from datetime import datetime

from lablease.model.fields import Json, as_int, as_mapping, as_string, ref_name
from lablease.model.keys import Key
from lablease.model.lease import optional_time
from lablease.model.meta import Condition, Meta, parse_conditions, parse_meta


@dataclass(frozen=True, slots=True)
class Client:
    """One client: a person, a CI job or an agent that may ask for leases."""

    meta: Meta
    username: str | None = None
    credential: str | None = None
    credential_generation: int = 0
    endpoint: str = ""
    token_expires: datetime | None = None
    conditions: tuple[Condition, ...] = ()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.meta.key


def parse_client(raw: Json) -> Client:
    """Read a stored Client object."""
    spec = as_mapping(raw.get("spec"), "spec")
    status = as_mapping(raw.get("status"), "status")
    return Client(
        meta=parse_meta(raw),
        username=as_string(spec.get("username"), "spec.username") or None,
        credential=ref_name(status.get("credential"), "status.credential"),
        credential_generation=as_int(status.get("credentialGeneration"), "status.credentialGeneration"),
        endpoint=as_string(status.get("endpoint"), "status.endpoint"),
        token_expires=optional_time(status.get("tokenExpiresAt"), "status.tokenExpiresAt"),
        conditions=parse_conditions(status.get("conditions"), "status.conditions"),
    )
