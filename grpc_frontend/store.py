"""The front end's view of the API server: informers to read from, and the few writes that it may do.

Trouble with our own credentials or permissions is ours, never the caller's: it reads as ``Unavailable``.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from lablease.errors import NotAllowed, NotAuthenticated, NotFound, Unavailable
from lablease.grpc_frontend.bells import About, Bells, Topic
from lablease.grpc_frontend.records import (
    REGISTER_MANAGER,
    ConfigRecord,
    ExporterRecord,
    parse_config_record,
    parse_exporter_record,
)
from lablease.kube.api import KubeApi, RawObject
from lablease.kube.informer import Informer
from lablease.kube.resources import CLIENTS, CONFIGMAPS, EXPORTERS, LEASES, POLICIES, SECRETS, Resource
from lablease.model.client import Client, parse_client
from lablease.model.exporter import Exporter
from lablease.model.keys import Key
from lablease.model.lease import Lease, parse_lease
from lablease.model.policy import Policy, parse_policy

T = TypeVar("T")

IDENTITY_KEYS = "lablease-identity-keys"
"""ConfigMap with the public keys of identities, in the namespace of our own system."""
CONTROLLER_SETTINGS = "jumpstarter-controller"
"""ConfigMap with the settings that jumpstarter's controller has, in the namespace that is served."""

BY_CLIENT = "client"
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts while the API server is away; the last repeats."""

log = structlog.get_logger(__name__)


class Store:
    """Caches that follow one namespace, and typed writes. Run ``run`` to keep the caches fresh."""

    def __init__(self, api: KubeApi, namespace: str, system_namespace: str) -> None:
        self.namespace = namespace
        self.system_namespace = system_namespace
        self.bells = Bells()
        self.exporters: Informer[ExporterRecord] = Informer(api, EXPORTERS, namespace, parse_exporter_record)
        self.leases: Informer[Lease] = Informer(api, LEASES, namespace, parse_lease, {BY_CLIENT: _client_of})
        self.clients: Informer[Client] = Informer(api, CLIENTS, namespace, parse_client)
        self.policies: Informer[Policy] = Informer(api, POLICIES, namespace, parse_policy)
        self.identity_keys: Informer[ConfigRecord] = Informer(
            api, CONFIGMAPS, system_namespace, parse_config_record, name=IDENTITY_KEYS
        )
        self.lab_settings: Informer[ConfigRecord] = Informer(
            api, CONFIGMAPS, namespace, parse_config_record, name=CONTROLLER_SETTINGS
        )
        self._api = api
        self.exporters.add_listener(self._exporter_changed)
        self.leases.add_listener(self._lease_changed)
        self.clients.add_listener(self._client_changed)

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers():
                group.create_task(informer.run())

    @property
    def ready(self) -> bool:
        """All caches have been filled once."""
        return all(informer.synced.is_set() for informer in self._informers())

    async def synced(self) -> None:
        """Wait until all caches have been filled once."""
        for informer in self._informers():
            await informer.synced.wait()

    def _informers(
        self,
    ) -> tuple[
        Informer[ExporterRecord] | Informer[Lease] | Informer[Client] | Informer[Policy] | Informer[ConfigRecord], ...
    ]:
        return (self.exporters, self.leases, self.clients, self.policies, self.identity_keys, self.lab_settings)

    def exporter(self, key: Key) -> Exporter | None:
        """Return an exporter from the cache."""
        record = self.exporters.get(key)
        return record.exporter if record is not None else None

    async def read_exporter(self, key: Key) -> Exporter:
        """Read an exporter live.

        Raises:
            NotFound: there is none.
        """
        async with _our_trouble():
            return (await self.exporters.read(key)).exporter

    async def read_client(self, key: Key) -> Client:
        """Read a client live.

        Raises:
            NotFound: there is none.
        """
        async with _our_trouble():
            return await self.clients.read(key)

    async def read_lease(self, key: Key) -> Lease:
        """Read a lease live.

        Raises:
            NotFound: there is none.
        """
        async with _our_trouble():
            return await self.leases.read(key)

    async def patch_exporter_status(
        self, key: Key, status: Mapping[str, object], seen: str | None = None
    ) -> ExporterRecord:
        """Merge into an exporter's status; with ``seen`` only if that resource version still stands."""
        body: RawObject = {"status": dict(status)} | _precondition(seen)
        async with _our_trouble():
            return self.exporters.insert(await self._api.patch(EXPORTERS, key, body, subresource="status"))

    async def apply_exporter_labels(self, key: Key, labels: Mapping[str, str]) -> ExporterRecord:
        """Make these the labels that Register owns; those of other field managers stay.

        Raises:
            Stale: another manager owns one of them with another value.
        """
        body: RawObject = {
            "apiVersion": EXPORTERS.api_version,
            "kind": EXPORTERS.kind,
            "metadata": {"name": key.name, "namespace": key.namespace, "labels": dict(labels)},
        }
        async with _our_trouble():
            raw = await self._api.patch(EXPORTERS, key, body, content="apply", field_manager=REGISTER_MANAGER)
            return self.exporters.insert(raw)

    async def create_lease(self, body: RawObject) -> Lease:
        """Create a lease.

        Raises:
            AlreadyExists: of that name.
            InvalidField: a rule of the CRD refuses it.
        """
        async with _our_trouble():
            return self.leases.insert(await self._api.create(LEASES, self.namespace, body))

    async def patch_lease(self, key: Key, body: RawObject, seen: str) -> Lease:
        """Merge into a lease if the resource version ``seen`` still stands.

        Raises:
            Stale: it has changed; look again.
        """
        merged = _precondition(seen)
        merged.setdefault("metadata", {}).update(body.get("metadata", {}))
        async with _our_trouble():
            return self.leases.insert(await self._api.patch(LEASES, key, {**body, **merged}))

    async def read_secret(self, key: Key) -> RawObject:
        """Read a Secret; it is not cached."""
        return await self._own(self._api.get(SECRETS, key))

    async def delete_secret(self, key: Key, uid: str) -> None:
        """Delete the very Secret that was seen."""
        await self._own(self._api.delete(SECRETS, key, uid=uid))

    async def write(self, resource: Resource, key: Key, body: RawObject) -> str:
        """Merge into an object that is not cached, or create it if it is not there; return its resource version."""
        try:
            raw = await self._own(self._api.patch(resource, key, body))
        except NotFound:
            named = {**body, "metadata": {"name": key.name, "namespace": key.namespace}}
            raw = await self._own(self._api.create(resource, key.namespace, named))
        return str(raw["metadata"]["resourceVersion"])

    async def remove(self, resource: Resource, key: Key, seen: str) -> None:
        """Delete an object that is not cached, as it was seen.

        Raises:
            Stale: it has changed.
        """
        await self._own(self._api.delete(resource, key, resource_version=seen))

    @staticmethod
    async def _own(call: Awaitable[T]) -> T:
        async with _our_trouble():
            return await call

    def _exporter_changed(self, old: ExporterRecord | None, new: ExporterRecord | None) -> None:
        for record in (old, new):
            if record is not None:
                self.bells.ring(Topic(About.EXPORTER, record.exporter.key))
                return

    def _lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        for lease in (new, old):
            if lease is not None:
                self.bells.ring(Topic(About.LEASE, lease.key))
                if lease.status.exporter:
                    self.bells.ring(Topic(About.EXPORTER, Key(lease.key.namespace, lease.status.exporter)))
                return

    def _client_changed(self, old: Client | None, new: Client | None) -> None:
        for client in (new, old):
            if client is not None:
                self.bells.ring(Topic(About.CLIENT, client.key))
                return


@asynccontextmanager
async def _our_trouble() -> AsyncGenerator[None]:
    try:
        yield
    except (NotAllowed, NotAuthenticated) as error:
        log.error("apiserver.refuses_us", reason=str(error))
        raise Unavailable(
            "the API server refuses the front end; its administrator finds the cause in the log"
        ) from error


async def until_back(attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat something idempotent while the API server is away, for as long as the caller waits for it."""
    failures = 0
    while True:
        try:
            return await attempt()
        except Unavailable as error:
            if failures % 20 == 0:
                log.warning("apiserver.away", reason=str(error), attempts=failures + 1)
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1


def _client_of(lease: Lease) -> tuple[str]:
    return (lease.spec.client,)


def _precondition(seen: str | None) -> RawObject:
    return {} if seen is None else {"metadata": {"resourceVersion": seen}}
