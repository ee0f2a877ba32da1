"""A list of everything, now and then: after a gap in a watch Kopf never tells what was deleted in it."""

import asyncio

import structlog

from lablease.errors import LableaseError
from lablease.kube.api import KubeApi
from lablease.model.keys import Key
from lablease.model.meta import MANAGED_BY, MANAGED_LABEL
from lablease.operator.brain import Brain
from lablease.operator.writes import RESOURCES, Kind

_EVERY_SECONDS = 300.0
_AFTER_LIST_SECONDS = 1.0
"""So long after Kopf listed anew: it lists when it had to give up on a watch."""

log = structlog.get_logger("lablease.operator")


class Sweep:
    """Fills the brain from complete lists."""

    def __init__(self, api: KubeApi, brain: Brain, namespaces: tuple[str, ...]) -> None:
        self._api = api
        self._brain = brain
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._listed = asyncio.Event()

    def listed(self) -> None:
        """Kopf has listed: there may have been a gap."""
        self._listed.set()

    async def fill(self) -> None:
        """List everything once.

        Raises:
            LableaseError: of the API server.
        """
        for kind in (Kind.CLIENT, Kind.POLICY, Kind.EXPORTER, Kind.SECRET, Kind.LEASE):
            for namespace in self._namespaces:
                await self._one(kind, namespace)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._listed.wait()
                    await asyncio.sleep(_AFTER_LIST_SECONDS)
            except TimeoutError:
                log.debug("sweep.due")
            self._listed.clear()
            try:
                await self.fill()
            except LableaseError as problem:
                log.warning("sweep.failed", reason=str(problem))
                self._listed.set()

    async def _one(self, kind: Kind, namespace: str | None) -> None:
        labels = f"{MANAGED_LABEL}={MANAGED_BY}" if kind is Kind.SECRET else ""
        listing = await self._api.list(RESOURCES[kind], namespace, labels)
        present: list[Key] = []
        for raw in listing.items:
            present.append(Key(raw["metadata"].get("namespace", ""), raw["metadata"]["name"]))
            self._brain.observe(kind, raw)
        lost = self._brain.missing(kind, namespace, present, int(listing.resource_version))
        if lost:
            log.info("sweep.found", kind=str(kind), deleted=lost)
