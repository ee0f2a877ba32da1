"""One look at a namespace: what is known of it, indexed for the rules. The rules read it; the operator keeps it up."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from lablease.model.client import Client
from lablease.model.exporter import Exporter
from lablease.model.lease import Lease
from lablease.model.policy import Policy
from lablease.rules.liveness import Presence, connected, online, ready
from lablease.rules.matching import Choices, Request, choice, choices
from lablease.rules.policy import Access, Approval

T = TypeVar("T")
_PRESENT = Presence()
_MAXIMUM_REQUESTS = 20_000
"""How many different requests have their candidates remembered; then all are forgotten at once."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What is remembered of a lease that is over. ``delete_at`` is when retention removes it; None keeps it."""

    at: datetime | None
    uid: str = ""
    resource_version: str = ""
    labelled: bool = True
    delete_at: datetime | None = None


class World:
    """The objects of one namespace.

    ``leases`` holds only those that have not ended. ``promises`` are slots that are being written: lease -> exporter.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.leases: dict[str, Lease] = {}
        self.ended: dict[str, Ended] = {}
        self.exporters: dict[str, Exporter] = {}
        self.clients: dict[str, Client] = {}
        self.policies: dict[str, Policy] = {}
        self.promises: dict[str, str] = {}
        self.presences: dict[str, Presence] = {}
        """By exporter; absent where its front end lives."""
        self.vacated: dict[str, datetime] = {}
        """By exporter: since when its slot names a lease that does not hold it."""
        self._slots: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._labels: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
        self._by_client: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._by_exporter: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._access: Access | None = None
        self._choices: dict[Request, dict[str, Approval]] = {}

    @property
    def access(self) -> Access:
        """The policies, compiled when they were first asked for after a change."""
        if self._access is None:
            self._access = Access(self.policies.values())
        return self._access

    def choices_for(self, request: Request) -> Choices:
        """Return the candidates of a request. The result is kept up to date until policies change."""
        found = self._choices.get(request)
        if found is None:
            if len(self._choices) >= _MAXIMUM_REQUESTS:
                self._choices.clear()
            found = self._choices[request] = choices(request, self, self.access)
        return found

    def with_label(self, key: str, value: str) -> Iterable[str]:
        """Return the names of the exporters that carry a label."""
        return self._labels.get((key, value), ())

    def slot_naming(self, lease: str) -> str | None:
        """Return the exporter whose slot names a lease; the first by name if there are several."""
        return min(self._slots.get(lease, ()), default=None)

    def leases_of(self, client: str) -> Iterable[str]:
        """Return the names of a client's leases that have not ended."""
        return self._by_client.get(client, ())

    def leases_on(self, exporter: str) -> Iterable[str]:
        """Return the names of the leases that say they run on an exporter."""
        return self._by_exporter.get(exporter, ())

    def connected(self, exporter: Exporter, now: datetime) -> bool:
        """True if the exporter holds a session that counts."""
        return connected(exporter, self.presences.get(exporter.key.name, _PRESENT), now)

    def online(self, exporter: Exporter, now: datetime) -> bool:
        """True if the exporter can be reached."""
        return online(exporter, connected=self.connected(exporter, now))

    def ready(self, exporter: Exporter, now: datetime) -> bool:
        """True if a new lease may begin there, as far as the exporter is concerned."""
        return ready(exporter, connected=self.connected(exporter, now))

    def put_lease(self, lease: Lease) -> None:
        """Take in a lease that has not ended."""
        self._drop_lease(lease.key.name)
        self.leases[lease.key.name] = lease
        self.ended.pop(lease.key.name, None)
        self._by_client[lease.spec.client][lease.key.name] = None
        if lease.status.exporter is not None:
            self._by_exporter[lease.status.exporter][lease.key.name] = None

    def end_lease(self, name: str, record: Ended) -> None:
        """Remember only that a lease is over."""
        self._drop_lease(name)
        self.ended[name] = record

    def forget_lease(self, name: str) -> None:
        """A lease is gone."""
        self._drop_lease(name)
        self.ended.pop(name, None)

    def put_exporter(self, exporter: Exporter) -> None:
        """Take in an exporter."""
        name = exporter.key.name
        old = self.exporters.get(name)
        self._unindex(old)
        self.exporters[name] = exporter
        if exporter.lease is not None:
            self._slots[exporter.lease][name] = None
        for label in exporter.meta.labels.items():
            self._labels[label][name] = None
        if old is None or _fixed(old) != _fixed(exporter):
            self._choose_again(name)

    def forget_exporter(self, name: str) -> None:
        """An exporter is gone."""
        old = self.exporters.pop(name, None)
        self._unindex(old)
        self.vacated.pop(name, None)
        self.presences.pop(name, None)
        self._choose_again(name)

    def _unindex(self, old: Exporter | None) -> None:
        if old is None:
            return
        name = old.key.name
        if old.lease is not None:
            _discard(self._slots, old.lease, name)
        for label in old.meta.labels.items():
            _discard(self._labels, label, name)

    def _choose_again(self, name: str) -> None:
        """Bring the remembered candidates up to date for one exporter."""
        exporter = self.exporters.get(name)
        for request, found in self._choices.items():
            approval = None if exporter is None else choice(request, exporter, self.access)
            if approval is None:
                found.pop(name, None)
            else:
                found[name] = approval

    def put_policy(self, policy: Policy) -> None:
        """Take in a policy."""
        self.policies[policy.key.name] = policy
        self._policies_changed()

    def forget_policy(self, name: str) -> None:
        """A policy is gone."""
        self.policies.pop(name, None)
        self._policies_changed()

    def _policies_changed(self) -> None:
        self._access = None
        self._choices.clear()

    def _drop_lease(self, name: str) -> None:
        old = self.leases.pop(name, None)
        if old is not None:
            _discard(self._by_client, old.spec.client, name)
            if old.status.exporter is not None:
                _discard(self._by_exporter, old.status.exporter, name)


def _discard(index: defaultdict[T, dict[str, None]], value: T, name: str) -> None:
    entries = index[value]
    del entries[name]
    if not entries:
        del index[value]


def _fixed(exporter: Exporter) -> object:
    """What of an exporter decides whether a request may have it at all."""
    return exporter.enabled, exporter.meta.deleting, exporter.meta.labels
