"""Which front ends live: judged on our own monotonic clock, from when we saw their Lease change last.

A front end that looks gone is read once more from the API server, so that neither an outage of the API nor a watch that
lags makes exporters look gone that are there.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from lablease import clock
from lablease.errors import LableaseError, NotFound
from lablease.kube.api import KubeApi, RawObject
from lablease.kube.informer import Informer
from lablease.kube.resources import COORDINATION_LEASES
from lablease.model.fields import as_mapping, as_string
from lablease.model.keys import Key
from lablease.model.meta import FRONTEND_LEASE_PREFIX
from lablease.rules.liveness import LAPSE, Presence

_LAPSE_SECONDS = LAPSE.total_seconds()
_TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Beat:
    """What one read of a Lease says: which front end, and a text that changes with each renewal."""

    frontend: str
    renewed: str


def parse_beat(raw: RawObject) -> Beat | None:
    """Read a ``coordination.k8s.io`` Lease; None if it is not that of a front end."""
    name = as_string(as_mapping(raw.get("metadata"), "metadata").get("name"), "metadata.name")
    if not name.startswith(FRONTEND_LEASE_PREFIX):
        return None
    renewed = as_string(as_mapping(raw.get("spec"), "spec").get("renewTime"), "spec.renewTime")
    return Beat(name.removeprefix(FRONTEND_LEASE_PREFIX), renewed)


@dataclass(slots=True)
class _Sight:
    renewed: str
    seen: float
    lost: datetime | None = None


class Frontends:
    """Follows the Leases of front ends in one namespace.

    ``changed`` is called with the name of a front end that was lost or came back.
    """

    def __init__(self, api: KubeApi, namespace: str, changed: Callable[[str], None]) -> None:
        self._api = api
        self._namespace = namespace
        self._changed = changed
        self._sights: dict[str, _Sight] = {}
        self._informer: Informer[Beat | None] = Informer(api, COORDINATION_LEASES, namespace, parse_beat)
        self._informer.add_listener(self._beat)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._informer.run())
            group.create_task(self._judge())

    def presence(self, frontend: str) -> Presence:
        """Return what is known of a front end; one that was never seen has its time from now on."""
        sight = self._sights.get(frontend)
        if sight is None:
            sight = self._sights[frontend] = _Sight("", clock.monotonic())
        return Presence(sight.lost)

    def _beat(self, old: Beat | None, new: Beat | None) -> None:
        if new is not None:
            self._seen(new)
        elif old is not None:  # it stopped on purpose
            self._sights[old.frontend] = _Sight("", clock.monotonic(), clock.utc_now())
            self._changed(old.frontend)

    def _seen(self, beat: Beat) -> None:
        sight = self._sights.get(beat.frontend)
        if sight is not None and sight.renewed == beat.renewed:
            return
        self._sights[beat.frontend] = _Sight(beat.renewed, clock.monotonic())
        if sight is not None and sight.lost is not None:
            self._changed(beat.frontend)

    async def _judge(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            for name, sight in tuple(self._sights.items()):
                if sight.lost is None and clock.monotonic() - sight.seen > _LAPSE_SECONDS:
                    await self._confirm(name, sight)

    async def _confirm(self, name: str, sight: _Sight) -> None:
        """Take a front end as lost only if the API server itself says that it did not renew."""
        try:
            key = Key(self._namespace, FRONTEND_LEASE_PREFIX + name)
            beat = parse_beat(await self._api.get(COORDINATION_LEASES, key))
        except NotFound:
            beat = None
        except LableaseError:
            return  # nobody knows now: asked again with the next tick
        if beat is not None and beat.renewed != sight.renewed:
            self._seen(beat)
            return
        if self._sights.get(name) is sight:
            late = timedelta(seconds=clock.monotonic() - sight.seen - _LAPSE_SECONDS)
            sight.lost = clock.utc_now() - late
            self._changed(name)
