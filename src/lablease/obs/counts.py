"""What the work costs the API server: writes, writes without effect, conflicts and reads, per lease and per account."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from lablease.model.keys import Key
from lablease.obs.audit import Access
from lablease.obs.timeline import EXPORTERS, LEASES, Write, exporter_state, lease_state, uid

SERVICE_ACCOUNTS = "system:serviceaccount:"


class Cost(StrEnum):
    """The kinds of requests that are counted apart."""

    WRITE = "write"
    NO_OP = "no-op"
    DELETE = "delete"
    REFUSED = "refused"
    READ = "read"


@dataclass(slots=True)
class LeaseCost:
    """What one lease cost; a write counts under what it did, whoever sent it.

    The life of a lease is its own writes, and those to the exporter from the one that gave it the slot to the one that
    took the slot away. A write that takes the slot from one lease for the next counts for the next.
    """

    granted: bool = False
    ended: bool = False
    by: Counter[tuple[Cost, str]] = field(default_factory=Counter[tuple[Cost, str]])

    def total(self, cost: Cost, *, ours: bool = False) -> int:
        """Return how many, of all accounts or of service accounts only."""
        return sum(
            number
            for (kind, user), number in self.by.items()
            if kind is cost and (not ours or user.startswith(SERVICE_ACCOUNTS))
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """All costs. Accounts are told apart by user name and the first word of the user agent."""

    leases: dict[tuple[Key, str], LeaseCost]
    accounts: Counter[tuple[str, str, str, str]]
    """(user, agent, verb, resource) to how many."""


def count(accesses: Iterable[Access], writes: Sequence[Write]) -> Counts:
    """Count all requests of a record."""
    everything = list(accesses)
    accounts = Counter(
        (one.user, one.agent.partition(" ")[0].partition("/")[0], one.verb, _named(one)) for one in everything
    )
    leases: dict[tuple[Key, str], LeaseCost] = {}
    current: dict[Key, str] = {}
    slots: dict[Key, str] = {}
    for happened in _in_order(everything, writes):
        if isinstance(happened, Write):
            _write(happened, leases, current, slots)
        else:
            _other(happened, leases, current, slots)
    return Counts(leases, accounts)


def _in_order(accesses: Iterable[Access], writes: Sequence[Write]) -> list[Write | Access]:
    """Put what is no successful write where it belongs in time among the writes, which keep their order."""
    placed: list[tuple[datetime, Write | Access]] = [
        (one.answered, one) for one in accesses if not (one.writes and one.succeeded)
    ]
    latest = datetime.min.replace(tzinfo=UTC)
    for write in writes:
        latest = max(latest, write.access.answered)
        placed.append((latest, write))
    return [one for _, one in sorted(placed, key=lambda item: item[0])]


def _write(
    write: Write, leases: dict[tuple[Key, str], LeaseCost], current: dict[Key, str], slots: dict[Key, str]
) -> None:
    kind = Cost.NO_OP if write.no_op else Cost.DELETE if write.after is None else Cost.WRITE
    if write.access.resource == LEASES:
        found = uid(write.after) or uid(write.before) or current.get(write.key, "")
        current[write.key] = found
        cost = leases.setdefault((write.key, found), LeaseCost())
        cost.by[kind, write.access.user] += 1
        if write.after is not None:
            state = lease_state(write.after)
            cost.granted = cost.granted or bool(state.grant)
            cost.ended = state.ended
    elif write.access.resource == EXPORTERS:
        before = slots.get(write.key, "")
        after = exporter_state(write.after).slot if write.after else ""
        slots[write.key] = after
        holder = _of(write.key.namespace, after or before, leases, current)
        if holder:
            holder.by[kind, write.access.user] += 1


def _other(
    access: Access, leases: dict[tuple[Key, str], LeaseCost], current: dict[Key, str], slots: dict[Key, str]
) -> None:
    name = access.key.name
    if access.resource == EXPORTERS:
        name = slots.get(access.key, "")
    elif access.resource != LEASES:
        return
    cost = _of(access.key.namespace, name, leases, current)
    if cost and access.verb == "get":
        cost.by[Cost.READ, access.user] += 1
    elif cost and access.writes:
        cost.by[Cost.REFUSED, access.user] += 1


def _of(
    namespace: str, name: str, leases: dict[tuple[Key, str], LeaseCost], current: dict[Key, str]
) -> LeaseCost | None:
    key = Key(namespace, name)
    return leases.get((key, current.get(key, ""))) if name else None


def _named(access: Access) -> str:
    return access.resource + (f"/{access.subresource}" if access.subresource else "")
