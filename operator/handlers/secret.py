"""Events of the token Secrets that the operator made; other Secrets are not followed."""

from typing import Any

import kopf

from lablease.operator.plane import take
from lablease.operator.writes import Kind


@kopf.on.event("", "v1", "secrets")
async def secret_seen(event: kopf.RawEvent, memo: Any, **_: Any) -> None:
    """Take in what the API server says."""
    take(memo, Kind.SECRET, event)
