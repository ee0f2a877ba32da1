"""Kubernetes Events: what ``kubectl describe`` tells about an object that cannot carry a condition of ours.

The name of an Event follows from what it says, so that saying it again, after a restart or by another replica, is
refused by the API server as existing and costs nothing.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import datetime

import structlog

from lablease.errors import AlreadyExists, LableaseError
from lablease.kube.api import KubeApi, RawObject
from lablease.kube.resources import EVENTS
from lablease.model.durations import format_time
from lablease.model.meta import Meta
from lablease.operator.writes import RESOURCES, Kind

_WAITING = 1_000
"""So many Events may wait for the API server; what comes beyond is only logged."""
_NOTE_CHARACTERS = 1_024
"""The API server refuses longer notes."""
_REPORTER = "lablease.dev/operator"

log = structlog.get_logger("lablease.operator")


@dataclass(frozen=True, slots=True)
class Event:
    """A warning about one object. ``reason`` is a CamelCase word, ``note`` one sentence."""

    kind: Kind
    meta: Meta
    reason: str
    note: str
    at: datetime


def to_event(event: Event, instance: str) -> RawObject:
    """Return the ``events.k8s.io/v1`` object of an event; ``instance`` says which replica reports it."""
    key, resource = event.meta.key, RESOURCES[event.kind]
    said = f"{event.meta.uid} {event.reason} {event.note}".encode()
    return {
        "metadata": {"name": f"{key.name[:200]}.{hashlib.sha256(said).hexdigest()[:16]}", "namespace": key.namespace},
        "eventTime": format_time(event.at.replace(microsecond=event.at.microsecond or 1)),
        "reportingController": _REPORTER,
        "reportingInstance": instance[:128],
        "action": "Read",
        "reason": event.reason,
        "type": "Warning",
        "note": event.note[:_NOTE_CHARACTERS],
        "regarding": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "namespace": key.namespace,
            "name": key.name,
            "uid": event.meta.uid,
        },
    }


class Teller:
    """Writes Events in the background: what nobody may ever wait for."""

    def __init__(self, api: KubeApi, instance: str) -> None:
        self._api = api
        self._instance = instance
        self._queue: asyncio.Queue[Event] = asyncio.Queue(_WAITING)

    def tell(self, event: Event) -> None:
        """Log an event, and write it soon unless too many wait already."""
        key = event.meta.key
        log.warning(
            "object.problem",
            kind=str(event.kind),
            namespace=key.namespace,
            name=key.name,
            reason=event.reason,
            problem=event.note,
        )
        if not self._queue.full():
            self._queue.put_nowait(event)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._api.create(EVENTS, event.meta.key.namespace, to_event(event, self._instance))
            except AlreadyExists:
                continue
            except LableaseError as problem:
                log.warning("event.failed", name=str(event.meta.key), reason=str(problem))
