"""The condition lists of leases. Clients read the last condition as the decisive one, and jmp 0.9.0 reads more:

it takes ``Pending``=False without a true decisive condition as an error, so that stands in front of every end but
Released, where another message of its own would be wrong; it answers the reason ``NoExporter`` with new leases for ever.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from lablease.model.lease import Lease, LeaseCondition, LeaseReason
from lablease.model.meta import Condition, Truth, condition

MESSAGE_CHARACTERS = 32_768
"""The API server refuses more."""


@dataclass(frozen=True, slots=True)
class Word:
    """One condition without its bookkeeping."""

    type: LeaseCondition
    holds: bool
    reason: LeaseReason
    message: str


def pending(reason: LeaseReason, message: str) -> Word:
    """The lease waits."""
    return Word(LeaseCondition.PENDING, True, reason, message)


def waiting(lease: Lease, word: Word, now: datetime) -> tuple[Condition, ...]:
    """The list of a lease that waits, or that cannot be met and stays open: the one decisive condition."""
    return _build(lease, (word,), now)


def running(lease: Lease, *, message: str, exporter_online: bool, now: datetime) -> tuple[Condition, ...]:
    """The list of a lease that has an exporter. Waiting and trouble with the exporter appear only if there was any."""
    words = [Word(LeaseCondition.READY, True, LeaseReason.READY, message)]
    if not exporter_online or condition(lease.status.conditions, LeaseCondition.EXPORTER_ONLINE) is not None:
        reason = LeaseReason.READY if exporter_online else LeaseReason.OFFLINE
        text = "the exporter is online" if exporter_online else "the exporter is offline; the lease keeps it"
        words.insert(0, Word(LeaseCondition.EXPORTER_ONLINE, exporter_online, reason, text))
    if condition(lease.status.conditions, LeaseCondition.PENDING) is not None:
        words.insert(0, Word(LeaseCondition.PENDING, False, LeaseReason.READY, "the lease has an exporter"))
    return _build(lease, words, now)


def ended(lease: Lease, word: Word, now: datetime) -> tuple[Condition, ...]:
    """The list of a lease that is over."""
    if word.reason is LeaseReason.RELEASED:
        return _build(lease, (word,), now)
    front = Word(LeaseCondition.PENDING, False, word.reason, word.message)
    return _build(lease, (front, word), now)


def decisive(conditions: tuple[Condition, ...]) -> Condition | None:
    """The last condition, None where there is none."""
    return conditions[-1] if conditions else None


def differs(lease: Lease, wanted: tuple[Condition, ...]) -> bool:
    """True if the list is worth a write: types, truths, reasons or the generation differ. A message alone is not."""
    return _essence(lease.status.conditions) != _essence(wanted)


def _essence(conditions: Iterable[Condition]) -> list[tuple[str, Truth, str, int]]:
    return [(item.type, item.status, item.reason, item.observed_generation) for item in conditions]


def _build(lease: Lease, words: Iterable[Word], now: datetime) -> tuple[Condition, ...]:
    return tuple(_condition(lease, word, now) for word in words)


def _condition(lease: Lease, word: Word, now: datetime) -> Condition:
    truth = Truth.TRUE if word.holds else Truth.FALSE
    stored = condition(lease.status.conditions, word.type)
    since = stored.last_transition if stored is not None and stored.status is truth else now
    message = word.message[:MESSAGE_CHARACTERS]
    return Condition(word.type, truth, word.reason, message, since, lease.meta.generation)
