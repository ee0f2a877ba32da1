"""Writes as values, and the pool that performs them: at most 32 in flight, the most urgent first."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from lablease.kube.api import KubeApi, RawObject
from lablease.kube.resources import CLIENTS, EXPORTERS, LEASES, POLICIES, SECRETS, Resource
from lablease.model.keys import Key

IN_FLIGHT = 32


class Kind(StrEnum):
    """The kinds of objects that the operator follows."""

    LEASE = "Lease"
    EXPORTER = "Exporter"
    CLIENT = "Client"
    POLICY = "ExporterAccessPolicy"
    SECRET = "Secret"


RESOURCES: Mapping[Kind, Resource] = {
    Kind.LEASE: LEASES,
    Kind.EXPORTER: EXPORTERS,
    Kind.CLIENT: CLIENTS,
    Kind.POLICY: POLICIES,
    Kind.SECRET: SECRETS,
}


class Urgency(IntEnum):
    """What goes first when more wants to be written than may be in flight."""

    END = 0
    GRANT = 1
    FREE = 2
    CREDENTIAL = 3
    WORD = 4
    """What somebody waits for. May be dropped while it is queued, when something better can be said."""
    CHORE = 5


@dataclass(frozen=True, slots=True)
class Ref:
    """One object of one kind."""

    kind: Kind
    key: Key


class Verb(StrEnum):
    """How an object is changed."""

    STATUS = "status"
    PATCH = "patch"
    CREATE = "create"
    DELETE = "delete"


@dataclass(slots=True, eq=False)
class Write:
    """One change of one object, decided on the version that its body names.

    ``event`` and ``facts`` are logged once the API server has accepted it; an empty event logs nothing.
    """

    ref: Ref
    verb: Verb
    urgency: Urgency
    body: RawObject = field(default_factory=dict[str, Any])
    uid: str = ""
    event: str = ""
    facts: Mapping[str, object] = field(default_factory=dict[str, object])
    promise: str = ""
    """The lease that the slot is promised to while this is not settled."""
    started: bool = False
    cancelled: bool = False
    held: bool = False
    """The API server refuses it for good: the object is left alone for a while."""


async def perform(api: KubeApi, write: Write) -> RawObject | None:
    """Send one write and return the object as it is now; None after a deletion."""
    resource, key = RESOURCES[write.ref.kind], write.ref.key
    match write.verb:
        case Verb.STATUS:
            return await api.patch(resource, key, write.body, subresource="status")
        case Verb.PATCH:
            return await api.patch(resource, key, write.body)
        case Verb.CREATE:
            return await api.create(resource, key.namespace, write.body)
        case Verb.DELETE:
            await api.delete(resource, key, uid=write.uid or None)
            return None


class Pool:
    """Runs writes. ``work`` must settle the write whatever happens; it raises only what should end the process."""

    def __init__(self, work: Callable[[Write], Awaitable[None]]) -> None:
        self._work = work
        self._queue: asyncio.PriorityQueue[tuple[Urgency, int, Write]] = asyncio.PriorityQueue()
        self._numbers = itertools.count()

    def put(self, write: Write) -> None:
        """Queue a write; those of equal urgency keep their order."""
        self._queue.put_nowait((write.urgency, next(self._numbers), write))

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(self._worker())

    async def settled(self) -> None:
        """Wait until nothing is queued or in flight."""
        await self._queue.join()

    async def _worker(self) -> None:
        while True:
            _, _, write = await self._queue.get()
            try:
                if not write.cancelled:
                    write.started = True
                    await self._work(write)
            finally:
                self._queue.task_done()
