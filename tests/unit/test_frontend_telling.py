from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lablease.grpc_frontend.telling import Free, Held, Word, next_words, over, settled, word
from lablease.model.exporter import Exporter, ExporterStatus
from lablease.model.keys import Key
from lablease.model.lease import Lease, LeaseSpec, LeaseStatus
from lablease.model.meta import Meta

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
A = Held("a", 5, "alice", NOON)
B = Held("b", 9, "bob", NOON)
BUSY = ExporterStatus.LEASE_READY
AVAILABLE = ExporterStatus.AVAILABLE


@pytest.mark.parametrize(
    ("told", "now", "status", "expected"),
    [
        (None, Free(4), AVAILABLE, (Free(4),)),
        (None, B, AVAILABLE, (Free(8), B)),
        (None, B, BUSY, (B,)),
        (None, B, ExporterStatus.BEFORE_LEASE_HOOK_FAILED, (B,)),
        (None, B, None, (B,)),
        (A, B, BUSY, (Free(8), B)),
        (A, B, AVAILABLE, (Free(8), B)),
        (A, Free(5), BUSY, (Free(5),)),
        (Free(5), B, AVAILABLE, (B,)),
        (Free(5), Free(8), AVAILABLE, ()),
        (A, A, BUSY, ()),
        (A, replace(A, client="bob"), BUSY, (replace(A, client="bob"),)),
        (A, replace(A, end=NOON + timedelta(hours=1)), BUSY, (replace(A, end=NOON + timedelta(hours=1)),)),
        (A, replace(A, grant=6), BUSY, (Free(5), replace(A, grant=6))),
    ],
    ids=[
        "new stream, free",
        "new stream, leased, available: gap first",
        "new stream, leased, busy: the session goes on",
        "new stream, leased, failed hook: the session goes on",
        "new stream, leased, nothing ever reported",
        "another lease: gap",
        "another lease, available: gap",
        "the end",
        "the beginning",
        "nothing new while free",
        "nothing new while leased",
        "transfer without gap",
        "extension without gap",
        "same lease under a new grant: gap",
    ],
)
def test_what_an_exporter_is_told(
    told: Word | None, now: Word, status: ExporterStatus | None, expected: tuple[Word, ...]
) -> None:
    assert next_words(told, now, status) == expected


def exporter(lease: str | None, grant: int) -> Exporter:
    return Exporter(Meta(Key("lab", "board"), "u", "1", 1, NOON), lease=lease, grant=grant)


def lease(grant: int, *, ended: bool = False) -> Lease:
    spec = LeaseSpec("alice", duration=timedelta(hours=1), context={"build": "7"})
    status = LeaseStatus(ended=ended, begin=NOON, exporter="board" if grant else None, grant=grant)
    return Lease(Meta(Key("lab", "l"), "u", "1", 1, NOON), spec, status)


def test_both_writes_of_a_grant_make_it_held() -> None:
    held = Held("l", 7, "alice", NOON + timedelta(hours=1), {"build": "7"})
    assert word(exporter("l", 7), lease(7)) == held


@pytest.mark.parametrize(
    ("slot", "found", "expected"),
    [
        (exporter(None, 7), None, Free(7)),
        (exporter("l", 7), lease(0), Free(6)),
        (exporter("l", 7), lease(5), Free(6)),
        (exporter("l", 7), lease(7, ended=True), Free(7)),
        (exporter("l", 7), None, Free(6)),
        (exporter("l", 0), None, Free(0)),
    ],
    ids=["empty slot", "first write only", "older grant", "ended, slot not freed", "lease unknown", "no grant ever"],
)
def test_otherwise_it_is_free_and_says_which_grants_are_over(
    slot: Exporter, found: Lease | None, expected: Free
) -> None:
    assert word(slot, found) == expected


def test_a_slot_whose_lease_has_another_grant_may_be_a_late_look() -> None:
    assert settled(exporter(None, 7), None)
    assert settled(exporter("l", 7), lease(7))
    assert settled(exporter("l", 7), lease(7, ended=True))
    assert not settled(exporter("l", 7), lease(5))
    assert not settled(exporter("l", 7), None)


def test_a_deleted_lease_ends_the_grant_that_the_slot_still_names() -> None:
    """One less would be the end of the grant before: the agent would ignore it and keep its session."""
    assert word(exporter("a", 5), None) == Free(4)
    assert over(exporter("a", 5)) == Free(5)
