"""Who gets which exporter."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lablease.model.durations import format_time
from lablease.model.lease import Lease
from lablease.model.testing import HOUR, MINUTE, NOON, SECOND, client, exporter, lease, metadata, policy, rule
from lablease.rules.allocation import Match, Room, assign, claim, microseconds, offer, turn_of
from lablease.rules.lifecycle import Queue, lease_step
from lablease.rules.matching import Request
from lablease.rules.policy import Approval
from lablease.rules.world import World


def waiter(name: str, after: timedelta = timedelta(0), **spec: Any) -> Lease:
    return lease(name, meta=metadata(name, created=NOON + after), **spec)


def world(*exporters: Any) -> World:
    made = World("lab")
    for name, team in (("alice", "red"), ("bob", "blue")):
        made.clients[name] = client(name, labels={"team": team})
    for item in exporters:
        made.put_exporter(item)
    return made


def answer(here: World, *leases: Lease, blocked: Any = None) -> dict[str, str]:
    room = Room()
    for item in leases:
        here.put_lease(item)
        step = lease_step(item, here, NOON + HOUR)
        assert isinstance(step, Queue), step
        room.put(item, step.request)
    offers = [offer(line, here.choices_for(line.request), here.exporters) for line in room.lines]
    matches = assign(offers) if blocked is None else assign(offers, blocked)
    return {match.lease: match.exporter for match in matches}


def test_the_oldest_lease_goes_first() -> None:
    here = world(exporter("e1"))
    assert answer(here, waiter("young", SECOND), waiter("old")) == {"old": "e1"}


def test_of_the_same_second_the_first_name_goes_first() -> None:
    assert answer(world(exporter("e1")), waiter("b"), waiter("a")) == {"a": "e1"}


def test_a_lease_that_asked_for_a_begin_counts_from_then() -> None:
    booked = waiter("a", beginTime=format_time(NOON + MINUTE), duration="5h")
    assert answer(world(exporter("e1")), booked, waiter("b", 59 * SECOND)) == {"b": "e1"}
    assert answer(world(exporter("e1")), booked, waiter("b", 61 * SECOND)) == {"a": "e1"}


def test_everybody_gets_one_while_there_are_enough() -> None:
    here = world(exporter("e1"), exporter("e2"), exporter("e3"))
    assert answer(here, waiter("a"), waiter("b", SECOND)) == {"a": "e1", "b": "e2"}


def test_the_exporter_that_was_leased_longest_ago_goes_first_then_the_first_name() -> None:
    assert answer(world(exporter("e1", grant=9), exporter("e2", grant=3)), waiter("a")) == {"a": "e2"}
    assert answer(world(exporter("e2", grant=3), exporter("e1", grant=3)), waiter("a")) == {"a": "e1"}


def test_groups_with_different_wishes_do_not_disturb_each_other() -> None:
    x86 = exporter("x1", meta=metadata("x1", labels={"board": "x86"}))
    here = world(exporter("e1"), x86)
    other = waiter("x", HOUR, selector={"matchLabels": {"board": "x86"}})
    assert answer(here, waiter("a"), waiter("b"), other) == {"a": "e1", "x": "x1"}


def test_a_group_that_can_go_nowhere_else_displaces_a_younger_one() -> None:
    here = world(exporter("e1", grant=1), exporter("e2", grant=2))
    pinned = waiter("pinned", exporterRef={"name": "e1"})
    assert answer(here, waiter("young", SECOND), pinned) == {"pinned": "e1", "young": "e2"}


def test_the_displaced_lease_gets_what_it_likes_next() -> None:
    here = world(exporter("e1", grant=1), exporter("e2", grant=2), exporter("e3", grant=3))
    pinned = waiter("pinned", exporterRef={"name": "e1"})
    assert answer(here, waiter("young", SECOND), pinned) == {"pinned": "e1", "young": "e2"}


def test_the_displaced_lease_displaces_in_its_turn() -> None:
    here = world(exporter("e1", grant=1), exporter("e2", grant=2))
    leases = [waiter("p1", exporterRef={"name": "e1"}), waiter("m", SECOND), waiter("z", 2 * SECOND)]
    assert answer(here, *leases) == {"p1": "e1", "m": "e2"}
    assert answer(here, *reversed(leases)) == {"p1": "e1", "m": "e2"}


RED, BLUE = {"team": "red"}, {"team": "blue"}


@pytest.mark.parametrize(("wait", "winner"), [(15 * MINUTE, "high"), (15 * MINUTE + SECOND, "old")])
def test_a_step_of_priority_outweighs_a_quarter_of_an_hour_of_waiting(wait: timedelta, winner: str) -> None:
    here = world(exporter("e1"))
    here.put_policy(policy("p", rule(RED), rule(BLUE, priority=1)))
    assert answer(here, waiter("old"), waiter("high", wait, clientRef={"name": "bob"})) == {winner: "e1"}


def test_priority_counts_on_the_exporter_that_it_is_for() -> None:
    here = world(exporter("e1"), exporter("e2", meta=metadata("e2", labels={"board": "rpi4", "vip": "yes"})))
    here.put_policy(policy("a", rule()))
    here.put_policy(policy("b", rule(BLUE, priority=9), exporters={"vip": "yes"}))
    assert answer(here, waiter("a"), waiter("b", HOUR, clientRef={"name": "bob"})) == {"a": "e1", "b": "e2"}
    alone = world(exporter("e2", meta=metadata("e2", labels={"board": "rpi4", "vip": "yes"})))
    alone.put_policy(policy("a", rule()))
    alone.put_policy(policy("b", rule(BLUE, priority=9), exporters={"vip": "yes"}))
    assert answer(alone, waiter("a"), waiter("b", HOUR, clientRef={"name": "bob"})) == {"b": "e2"}


def test_a_lease_prefers_the_exporter_on_which_it_has_the_higher_priority() -> None:
    here = world(exporter("e1"), exporter("e2", meta=metadata("e2", labels={"board": "rpi4", "vip": "yes"})))
    here.put_policy(policy("a", rule()))
    here.put_policy(policy("b", rule(priority=1), exporters={"vip": "yes"}))
    assert answer(here, waiter("a")) == {"a": "e2"}


def test_a_spot_lease_comes_after_all_others_and_prefers_what_it_has_not_as_spot() -> None:
    here = world(exporter("e1"))
    here.put_policy(policy("p", rule(RED, spotAccess=True, priority=99), rule(BLUE)))
    assert answer(here, waiter("spot"), waiter("z", HOUR, clientRef={"name": "bob"})) == {"z": "e1"}
    assert answer(here, waiter("spot")) == {"spot": "e1"}
    two = world(exporter("e1"), exporter("e2", meta=metadata("e2", labels={"board": "rpi4", "own": "yes"})))
    two.put_policy(policy("p", rule(RED, spotAccess=True, priority=99)))
    two.put_policy(policy("q", rule(RED), exporters={"own": "yes"}))
    assert answer(two, waiter("a")) == {"a": "e2"}


def test_an_exporter_that_is_kept_is_left_alone_by_those_who_must() -> None:
    here = world(exporter("e1", grant=1), exporter("e2", grant=2))

    def blocked(name: str, on: str, _: Approval) -> bool:
        return (name, on) == ("a", "e1")

    assert answer(here, waiter("a"), waiter("b", SECOND), blocked=blocked) == {"a": "e2", "b": "e1"}
    alone = world(exporter("e1"))
    assert answer(alone, waiter("a"), waiter("b", SECOND), blocked=blocked) == {"b": "e1"}


def test_whether_an_exporter_is_kept_depends_on_how_one_may_have_it() -> None:
    here = world(exporter("e1", grant=1), exporter("e2", grant=2))
    here.put_policy(policy("p", rule(RED, priority=1), rule(BLUE, priority=2)))

    def blocked(name: str, on: str, approval: Approval) -> bool:
        return approval == Approval(2)

    assert answer(here, waiter("a"), waiter("b", clientRef={"name": "bob"}), blocked=blocked) == {"a": "e1"}


def test_who_waits_in_a_group_does_not_ask_again_for_what_one_before_it_took() -> None:
    asked: list[tuple[str, str]] = []

    def blocked(name: str, on: str, _: Approval) -> bool:
        asked.append((name, on))
        return False

    here = world(exporter("e1", grant=1), exporter("e2", grant=2), exporter("e3", grant=3))
    answer(here, waiter("a"), waiter("b", SECOND), waiter("c", 2 * SECOND), waiter("d", 3 * SECOND), blocked=blocked)
    assert asked == [("a", "e1"), ("b", "e2"), ("c", "e3")]


def test_what_was_passed_only_for_a_booking_is_open_to_the_next_of_the_group() -> None:
    here = world(exporter("e1", grant=1), exporter("e2", grant=2), exporter("e3", grant=3))

    def blocked(name: str, on: str, _: Approval) -> bool:
        return name in ("a", "b") and on in ("e1", "e2")

    leases = [waiter("a"), waiter("b", SECOND), waiter("c", 2 * SECOND), waiter("d", 3 * SECOND)]
    assert answer(here, *leases, blocked=blocked) == {"a": "e3", "c": "e1", "d": "e2"}


def test_claims_are_compared_exactly() -> None:
    assert claim(Approval(2), (10**15, "a")) == (False, 10**15 - 2 * 900_000_000, "a")
    assert turn_of(waiter("a", 1 * SECOND))[0] - turn_of(waiter("a"))[0] == 1_000_000
    last = datetime.max.replace(tzinfo=UTC)
    assert microseconds(last) - microseconds(last - timedelta(microseconds=1)) == 1


class TestTheRoom:
    REQUEST = Request(lease().spec.selector, "alice", None, False, ())
    OTHER = Request(lease().spec.selector, "bob", None, False, ())

    def test_keeps_those_who_wait_in_order(self) -> None:
        room = Room()
        for name, after in (("c", 0), ("a", 2), ("b", 1)):
            room.put(waiter(name, after * SECOND), self.REQUEST)
        assert room.waiting_in(self.REQUEST) == ["c", "b", "a"]
        assert len(room) == 3
        assert "a" in room

    def test_knows_which_groups_somebody_joined(self) -> None:
        room = Room()
        room.put(waiter("a"), self.REQUEST)
        assert room.take_fresh() == {self.REQUEST}
        assert room.take_fresh() == frozenset()
        room.put(waiter("a"), self.REQUEST)
        assert room.take_fresh() == frozenset()
        room.put(waiter("a", SECOND), self.REQUEST)
        assert room.take_fresh() == {self.REQUEST}
        room.put(waiter("a", SECOND), self.OTHER)
        assert room.take_fresh() == {self.OTHER}
        assert room.request_of("a") == self.OTHER
        assert room.waiting_in(self.REQUEST) == []

    def test_forgets_those_who_leave_and_groups_without_members(self) -> None:
        room = Room()
        room.put(waiter("a"), self.REQUEST)
        room.put(waiter("b"), self.REQUEST)
        room.drop("a")
        room.drop("a")
        assert [line.request for line in room.lines] == [self.REQUEST]
        room.drop("b")
        assert (len(room), list(room.lines), room.take_fresh()) == (0, [], frozenset())
        assert room.request_of("b") is None


def test_the_answer_is_listed_by_exporter() -> None:
    assert assign([]) == []
    here = world(exporter("e2", grant=1), exporter("e1", grant=2))
    room = Room()
    for item in (waiter("a"), waiter("b", SECOND)):
        step = lease_step(item, here, NOON)
        assert isinstance(step, Queue)
        room.put(item, step.request)
    offers = [offer(line, here.choices_for(line.request), here.exporters) for line in room.lines]
    assert assign(offers) == [Match("b", "e1", Approval()), Match("a", "e2", Approval())]


def test_an_offer_has_only_what_is_free_and_may_be_had() -> None:
    here = world(exporter("e1"), exporter("e2"), exporter("x", meta=metadata("x")))
    step = lease_step(waiter("a"), here, NOON)
    assert isinstance(step, Queue)
    room = Room()
    room.put(waiter("a"), step.request)
    (line,) = room.lines
    one = {"e2": here.exporters["e2"]}
    assert [name for name, _ in offer(line, step.choices, one).exporters] == ["e2"]
    assert [name for name, _ in offer(line, step.choices, here.exporters).exporters] == ["e1", "e2"]
