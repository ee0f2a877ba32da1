"""Is an exporter there, may its slot be emptied, and which conditions say so."""

from datetime import timedelta
from typing import Any

import pytest

from lablease.model.exporter import Exporter
from lablease.model.meta import Truth
from lablease.model.testing import MINUTE, NOON, SECOND, conditions, exporter, metadata
from lablease.rules.liveness import (
    Busy,
    Clean,
    CleanAt,
    Presence,
    cleanliness,
    connected,
    exporter_conditions,
    online,
    ready,
)

TICK = timedelta(microseconds=1)


def test_a_session_counts_while_its_front_end_lives() -> None:
    assert connected(exporter(), Presence(), NOON)
    assert not connected(exporter(session=None), Presence(), NOON)


def test_a_session_counts_for_a_grace_after_its_front_end_was_lost() -> None:
    lost = Presence(lost=NOON)
    assert lost.deadline == NOON + 15 * SECOND
    assert connected(exporter(), lost, NOON + 15 * SECOND - TICK)
    assert not connected(exporter(), lost, NOON + 15 * SECOND)


@pytest.mark.parametrize(
    ("status", "is_online", "is_ready"),
    [
        (None, True, True),
        ("Unspecified", True, True),
        ("Available", True, True),
        ("BeforeLeaseHook", True, False),
        ("LeaseReady", True, False),
        ("AfterLeaseHook", True, False),
        ("BeforeLeaseHookFailed", True, False),
        ("AfterLeaseHookFailed", True, False),
        ("Offline", False, False),
        ("SomethingNew", True, True),
    ],
)
def test_what_a_reported_status_means(status: str | None, is_online: bool, is_ready: bool) -> None:
    there = exporter(exporterStatus=status)
    assert online(there, connected=True) is is_online
    assert ready(there, connected=True) is is_ready
    assert not online(there, connected=False)
    assert not ready(there, connected=False)


def test_an_exporter_without_devices_gets_no_lease() -> None:
    assert not ready(exporter(devices=None), connected=True)
    assert not ready(exporter(devices=[]), connected=True)


def test_a_stuck_exporter_gets_no_lease() -> None:
    assert not ready(exporter(conditions=conditions(("Stuck", "True", "CleanupTimeout"))), connected=True)
    assert ready(exporter(conditions=conditions(("Stuck", "False", "Clean"))), connected=True)


def judged(there: Exporter, after: timedelta, *, here: bool = True) -> object:
    return cleanliness(there, connected=here, over=NOON, now=NOON + after)


@pytest.mark.parametrize("status", [None, "Unspecified", "Available", "Offline"])
def test_a_slot_is_clean_whenever_that_was_reported(status: str | None) -> None:
    assert judged(exporter(exporterStatus=status), timedelta(0)) == Clean()


@pytest.mark.parametrize("status", ["BeforeLeaseHookFailed", "AfterLeaseHookFailed"])
def test_a_failed_hook_is_clean_after_a_few_seconds(status: str) -> None:
    there = exporter(exporterStatus=status)
    assert judged(there, 5 * SECOND - TICK) == CleanAt(NOON + 5 * SECOND)
    assert judged(there, 5 * SECOND) == Clean()


@pytest.mark.parametrize("status", ["BeforeLeaseHook", "LeaseReady", "AfterLeaseHook"])
def test_a_busy_exporter_keeps_its_slot_and_is_stuck_after_the_cleanup_timeout(status: str) -> None:
    assert judged(exporter(exporterStatus=status), 60 * MINUTE) == Busy(NOON + 5 * MINUTE)


def test_an_exporter_that_is_away_is_clean() -> None:
    assert judged(exporter(exporterStatus="LeaseReady"), timedelta(0), here=False) == Clean()


def words(there: Exporter, *, here: bool = True, stuck: bool = False) -> dict[str, tuple[Truth, str, str]]:
    wanted = exporter_conditions(there, connected=here, stuck=stuck, now=NOON)
    return {item.type: (item.status, item.reason, item.message) for item in wanted}


def seen(online_: str = "True", registered: str = "True", *more: tuple[str, str, str]) -> list[dict[str, Any]]:
    return conditions(("Online", online_, "Seen"), ("Registered", registered, "Register"), *more)


@pytest.mark.parametrize(
    ("there", "here", "online_word", "registered_word"),
    [
        (
            exporter(),
            True,
            (Truth.TRUE, "Seen", "holds a session"),
            (Truth.TRUE, "Register", "has reported its devices"),
        ),
        (
            exporter(devices=None),
            True,
            (Truth.TRUE, "Seen", "holds a session"),
            (Truth.FALSE, "Unregister", "has reported no devices"),
        ),
        (
            exporter(),
            False,
            (Truth.FALSE, "Seen", "never seen"),
            (Truth.TRUE, "Register", "has reported its devices"),
        ),
        (
            exporter(lastSeen="2030-01-31T11:00:00Z"),
            False,
            (Truth.FALSE, "Seen", "holds no session"),
            (Truth.TRUE, "Register", "has reported its devices"),
        ),
        (
            exporter(exporterStatus="Offline"),
            True,
            (Truth.FALSE, "Offline", "reported that it stops"),
            (Truth.TRUE, "Register", "has reported its devices"),
        ),
        (
            exporter(exporterStatus="Offline", statusMessage="bye"),
            True,
            (Truth.FALSE, "Offline", "bye"),
            (Truth.TRUE, "Register", "has reported its devices"),
        ),
    ],
)
def test_conditions_of_an_exporter(there: Exporter, here: bool, online_word: object, registered_word: object) -> None:
    assert words(there, here=here) == {"Online": online_word, "Registered": registered_word}


def test_conditions_whose_truth_is_right_are_left_as_they_are() -> None:
    there = exporter(conditions=seen())
    assert exporter_conditions(there, connected=True, stuck=False, now=NOON + MINUTE) == there.conditions


def test_a_changed_truth_has_the_time_and_the_generation_of_the_change() -> None:
    there = exporter(
        meta=metadata("e1", generation=5),
        conditions=seen("False", "False", ("Stuck", "False", "Clean")),
    )
    changed = exporter_conditions(there, connected=True, stuck=True, now=NOON + MINUTE)
    assert [item.type for item in changed] == ["Online", "Registered", "Stuck"]
    assert {(item.last_transition, item.observed_generation) for item in changed} == {(NOON + MINUTE, 5)}


def test_stuck_appears_when_it_is_true_and_stays_as_false() -> None:
    busy = exporter(exporterStatus="AfterLeaseHook", conditions=seen())
    stuck = (Truth.TRUE, "CleanupTimeout", "still AfterLeaseHook long after its lease ended")
    assert words(busy, stuck=True)["Stuck"] == stuck
    assert "Stuck" not in words(busy)
    again = exporter(conditions=seen("True", "True", ("Stuck", "True", "CleanupTimeout")))
    assert words(again)["Stuck"] == (Truth.FALSE, "Clean", "is clean")
    calm = exporter(conditions=seen("True", "True", ("Stuck", "False", "Clean")))
    assert exporter_conditions(calm, connected=True, stuck=False, now=NOON) == calm.conditions


def test_conditions_of_others_are_kept() -> None:
    there = exporter(conditions=conditions(("DuplicateSession", "True", "Two"), ("Online", "True", "Seen")))
    assert list(words(there)) == ["Online", "Registered", "DuplicateSession"]
