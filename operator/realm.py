"""What the operator knows and is doing in one namespace. Everything here can be rebuilt from the stored objects."""

from dataclasses import dataclass, field

from lablease.model.client import Client
from lablease.model.exporter import Exporter
from lablease.model.lease import Lease
from lablease.model.meta import LABEL_ENDED
from lablease.model.policy import Policy
from lablease.operator.writes import Kind, Ref, Write
from lablease.rules import times
from lablease.rules.allocation import Room
from lablease.rules.booking import Booking, Keeps, Kept
from lablease.rules.conditions import Word
from lablease.rules.credentials import Token
from lablease.rules.matching import Request
from lablease.rules.world import Ended, World

Names = dict[str, None]
"""A set that keeps the order of insertion."""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """The token in one Secret, without the token: ``subject`` is empty if it is not signed by our key."""

    uid: str
    subject: str
    token: Token


@dataclass(slots=True)
class Realm:
    """One namespace: the world, who waits, what has changed since the last look, and what is being written."""

    world: World
    room: Room = field(default_factory=Room)
    bookings: dict[str, Booking] = field(default_factory=dict[str, Booking])
    keeps: Keeps = field(default_factory=dict[str, tuple[Kept, ...]])
    words: dict[Request, Word] = field(default_factory=dict[Request, Word])
    refused: Names = field(default_factory=dict[str, None])
    """Leases that stay open although nothing can serve them now: judged again on every change that could help."""
    tokens: dict[tuple[Kind, str], StoredToken] = field(default_factory=dict[tuple[Kind, str], StoredToken])
    """By owner."""
    writing: dict[Ref, Write] = field(default_factory=dict[Ref, Write])
    dirty_leases: Names = field(default_factory=dict[str, None])
    dirty_exporters: Names = field(default_factory=dict[str, None])
    dirty_owners: dict[tuple[Kind, str], None] = field(default_factory=dict[tuple[Kind, str], None])
    over: Names = field(default_factory=dict[str, None])
    """Ended leases that may lack the label, or whose time has come."""
    free: Names = field(default_factory=dict[str, None])
    """Exporters that can be given away now."""
    fresh: Names = field(default_factory=dict[str, None])
    """Those of them that were not offered to everybody yet."""
    restless: bool = False
    """Something changed that those who wait may have to be told."""

    @property
    def dirty(self) -> bool:
        """True if a look would find something to do."""
        return bool(
            self.dirty_leases or self.dirty_exporters or self.dirty_owners or self.over or self.fresh or self.restless
        )

    def everything_is_dirty(self) -> None:
        """Judge all objects again."""
        self.dirty_leases |= dict.fromkeys(self.world.leases)
        self.dirty_exporters |= dict.fromkeys(self.world.exporters)
        self.dirty_owners |= dict.fromkeys((Kind.CLIENT, name) for name in self.world.clients)
        self.dirty_owners |= dict.fromkeys((Kind.EXPORTER, name) for name in self.world.exporters)
        self.dirty_owners |= dict.fromkeys(self.tokens)

    def lease_seen(self, lease: Lease) -> None:
        """Take in a lease."""
        name = lease.key.name
        if lease.status.ended:
            self._lease_over(lease)
            return
        self.world.put_lease(lease)
        self.dirty_leases[name] = None
        if lease.status.exporter is not None:
            self.dirty_exporters[lease.status.exporter] = None

    def _lease_over(self, lease: Lease) -> None:
        name = lease.key.name
        meta, ttl = lease.meta, lease.spec.ttl
        at = lease.status.end or meta.created
        delete_at = None if ttl is None else times.later(at, ttl)
        labelled = LABEL_ENDED in meta.labels
        self.world.end_lease(name, Ended(at, meta.uid, meta.resource_version, labelled, delete_at))
        self._leave(name)
        if not labelled or delete_at is not None:
            self.over[name] = None

    def lease_gone(self, name: str) -> None:
        """A lease was deleted."""
        self.world.forget_lease(name)
        self.over.pop(name, None)
        self._leave(name)

    def _leave(self, name: str) -> None:
        """Forget what a lease waited for, and look at the slot that may still name it."""
        self.room.drop(name)
        self.unbook(name)
        self.refused.pop(name, None)
        slot = self.world.slot_naming(name)
        if slot is not None:
            self.dirty_exporters[slot] = None

    def unbook(self, name: str) -> None:
        """Forget a booking, if the lease has one: what was kept for it is free for others."""
        if self.bookings.pop(name, None) is not None:
            self.restless = True

    def exporter_seen(self, exporter: Exporter) -> None:
        """Take in an exporter."""
        name = exporter.key.name
        old = self.world.exporters.get(name)
        self.world.put_exporter(exporter)
        self.dirty_exporters[name] = None
        self.dirty_leases |= dict.fromkeys(self.world.leases_on(name))
        for slot in (old.lease if old is not None else None, exporter.lease):
            if slot is not None and slot in self.world.leases:
                self.dirty_leases[slot] = None
        if old is None or _fixed(old) != _fixed(exporter):
            self.fleet_changed()
        self.restless |= old is None or _public(old) != _public(exporter)
        if old is None or old.meta.uid != exporter.meta.uid or _credential(old) != _credential(exporter):
            self.dirty_owners[Kind.EXPORTER, name] = None

    def exporter_gone(self, name: str) -> None:
        """An exporter was deleted."""
        self.dirty_leases |= dict.fromkeys(self.world.leases_on(name))
        old = self.world.exporters.get(name)
        if old is not None and old.lease in self.world.leases:
            self.dirty_leases[old.lease] = None
        self.world.forget_exporter(name)
        self.free.pop(name, None)
        self.fresh.pop(name, None)
        self.dirty_owners[Kind.EXPORTER, name] = None
        self.fleet_changed()

    def fleet_changed(self) -> None:
        """What may serve whom has changed: those that nothing could serve, or that nothing can serve any more."""
        self.dirty_leases |= self.refused
        for line in self.room.lines:
            if not self.world.choices_for(line.request):
                self.dirty_leases |= dict.fromkeys(name for _, name in line.turns)
        self.restless = True

    def client_seen(self, client: Client) -> None:
        """Take in a client."""
        name = client.key.name
        old = self.world.clients.get(name)
        self.world.clients[name] = client
        self.dirty_owners[Kind.CLIENT, name] = None
        if old is None or old.meta.labels != client.meta.labels:
            self.dirty_leases |= dict.fromkeys(self.world.leases_of(name))

    def client_gone(self, name: str) -> None:
        """A client was deleted."""
        self.world.clients.pop(name, None)
        self.dirty_owners[Kind.CLIENT, name] = None
        self.dirty_leases |= dict.fromkeys(self.world.leases_of(name))

    def policy_seen(self, policy: Policy) -> None:
        """Take in a policy."""
        self.world.put_policy(policy)
        self._policies_changed()

    def policy_gone(self, name: str) -> None:
        """A policy was deleted."""
        self.world.forget_policy(name)
        self._policies_changed()

    def _policies_changed(self) -> None:
        """Those who wait are judged anew; nobody who runs loses anything."""
        self.words.clear()
        for name, lease in self.world.leases.items():
            if lease.status.exporter is None:
                self.dirty_leases[name] = None
                slot = self.world.slot_naming(name)
                if slot is not None:
                    self.dirty_exporters[slot] = None

    def token_seen(self, kind: Kind, owner: str, token: StoredToken) -> None:
        """Take in what the Secret of an owner holds."""
        self.tokens[kind, owner] = token
        self.dirty_owners[kind, owner] = None

    def token_gone(self, kind: Kind, owner: str) -> None:
        """The Secret of an owner was deleted."""
        self.tokens.pop((kind, owner), None)
        self.dirty_owners[kind, owner] = None


def _fixed(exporter: Exporter) -> object:
    """What decides whether somebody may have it at all."""
    return exporter.enabled, exporter.meta.labels, exporter.meta.deleting


def _public(exporter: Exporter) -> object:
    """What those who wait for it may notice of it, apart from the time."""
    return exporter.session is None, exporter.registered, exporter.status, exporter.lease is None


def _credential(exporter: Exporter) -> object:
    return exporter.credential, exporter.credential_generation, exporter.endpoint
