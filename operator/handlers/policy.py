"""Events of exporteraccesspolicies: they only say what to look at."""

from typing import Any

import kopf

from lablease.model.meta import GROUP, VERSION
from lablease.operator.plane import take
from lablease.operator.writes import Kind


@kopf.on.event(GROUP, VERSION, "exporteraccesspolicies")
async def policy_seen(event: kopf.RawEvent, memo: Any, **_: Any) -> None:
    """Take in what the API server says."""
    take(memo, Kind.POLICY, event)
