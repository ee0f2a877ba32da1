"""Where waiting leases stand: the rules' answer over the caches, at a bounded cost."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from lablease import clock
from lablease.grpc_frontend.records import ExporterRecord
from lablease.grpc_frontend.store import Store
from lablease.model.client import Client
from lablease.model.keys import Key
from lablease.model.lease import Lease
from lablease.model.policy import Policy
from lablease.rules.queue import place
from lablease.rules.world import World
from lablease.wire.codec_client import Queued

SHARE = 0.05
"""Part of the time that may go into this: each look goes through all leases."""
_REMEMBERED = 5_000


class Places:
    """Keeps a ``World`` up to date. When there is no time for a new look, the last answer for a lease is given."""

    def __init__(self, store: Store, monotonic: Callable[[], float] = clock.monotonic) -> None:
        self._monotonic = monotonic
        self._world = World(store.namespace)
        self._next = 0.0
        self._last: OrderedDict[Key, Queued] = OrderedDict()
        store.leases.add_listener(self._lease)
        store.exporters.add_listener(self._exporter)
        store.clients.add_listener(self._client)
        store.policies.add_listener(self._policy)

    def of(self, lease: Lease, now: datetime) -> Queued | None:
        """Return the place of a lease that waits; None if it does not, or nothing is known yet."""
        if lease.status.exporter is not None or lease.status.ended or lease.release_asked:
            self._last.pop(lease.key, None)
            return None
        begun = self._monotonic()
        if begun < self._next:
            return self._last.get(lease.key)
        found = place(lease, self._world, now)
        ended = self._monotonic()
        self._next = ended + (ended - begun) * (1 - SHARE) / SHARE
        if found is None:
            self._last.pop(lease.key, None)
            return None
        queued = self._last[lease.key] = Queued(found.position, found.begin)
        self._last.move_to_end(lease.key)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        return queued

    def _lease(self, old: Lease | None, new: Lease | None) -> None:
        if new is not None and not new.status.ended:
            self._world.put_lease(new)
        elif old is not None:
            self._world.forget_lease(old.key.name)

    def _exporter(self, old: ExporterRecord | None, new: ExporterRecord | None) -> None:
        if new is not None:
            self._world.put_exporter(new.exporter)
        elif old is not None:
            self._world.forget_exporter(old.exporter.key.name)

    def _client(self, old: Client | None, new: Client | None) -> None:
        if new is not None:
            self._world.clients[new.key.name] = new
        elif old is not None:
            self._world.clients.pop(old.key.name, None)

    def _policy(self, old: Policy | None, new: Policy | None) -> None:
        if new is not None:
            self._world.put_policy(new)
        elif old is not None:
            self._world.forget_policy(old.key.name)
