"""Kopf as the event plane: it lists and watches, and it writes nothing.

Its handlers are ``on.event`` only. They keep no state on the objects: no annotation, no finalizer, no last-seen copy.
All decisions are made by one task, the brain, from what the handlers feed it.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import kopf

from lablease.kube.config import KubeConfig
from lablease.model.meta import MANAGED_BY, MANAGED_LABEL
from lablease.operator.brain import Brain
from lablease.operator.sweep import Sweep
from lablease.operator.writes import Kind

_TOKEN_SECONDS = 30.0


class Backoffs(Iterable[float]):
    """Pauses between attempts. Kopf ends the process when they are used up, so they never are."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.05, 0.1, 0.2, 0.4)
        while True:
            yield 0.5


@dataclass(frozen=True, slots=True)
class Memo:
    """What the handlers reach: shared by all objects, so copies are itself."""

    brain: Brain
    sweep: Sweep
    session: kopf.AiohttpSession

    def __copy__(self) -> "Memo":
        return self


def take(memo: Memo, kind: Kind, event: kopf.RawEvent) -> None:
    """Feed one event to the brain. ``type`` is None for what was listed."""
    raw: dict[str, Any] = dict(event["object"])
    memo.brain.observe(kind, raw, gone=event["type"] == "DELETED")
    if event["type"] is None:
        memo.sweep.listed()


Session = kopf.AiohttpSession


class NoDiffBase(kopf.DiffBaseStorage):
    """Keeps no copy of what was seen last; the empty essence also saves Kopf its deep copies."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None) -> kopf.BodyEssence:
        """Nothing of an object matters to Kopf itself."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing is stored."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""


class NoProgress(kopf.ProgressStorage):
    """Keeps no progress of handlers: an event handler has none."""

    def fetch(self, *, key: kopf.HandlerId, body: kopf.Body) -> kopf.ProgressRecord | None:
        """Nothing is stored."""
        return None

    def store(self, *, key: kopf.HandlerId, record: kopf.ProgressRecord, body: kopf.Body, patch: kopf.Patch) -> None:
        """Store nothing."""

    def purge(self, *, key: kopf.HandlerId, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nothing is stored."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Never wake an object by writing to it."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Nothing is stored."""
        return essence


def settings() -> kopf.OperatorSettings:
    """Return how Kopf should behave."""
    chosen = kopf.OperatorSettings()
    chosen.persistence.diffbase_storage = NoDiffBase()
    chosen.persistence.progress_storage = NoProgress()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.scanning.disabled = True
    chosen.networking.error_backoffs = Backoffs()
    chosen.networking.request_timeout = 10
    chosen.process.ultimate_exiting_timeout = 20
    chosen.watching.label_selectors["", "v1", "secrets"] = f"{MANAGED_LABEL}={MANAGED_BY}"
    return chosen


@kopf.on.login()
async def login(memo: Any, **_: Any) -> kopf.AiohttpSession:
    """Use our own way to the API server, with a token that is read from its file again and again."""
    session: kopf.AiohttpSession = memo.session
    return session


async def session_for(config: KubeConfig) -> kopf.AiohttpSession:
    """Open the session that Kopf uses."""
    connector = aiohttp.TCPConnector(limit=0, ssl=config.tls)
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
    _authorize(session, config)
    return kopf.AiohttpSession(server=config.server, default_namespace=config.namespace, aiohttp_session=session)


async def keep_authorized(session: kopf.AiohttpSession, config: KubeConfig) -> None:
    """Follow a token that is rotated in place, until cancelled."""
    while True:
        await asyncio.sleep(_TOKEN_SECONDS)
        _authorize(session.aiohttp_session, config)


def _authorize(session: aiohttp.ClientSession, config: KubeConfig) -> None:
    bearer = config.bearer()
    if bearer is not None:
        session.headers["Authorization"] = f"Bearer {bearer}"


async def follow(memo: Memo, namespaces: Collection[str], ready: asyncio.Event) -> None:
    """Run Kopf until cancelled; it raises what ends it."""
    await kopf.operator(
        settings=settings(),
        memo=memo,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        ready_flag=ready,
    )
