"""What people read of a lease: why it waits, why it is refused and why it ended."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from lablease.model.durations import format_time
from lablease.model.lease import Lease, LeaseCondition, LeaseReason
from lablease.model.testing import (
    HOUR,
    NOON,
    SECOND,
    Raw,
    client,
    conditions,
    exporter,
    lease,
    metadata,
    policy,
    rule,
)
from lablease.rules.conditions import Word
from lablease.rules.lifecycle import End, LeaseStep, Queue, Refuse, lease_step, waiting_word
from lablease.rules.liveness import Presence
from lablease.rules.world import World


def world(*exporters: Any) -> World:
    made = World("lab")
    made.clients["alice"] = client(labels={"team": "red"})
    for item in exporters:
        made.put_exporter(item)
    return made


def step(item: Lease, here: World, after: timedelta = timedelta(0)) -> LeaseStep:
    here.put_lease(item)
    return lease_step(item, here, NOON + after)


def holding(name: str = "e1") -> Raw:
    status = {"ended": False, "exporterRef": {"name": name}, "grant": 7, "beginTime": format_time(NOON)}
    return status | {"conditions": conditions(("Ready", "True", "Ready"))}


def slot(of: str = "l1", name: str = "e1", **more: Any) -> Any:
    return exporter(name, leaseRef={"name": of}, grant=7, **more)


class TestTheWordForThoseWhoWait:
    OFFLINE = (LeaseReason.OFFLINE, "every exporter that may serve this lease is offline")
    UNREGISTERED = (LeaseReason.OFFLINE, "no exporter that may serve this lease has reported its devices")
    IN_USE = (LeaseReason.NOT_AVAILABLE, "every exporter that may serve this lease is in use")
    BUSY = (LeaseReason.NOT_READY, "every exporter that may serve this lease is still busy with itself")
    KEPT = (LeaseReason.NOT_AVAILABLE, "the exporters that may serve this lease are kept for others")

    def word(self, *there: Any, lost: datetime | None = None, after: timedelta = timedelta(0)) -> Word:
        here = world(*there)
        here.presences["e1"] = Presence(lost)
        found = step(lease(), here)
        assert isinstance(found, Queue)
        return waiting_word(found.choices, here, NOON + after)

    @pytest.mark.parametrize(
        ("there", "expected"),
        [
            ((exporter(session=None),), OFFLINE),
            ((exporter(exporterStatus="Offline"),), OFFLINE),
            ((exporter(devices=None),), UNREGISTERED),
            ((exporter(devices=None), exporter("e2", session=None)), UNREGISTERED),
            ((slot("x"),), IN_USE),
            ((slot("x"), exporter("e2", exporterStatus="LeaseReady")), IN_USE),
            ((slot("x", exporterStatus="AfterLeaseHook"),), IN_USE),
            ((slot("x"), exporter("e2", session=None)), IN_USE),
            ((slot("x", session=None), exporter("e2", exporterStatus="LeaseReady")), BUSY),
            ((exporter(exporterStatus="LeaseReady"),), BUSY),
            ((exporter(exporterStatus="LeaseReady"), exporter("e2", devices=None)), BUSY),
            ((exporter(),), KEPT),
            ((exporter(), exporter("e2", exporterStatus="LeaseReady")), KEPT),
        ],
    )
    def test_says_what_the_exporters_that_are_there_do(
        self, there: tuple[Any, ...], expected: tuple[LeaseReason, str]
    ) -> None:
        assert self.word(*there) == Word(LeaseCondition.PENDING, True, *expected)

    @pytest.mark.parametrize(
        ("status", "after", "expected"),
        [("Available", 14, KEPT), ("LeaseReady", 14, BUSY), ("Available", 15, OFFLINE)],
    )
    def test_counts_an_exporter_as_there_for_a_grace(
        self, status: str, after: int, expected: tuple[LeaseReason, str]
    ) -> None:
        word = self.word(exporter(exporterStatus=status), lost=NOON, after=after * SECOND)
        assert (word.reason, word.message) == expected


OVER = "Ready", False
UNSATISFIABLE = "Unsatisfiable", True
INVALID = "Invalid", True
RUNS = holding()


class TestTheWordAtTheEnd:
    @pytest.mark.parametrize(
        ("item", "after", "kind", "why", "message"),
        [
            (lease(status=RUNS, release=True), 0, OVER, "Released", "released"),
            (lease(status=RUNS), 1, OVER, "Expired", "its time was over at 2030-01-31T13:00:00Z"),
            (lease(status=holding("e9")), 0, OVER, "ExporterGone", "exporter e9 was deleted"),
            (
                lease(status=holding("e2")),
                0,
                OVER,
                "ExporterGone",
                "exporter e2 is held by lease l2",
            ),
            (
                lease(meta=metadata("l1", generation=2), status=RUNS, clientRef={"name": "bob"}),
                0,
                OVER,
                "NoAccess",
                "there is no client bob",
            ),
            (lease(release=True), 0, OVER, "Released", "released before it had an exporter"),
            (
                lease(endTime=format_time(NOON + HOUR), waitTimeout="1h"),
                1,
                OVER,
                "Expired",
                "its time was over at 2030-01-31T13:00:00Z, before it had an exporter",
            ),
            (lease(waitTimeout="30m"), 1, UNSATISFIABLE, "WaitTimeout", "waited 30m0s, as long as it asked for"),
            (
                lease(clientRef={"name": "bob"}),
                0,
                INVALID,
                "InvalidClient",
                "spec.clientRef: there is no client 'bob'",
            ),
            (
                lease(selector={}),
                0,
                INVALID,
                "InvalidSelector",
                "spec.selector: name at least one label, or an exporter in spec.exporterRef",
            ),
            (
                lease(duration="0s"),
                0,
                INVALID,
                "InvalidDuration",
                "spec.duration: must be positive, not 0s",
            ),
            (
                lease(meta=metadata("l1", labels={"jumpstarter.dev/lease-ended": "true"})),
                0,
                INVALID,
                "InvalidLabel",
                "metadata.labels[jumpstarter.dev/lease-ended]: is set when a lease ends: create it without",
            ),
            (
                lease("l9", exporterRef={"name": "zzz"}),
                0,
                UNSATISFIABLE,
                "ExporterNotFound",
                "there is no exporter zzz",
            ),
        ],
    )
    def test_names_what_happened(self, item: Lease, after: int, kind: tuple[str, bool], why: str, message: str) -> None:
        rival = lease("l2", status=holding("e2"))
        here = world(slot(), slot("l2", "e2"))
        here.put_lease(rival)
        found = step(item, here, after * HOUR)
        assert isinstance(found, End | Refuse)
        assert found.word == Word(LeaseCondition(kind[0]), kind[1], LeaseReason(why), message)

    def test_names_the_policies_that_would_be_needed(self) -> None:
        here = world(exporter())
        here.put_policy(policy("p", rule({"team": "blue"}, description="the blue team")))
        found = step(lease(), here)
        assert isinstance(found, Refuse)
        text = "no policy lets client alice have e1; policies are for: the blue team"
        assert found.word == Word(LeaseCondition.UNSATISFIABLE, True, LeaseReason.NO_ACCESS, text)

    def test_names_the_client_and_the_exporter_that_no_policy_brings_together(self) -> None:
        here = world(slot())
        here.put_policy(policy("p", rule({"team": "blue"})))
        found = step(lease(meta=metadata("l1", generation=2), status=RUNS), here)
        assert isinstance(found, End)
        assert found.word.message == "no policy lets client alice have e1"
