"""One coordination Lease per front end: while it is renewed, the sessions that this replica wrote count as alive."""

import asyncio
from datetime import datetime

import structlog

from lablease import clock
from lablease.errors import LableaseError, Stale
from lablease.grpc_frontend.store import Store
from lablease.kube.resources import COORDINATION_LEASES
from lablease.model.keys import Key
from lablease.model.meta import FRONTEND_LEASE_PREFIX

RENEW_SECONDS = 2.0
LAPSE_SECONDS = 6
"""After so long without a renewal observers count the replica as gone."""

log = structlog.get_logger(__name__)


def heartbeat_name(frontend: str) -> str:
    """Return the name of a front end's coordination Lease."""
    return FRONTEND_LEASE_PREFIX + frontend


class Heartbeat:
    """Renews the Lease until it is stopped."""

    def __init__(self, store: Store, frontend: str) -> None:
        self._store = store
        self._frontend = frontend
        self._key = Key(store.system_namespace, heartbeat_name(frontend))
        self._failing = False
        self._written = ""

    async def run(self) -> None:
        """Renew every two seconds until cancelled; a renewal that fails is left out."""
        while True:
            await self._renew()
            await asyncio.sleep(RENEW_SECONDS)

    async def stop(self) -> None:
        """Remove the Lease, unless a successor of the same name renews it by now: then its sessions go on."""
        if not self._written:
            return
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                await self._store.remove(COORDINATION_LEASES, self._key, self._written)
        except Stale:
            log.info("heartbeat.taken_over", lease=self._key.name)
        except (LableaseError, TimeoutError) as error:
            log.warning("heartbeat.not_removed", reason=str(error))

    async def _renew(self) -> None:
        body = {
            "spec": {
                "holderIdentity": self._frontend,
                "leaseDurationSeconds": LAPSE_SECONDS,
                "renewTime": micro_time(clock.utc_now()),
            }
        }
        try:
            async with asyncio.timeout(RENEW_SECONDS):  # a call that hangs must not delay the next one
                self._written = await self._store.write(COORDINATION_LEASES, self._key, body)
        except (LableaseError, TimeoutError) as error:
            if not self._failing:
                log.warning("heartbeat.failed", reason=str(error))
            self._failing = True
        else:
            self._failing = False


def micro_time(now: datetime) -> str:
    """Spell an instant as Kubernetes' MicroTime: always six digits."""
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
