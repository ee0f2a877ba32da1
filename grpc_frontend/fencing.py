"""What routers must know of each exporter's grants: which are over, whom they serve no longer, when the newest ends.

Everything but the transfers is derived from the caches, so a front end that was just started says the same as an old one.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from lablease import clock
from lablease.grpc_frontend.records import ExporterRecord
from lablease.grpc_frontend.store import Store
from lablease.grpc_frontend.telling import Held, settled, word
from lablease.model.grant import Grant
from lablease.model.keys import Key
from lablease.model.lease import Lease
from lablease.tokens.router import MAX_LIFETIME

TRANSFERS = 10_000
"""How many transfers are remembered at most; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Over:
    """This grant of the exporter, and all lower ones, have ended."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Moved:
    """``grant.client`` holds this grant no longer; another client does."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Runs:
    """This grant is served until its planned end."""

    grant: Grant


Statement = Over | Moved | Runs


class Fencing:
    """Turns changes of the caches into statements per exporter, and tells subscribers which exporters to look at."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._over: dict[Key, int] = {}
        self._transfers: OrderedDict[tuple[Key, int, str], datetime] = OrderedDict()
        self._subscribers: list[Callable[[Key], None]] = []
        store.exporters.add_listener(self._exporter_changed)
        store.leases.add_listener(self._lease_changed)

    def subscribe(self, changed: Callable[[Key], None]) -> Callable[[], None]:
        """Call a function with each exporter about which there may be news; the result stops it."""
        self._subscribers.append(changed)
        return lambda: self._subscribers.remove(changed)

    def exporters(self) -> Iterable[Key]:
        """Return all exporters about which there is something to say."""
        return {record.exporter.key for record in self._store.exporters.values()} | self._over.keys()

    def statements(self, key: Key) -> tuple[Statement, ...]:
        """Return what is known about one exporter's grants."""
        exporter = self._store.exporter(key)
        held = None
        if exporter is not None:
            lease = self._store.leases.get(Key(key.namespace, exporter.lease)) if exporter.lease else None
            now = word(exporter, lease)
            if isinstance(now, Held):
                held = now
            elif settled(exporter, lease):
                self._learn_over(key, now.over)
        over = self._over.get(key, 0)
        said: list[Statement] = []
        if over > 0 and (held is None or over < held.grant):
            said.append(Over(_grant(key, over)))
        if held is not None and held.grant > 0:
            said += [Moved(grant) for grant in self._moved(key, held)]
            said.append(Runs(_grant(key, held.grant, held.lease, held.client, held.end)))
        return tuple(said)

    def _moved(self, key: Key, held: Held) -> list[Grant]:
        now = clock.utc_now()
        while self._transfers and next(iter(self._transfers.values())) <= now:
            self._transfers.popitem(last=False)
        clients = [client for where, number, client in self._transfers if where == key and number == held.grant]
        return [_grant(key, held.grant, held.lease, client) for client in clients if client != held.client]

    def _learn_over(self, key: Key, number: int) -> None:
        if number > self._over.get(key, 0):
            self._over[key] = number

    def _exporter_changed(self, old: ExporterRecord | None, new: ExporterRecord | None) -> None:
        if new is not None:
            self._tell(new.exporter.key)
        elif old is not None:
            self._learn_over(old.exporter.key, old.exporter.grant)
            self._tell(old.exporter.key)

    def _lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        lease = new or old
        if lease is None or lease.status.exporter is None:
            return
        key = Key(lease.key.namespace, lease.status.exporter)
        if new is None or new.status.ended:
            self._learn_over(key, lease.status.grant)
        elif old is not None and old.spec.client != new.spec.client:
            self._transfers[key, new.status.grant, old.spec.client] = clock.utc_now() + MAX_LIFETIME
            self._transfers.move_to_end((key, new.status.grant, old.spec.client))
            if len(self._transfers) > TRANSFERS:
                self._transfers.popitem(last=False)
        self._tell(key)

    def _tell(self, key: Key) -> None:
        for subscriber in tuple(self._subscribers):
            subscriber(key)


_UNKNOWN = "-"
"""Stands for the lease and the client of a grant that is over: routers go by exporter and number."""


def _grant(key: Key, number: int, lease: str = _UNKNOWN, client: str = _UNKNOWN, end: datetime | None = None) -> Grant:
    return Grant(key.namespace, key.name, lease, number, client, end)
