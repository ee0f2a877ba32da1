"""Leases on behalf of callers: find, create, release. What is asked is written; nothing is decided here."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from lablease.errors import NotAllowed, NotFound, OutcomeUnknown, Stale
from lablease.grpc_frontend.auth import Caller
from lablease.grpc_frontend.limits import Allowance
from lablease.grpc_frontend.store import BY_CLIENT, Store
from lablease.model.keys import Key
from lablease.model.lease import Lease, LeaseCondition, LeaseSpec, to_spec
from lablease.model.meta import LABEL_ENDED, LABEL_PREFIX, ORIGIN_FRONTEND, ORIGIN_LABEL, TAG_PREFIX, Truth

RETENTION = timedelta(days=7)
"""How long an ended lease that a client made is kept."""

_FINAL = frozenset({LeaseCondition.READY, LeaseCondition.UNSATISFIABLE, LeaseCondition.INVALID})

log = structlog.get_logger(__name__)


class LeaseDesk:
    """Reads leases from the cache and writes what their owners ask for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._misses = Allowance(burst=20, per_second=5)

    async def find(self, key: Key, user: str) -> Lease:
        """Return a lease; one that the cache does not have is looked up live, a few times per identity.

        Raises:
            NotFound: there is none.
        """
        cached = self._store.leases.get(key)
        if cached is not None:
            return cached
        if not self._misses.take(user):
            raise NotFound("lease", key.name)
        try:
            return await self._store.read_lease(key)
        except NotFound:
            raise NotFound("lease", key.name) from None

    async def owned(self, caller: Caller, name: str) -> Lease:
        """Return a lease of the caller.

        Raises:
            NotFound: there is none.
            NotAllowed: it is another client's.
        """
        lease = await self.find(Key(caller.key.namespace, name), caller.user)
        check_owner(caller, lease)
        return lease

    def of_client(self, client: Key) -> tuple[Lease, ...]:
        """Return all leases of a client."""
        leases = self._store.leases.by(BY_CLIENT, client.name)
        return tuple(lease for lease in leases if lease.key.namespace == client.namespace)

    async def create(self, name: str, spec: LeaseSpec) -> Lease:
        """Create a lease with the labels by which it can be found.

        Raises:
            AlreadyExists: of that name.
            InvalidField: a rule of the CRD refuses it.
        """
        lease = await self._store.create_lease(
            {"metadata": {"name": name, "labels": creation_labels(spec)}, "spec": to_spec(spec)}
        )
        log.info("lease.requested", lease=name, client=spec.client)
        return lease

    async def release(self, lease: Lease, check: Callable[[Lease], None]) -> None:
        """Ask for the end of a lease in one write, on the state that was seen; looks again if that has passed.

        Args:
            lease: as seen.
            check: raises if the caller may not do it; asked again with each new look.
        """
        while True:
            check(lease)
            if lease.release_asked or lease.status.ended:
                return
            try:
                await self._store.patch_lease(
                    lease.key,
                    {"metadata": {"labels": {LABEL_ENDED: "true"}}, "spec": {"release": True}},
                    lease.meta.resource_version,
                )
            except (Stale, OutcomeUnknown):
                lease = await self._store.read_lease(lease.key)
            else:
                log.info("lease.release_asked", lease=lease.key.name, client=lease.spec.client)
                return


def check_owner(caller: Caller, lease: Lease) -> None:
    """Raise NotAllowed unless the lease is the caller's.

    The text begins with the words by which jmp 0.9.0 knows that a lease went to another client.
    """
    if lease.spec.client != caller.key.name:
        raise NotAllowed(f"permission denied: lease {lease.key.name} belongs to another client")


def active(lease: Lease) -> bool:
    """True unless the lease has ended or its end was asked for."""
    return not (lease.status.ended or lease.release_asked)


def decided(lease: Lease, now: datetime) -> bool:
    """True if waiting for news of a lease is pointless: it has an answer, or cannot have one before its begin."""
    if not active(lease) or lease.status.exporter is not None:
        return True
    if lease.spec.begin is not None and lease.spec.begin > now:
        return bool(lease.status.conditions)
    last = lease.status.conditions[-1] if lease.status.conditions else None
    return last is not None and last.type in _FINAL and last.status is Truth.TRUE


def creation_labels(spec: LeaseSpec) -> Mapping[str, str]:
    """Return the labels of a new lease: its tags, what its selector asks for except reserved keys, and its origin."""
    copies = {
        key: value
        for key, value in spec.selector.match_labels
        if not key.startswith((LABEL_PREFIX, TAG_PREFIX)) and key != ORIGIN_LABEL
    }
    tags = {TAG_PREFIX + key: value for key, value in spec.tags.items()}
    return {**copies, **tags, ORIGIN_LABEL: ORIGIN_FRONTEND}
