"""Who holds a Status stream: ``Exporter.status.session`` is the heartbeat that others see.

Nothing is written while a stream is merely open, except ``lastSeen`` every quarter of an hour.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import uuid4

import structlog

from lablease import clock
from lablease.errors import NotFound, Stale
from lablease.grpc_frontend.store import Store, until_back
from lablease.model.durations import format_time
from lablease.model.exporter import Exporter, ExporterStatus
from lablease.model.keys import Key

RECONNECT_GRACE = timedelta(seconds=15)
"""How long an exporter may be away before others are told so."""
LAST_SEEN_EVERY = timedelta(minutes=15)
LAST_SEEN_JITTER = 0.2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """One Status stream of an exporter at this replica."""

    key: Key
    id: str


class Sessions:
    """Writes the sessions of this replica."""

    def __init__(self, store: Store, frontend: str, grace: timedelta = RECONNECT_GRACE) -> None:
        self._store = store
        self._frontend = frontend
        self._grace = grace
        self._clearing: set[asyncio.Task[None]] = set()

    @staticmethod
    def begin(key: Key) -> OpenSession:
        """Give a new stream its identity; nothing is written before ``claim``, and ``close`` must follow either way."""
        return OpenSession(key, uuid4().hex)

    async def claim(self, session: OpenSession) -> Exporter:
        """Say that the exporter is connected here; returns what the API server answered. Waits while it is away.

        A status Offline of an earlier life goes with the same write, any other stays.

        Raises:
            NotFound: the exporter is gone.
        """
        now = clock.utc_now()
        status: dict[str, object] = {
            "session": {"frontend": self._frontend, "id": session.id, "since": format_time(now)},
            "lastSeen": last_seen(now),
        }
        known = self._store.exporter(session.key)
        if known is not None and known.status is ExporterStatus.OFFLINE:
            status |= {"exporterStatus": None, "statusMessage": None}
        record = await until_back(lambda: self._store.patch_exporter_status(session.key, status))
        log.info("exporter.connected", exporter=session.key.name, session=session.id)
        return record.exporter

    async def seen(self, key: Key) -> None:
        """Refresh ``lastSeen``."""
        await self._store.patch_exporter_status(key, {"lastSeen": last_seen(clock.utc_now())})

    def close(self, session: OpenSession) -> None:
        """Clear the session after the grace, unless the exporter is back by then, here or elsewhere."""
        log.info("exporter.disconnected", exporter=session.key.name, session=session.id)
        task = asyncio.create_task(self._clear(session))
        self._clearing.add(task)
        task.add_done_callback(lambda done: self._cleared(session.key, done))

    def stop(self) -> None:
        """Give up all clearing: another replica, or the operator, sees to it when this one is gone."""
        for task in self._clearing:
            task.cancel()

    async def _clear(self, session: OpenSession) -> None:
        await asyncio.sleep(self._grace.total_seconds())
        known = self._store.exporter(session.key)
        while known is not None and known.session is not None and known.session.id == session.id:
            try:
                seen = known.meta.resource_version
                await until_back(partial(self._store.patch_exporter_status, session.key, {"session": None}, seen))
            except Stale:
                known = await until_back(lambda: self._store.read_exporter(session.key))
            except NotFound:
                return
            else:
                log.info("exporter.lost", exporter=session.key.name, session=session.id)
                return

    def _cleared(self, key: Key, done: "asyncio.Task[None]") -> None:
        self._clearing.discard(done)
        if not done.cancelled() and done.exception() is not None:
            log.error("session.clearing_failed", exporter=key.name, reason=str(done.exception()))


def last_seen(now: datetime) -> str:
    """Spell ``lastSeen``: whole seconds, as the CRD's other writers do."""
    return format_time(now.replace(microsecond=0))


def last_seen_due(exporter: Exporter, chance: float) -> datetime | None:
    """Return when ``lastSeen`` is due to be written again (None: now). ``chance`` in 0..1 spreads a fleet over time."""
    if exporter.last_seen is None:
        return None
    return exporter.last_seen + LAST_SEEN_EVERY * (1 - LAST_SEEN_JITTER * chance)
