"""Bookings: what is kept for whom, and who need not care."""

from datetime import timedelta
from typing import Any

import pytest

from lablease.model.durations import format_time
from lablease.model.lease import Lease
from lablease.model.testing import HOUR, MINUTE, NOON, SECOND, client, exporter, lease, metadata, policy, rule
from lablease.rules.booking import Booking, Keeps, is_blocked, keeps
from lablease.rules.lifecycle import Later, Queue, lease_step
from lablease.rules.liveness import Presence
from lablease.rules.policy import Approval
from lablease.rules.world import World


def world(*exporters: Any) -> World:
    made = World("lab")
    made.clients["alice"] = client(labels={"team": "red"})
    for item in exporters:
        made.put_exporter(item)
    return made


def held_by(name: str, by: str, until: timedelta, here: World) -> None:
    """Let a lease hold an exporter that ends ``until`` after noon."""
    here.put_exporter(exporter(name, leaseRef={"name": by}, grant=1))
    status = {"ended": False, "exporterRef": {"name": name}, "grant": 1, "beginTime": format_time(NOON)}
    here.put_lease(lease(by, status=status, duration=None, endTime=format_time(NOON + until)))


def booking(here: World, name: str, begin: timedelta, *, created: timedelta = timedelta(0), **spec: Any) -> Booking:
    meta = metadata(name, created=NOON + created)
    item = lease(name, meta=meta, beginTime=format_time(NOON + begin), **spec)
    here.put_lease(item)
    step = lease_step(item, here, NOON)
    assert isinstance(step, Later | Queue)
    return Booking(item, step.request, NOON + begin)


def kept(planned: Keeps) -> dict[str, list[str]]:
    return {name: [item.lease for item in items] for name, items in planned.items()}


def test_a_booking_has_one_exporter_kept() -> None:
    here = world(exporter("e1"), exporter("e2"))
    assert kept(keeps([booking(here, "b", HOUR)], here, NOON)) == {"e1": ["b"]}


def test_bookings_choose_in_the_order_of_their_begins() -> None:
    here = world(exporter("e1"), exporter("e2"))
    late, early = booking(here, "a", 90 * MINUTE), booking(here, "b", HOUR)
    assert kept(keeps([late, early], here, NOON)) == {"e1": ["b"], "e2": ["a"]}


def test_bookings_that_do_not_overlap_share_an_exporter() -> None:
    here = world(exporter("e1"))
    first, second = booking(here, "a", HOUR), booking(here, "b", 2 * HOUR)
    third = booking(here, "c", 90 * MINUTE)
    assert kept(keeps([first, second, third], here, NOON)) == {"e1": ["a", "b"]}


def test_beyond_the_horizon_nothing_is_kept() -> None:
    here = world(exporter("e1"))
    item = booking(here, "b", 24 * HOUR)
    assert kept(keeps([item], here, NOON)) == {"e1": ["b"]}
    assert keeps([item], here, NOON - SECOND) == {}


def test_an_exporter_that_is_free_in_time_is_chosen() -> None:
    here = world(exporter("e2"))
    held_by("e1", "long", 2 * HOUR, here)
    assert kept(keeps([booking(here, "b", HOUR)], here, NOON)) == {"e2": ["b"]}


def test_one_that_is_held_but_free_in_time_is_as_good() -> None:
    here = world(exporter("e2"))
    held_by("e1", "short", HOUR, here)
    assert kept(keeps([booking(here, "b", HOUR)], here, NOON)) == {"e1": ["b"]}


def test_else_the_one_that_is_free_first_is_chosen() -> None:
    here = world()
    held_by("e1", "longer", 3 * HOUR, here)
    held_by("e2", "long", 2 * HOUR, here)
    assert kept(keeps([booking(here, "b", HOUR)], here, NOON)) == {"e2": ["b"]}


def test_a_booking_whose_begin_has_come_still_has_its_exporter_kept() -> None:
    here = world(exporter("e2"))
    held_by("e1", "long", 2 * HOUR, here)
    item = booking(here, "b", -MINUTE, created=-HOUR)
    assert kept(keeps([item], here, NOON)) == {"e2": ["b"]}


def test_an_exporter_that_is_away_is_kept_for_nobody() -> None:
    here = world(exporter("e1", session=None))
    assert keeps([booking(here, "b", HOUR)], here, NOON) == {}
    lost = world(exporter("e1"))
    lost.presences["e1"] = Presence(lost=NOON)
    item = booking(lost, "b", HOUR)
    assert kept(keeps([item], lost, NOON + 14 * SECOND)) == {"e1": ["b"]}
    assert keeps([item], lost, NOON + 15 * SECOND) == {}


def test_a_higher_priority_makes_a_better_choice() -> None:
    here = world(exporter("e1"), exporter("e2", meta=metadata("e2", labels={"board": "rpi4", "vip": "yes"})))
    here.put_policy(policy("a", rule()))
    here.put_policy(policy("b", rule(priority=1), exporters={"vip": "yes"}))
    assert kept(keeps([booking(here, "b", HOUR)], here, NOON)) == {"e2": ["b"]}


class TestAnExporterThatIsKept:
    def blocked(self, item: Lease, *, now: timedelta = timedelta(0), priority: int = 0) -> bool:
        here = world(exporter("e1"))
        planned = keeps([booking(here, "b", HOUR)], here, NOON)
        return is_blocked(item, Approval(priority), planned["e1"], NOON + now)

    def waiter(self, after: timedelta, **spec: Any) -> Lease:
        return lease("w", meta=metadata("w", created=NOON + after), **spec)

    def test_is_left_alone_by_a_later_lease_that_would_overrun(self) -> None:
        assert self.blocked(self.waiter(SECOND, duration="61m"))

    def test_may_be_used_by_a_lease_that_ends_in_time(self) -> None:
        assert not self.blocked(self.waiter(SECOND, duration="60m"))
        assert self.blocked(self.waiter(SECOND, duration="60m"), now=SECOND)

    def test_may_be_used_by_a_lease_that_came_earlier(self) -> None:
        assert not self.blocked(self.waiter(-SECOND, duration="5h"))

    def test_may_be_used_by_a_lease_that_outranks_the_booking(self) -> None:
        assert not self.blocked(self.waiter(SECOND, duration="5h"), priority=1)
        assert self.blocked(self.waiter(16 * MINUTE, duration="5h"), priority=1)

    def test_may_be_used_by_the_booking_itself(self) -> None:
        assert not self.blocked(lease("b", meta=metadata("b", created=NOON + HOUR)), now=HOUR)


@pytest.mark.parametrize(("spec", "end"), [({}, 2 * HOUR), ({"duration": None, "endTime": None}, HOUR)])
def test_the_end_of_a_booking_is_known_before_it_begins(spec: dict[str, Any], end: timedelta) -> None:
    here = world(exporter("e1"))
    item = lease("b", beginTime=format_time(NOON + HOUR), **spec)
    request = booking(here, "b", HOUR).request
    assert Booking(item, request, NOON + HOUR).end == NOON + end
