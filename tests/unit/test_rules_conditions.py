"""The condition lists of leases: the decisive one is the last, and what stands before it."""

from typing import Any

import pytest

from lablease.model.lease import Lease, LeaseCondition, LeaseReason
from lablease.model.meta import Condition, Truth
from lablease.model.testing import MINUTE, NOON, conditions, lease, metadata
from lablease.rules.conditions import (
    Word,
    decisive,
    differs,
    ended,
    pending,
    running,
    waiting,
)


def stored(*triples: tuple[str, str, str], generation: int = 1, **meta: Any) -> Lease:
    status = {"ended": False, "conditions": conditions(*triples)}
    return lease(meta=metadata("l1", generation=generation, **meta), status=status)


def listed(items: tuple[Condition, ...]) -> list[tuple[str, str, str]]:
    return [(item.type, str(item.status), item.reason) for item in items]


def test_a_waiting_lease_has_one_condition() -> None:
    word = pending(LeaseReason.OFFLINE, "all are away")
    assert listed(waiting(stored(), word, NOON)) == [("Pending", "True", "Offline")]
    assert listed(waiting(stored(("Unsatisfiable", "True", "NoAccess")), word, NOON)) == [
        ("Pending", "True", "Offline")
    ]


def test_a_lease_that_never_waited_is_just_ready() -> None:
    items = running(stored(), message="has e1", exporter_online=True, now=NOON)
    assert listed(items) == [("Ready", "True", "Ready")]
    assert items[0].message == "has e1"


def test_a_lease_that_waited_is_ready_last() -> None:
    before = stored(("Pending", "True", "NotAvailable"))
    items = running(before, message="has e1", exporter_online=True, now=NOON)
    assert listed(items) == [("Pending", "False", "Ready"), ("Ready", "True", "Ready")]
    assert [item.message for item in items] == ["the lease has an exporter", "has e1"]


def test_an_exporter_that_goes_offline_is_said_before_ready_and_so_is_its_return() -> None:
    ready = stored(("Ready", "True", "Ready"))
    gone = running(ready, message="", exporter_online=False, now=NOON)
    assert listed(gone) == [("ExporterOnline", "False", "Offline"), ("Ready", "True", "Ready")]
    assert gone[0].message == "the exporter is offline; the lease keeps it"
    off = stored(("Pending", "False", "Ready"), ("ExporterOnline", "False", "Offline"), ("Ready", "True", "Ready"))
    back = running(off, message="", exporter_online=True, now=NOON)
    assert listed(back) == [
        ("Pending", "False", "Ready"),
        ("ExporterOnline", "True", "Ready"),
        ("Ready", "True", "Ready"),
    ]
    assert back[1].message == "the exporter is online"


@pytest.mark.parametrize(
    "word",
    [
        Word(LeaseCondition.READY, False, LeaseReason.EXPIRED, "over"),
        Word(LeaseCondition.READY, False, LeaseReason.EXPORTER_GONE, "gone"),
        Word(LeaseCondition.UNSATISFIABLE, True, LeaseReason.NO_ACCESS, "no"),
        Word(LeaseCondition.INVALID, True, LeaseReason.INVALID_TIME, "bad"),
    ],
)
def test_every_end_but_released_says_first_that_nothing_is_pending(word: Word) -> None:
    items = ended(stored(("Ready", "True", "Ready")), word, NOON)
    status = "True" if word.holds else "False"
    assert listed(items) == [("Pending", "False", word.reason), (word.type, status, word.reason)]


def test_released_stands_alone() -> None:
    word = Word(LeaseCondition.READY, False, LeaseReason.RELEASED, "released")
    before = stored(("Pending", "False", "Ready"), ("Ready", "True", "Ready"))
    assert listed(ended(before, word, NOON)) == [("Ready", "False", "Released")]


def test_a_transition_has_the_time_of_the_last_change_of_truth() -> None:
    before = stored(("Pending", "True", "Offline"))
    later = waiting(before, pending(LeaseReason.NOT_AVAILABLE, ""), NOON + MINUTE)
    assert later[0].last_transition == NOON
    ready = running(before, message="", exporter_online=True, now=NOON + MINUTE)
    assert {item.last_transition for item in ready} == {NOON + MINUTE}
    first = waiting(stored(), pending(LeaseReason.OFFLINE, ""), NOON + MINUTE)
    assert first[0].last_transition == NOON + MINUTE


@pytest.mark.parametrize("reason", [LeaseReason.RELEASED, LeaseReason.EXPIRED])
def test_an_end_has_the_time_at_which_it_was_decided(reason: LeaseReason) -> None:
    word = Word(LeaseCondition.READY, False, reason, "over")
    over = ended(stored(("Ready", "True", "Ready")), word, NOON + MINUTE)
    assert {(item.last_transition, item.message) for item in over} == {(NOON + MINUTE, "over")}


def test_a_condition_says_which_generation_it_is_about() -> None:
    assert waiting(stored(generation=7), pending(LeaseReason.OFFLINE, ""), NOON)[0].observed_generation == 7


def test_a_message_is_cut_to_what_the_api_server_takes() -> None:
    word = pending(LeaseReason.OFFLINE, "x" * 32_769)
    assert waiting(stored(), word, NOON)[0].message == "x" * 32_768


def test_the_last_condition_is_the_decisive_one() -> None:
    items = stored(("Pending", "False", "Ready"), ("Ready", "True", "Ready")).status.conditions
    found = decisive(items)
    assert found is not None
    assert (found.type, found.status) == ("Ready", Truth.TRUE)
    three = stored(("Pending", "False", "Ready"), ("ExporterOnline", "True", "Ready"), ("Ready", "True", "Ready"))
    assert decisive(three.status.conditions) is three.status.conditions[2]
    assert decisive(()) is None


@pytest.mark.parametrize(
    ("before", "generation", "differ"),
    [
        (("Pending", "True", "Offline"), 1, False),
        (("Pending", "True", "NotReady"), 1, True),
        (("Pending", "False", "Offline"), 1, True),
        (("Invalid", "True", "Offline"), 1, True),
        (("Pending", "True", "Offline"), 2, True),
    ],
)
def test_a_new_reason_or_generation_is_worth_a_write_and_a_message_is_not(
    before: tuple[str, str, str], generation: int, differ: bool
) -> None:
    there = stored(before, generation=generation)
    assert differs(there, waiting(there, pending(LeaseReason.OFFLINE, "other words"), NOON)) is differ
