"""What happens to a lease and to a slot next: the rows of the state machine, by name."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from lablease.model.durations import format_time
from lablease.model.lease import Lease, LeaseCondition, LeaseReason
from lablease.model.testing import (
    HOUR,
    MINUTE,
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
from lablease.rules.lifecycle import (
    End,
    Finish,
    Free,
    Keep,
    Later,
    LeaseStep,
    Open,
    Queue,
    Refuse,
    Retake,
    Run,
    Stand,
    Wait,
    lease_step,
    slot_step,
)
from lablease.rules.liveness import Presence
from lablease.rules.policy import Approval
from lablease.rules.world import Ended, World

TICK = timedelta(microseconds=1)
ENDED_LABEL = {"jumpstarter.dev/lease-ended": "true"}
FRONTEND = {"lablease.dev/origin": "frontend"}


def world(*leases: Lease, exporters: tuple[Any, ...] = ()) -> World:
    made = World("lab")
    made.clients["alice"] = client(labels={"team": "red"})
    for item in exporters or (exporter(),):
        made.put_exporter(item)
    for item in leases:
        made.put_lease(item)
    return made


def step(item: Lease, here: World | None = None, after: timedelta = timedelta(0)) -> LeaseStep:
    here = here or world()
    here.put_lease(item)
    return lease_step(item, here, NOON + after)


def reason(found: LeaseStep) -> tuple[type[object], LeaseReason]:
    assert isinstance(found, End | Refuse)
    return type(found), found.word.reason


def holding(grant: int = 7, **status: Any) -> Raw:
    usual = {"ended": False, "exporterRef": {"name": "e1"}, "grant": grant, "beginTime": format_time(NOON)}
    return usual | {"conditions": conditions(("Ready", "True", "Ready"))} | status


def slot(lease_name: str | None = "l1", grant: int = 7, **more: Any) -> Any:
    return exporter(leaseRef=None if lease_name is None else {"name": lease_name}, grant=grant, **more)


class TestALeaseThatWaits:
    def test_queues_for_every_exporter_that_may_serve_it(self) -> None:
        found = step(lease())
        assert isinstance(found, Queue)
        assert dict(found.choices) == {"e1": Approval()}
        assert found.until is None

    def test_queues_also_for_one_that_is_held_or_away(self) -> None:
        here = world(exporters=(slot("other", session=None),))
        assert isinstance(step(lease(), here), Queue)

    def test_is_released_before_it_had_an_exporter(self) -> None:
        assert reason(step(lease(release=True))) == (End, LeaseReason.RELEASED)

    def test_with_the_label_of_ended_leases_counts_as_released_once_it_was_seen(self) -> None:
        item = lease(
            meta=metadata("l1", labels=ENDED_LABEL),
            status={"ended": False, "conditions": conditions(("Pending", "True", "NotAvailable"))},
        )
        assert reason(step(item)) == (End, LeaseReason.RELEASED)

    def test_that_was_created_with_that_label_is_invalid(self) -> None:
        item = lease(meta=metadata("l1", labels=ENDED_LABEL))
        assert reason(step(item)) == (Refuse, LeaseReason.INVALID_LABEL)

    def test_that_was_released_at_once_with_the_label_is_released(self) -> None:
        item = lease(meta=metadata("l1", labels=ENDED_LABEL), release=True)
        assert reason(step(item)) == (End, LeaseReason.RELEASED)

    def test_expires_when_its_window_is_over(self) -> None:
        item = lease(beginTime=format_time(NOON))
        found = step(item, after=HOUR - TICK)
        assert isinstance(found, Queue)
        assert found.until == NOON + HOUR
        assert reason(step(item, after=HOUR)) == (End, LeaseReason.EXPIRED)

    def test_gives_up_after_the_wait_that_it_asked_for(self) -> None:
        item = lease(waitTimeout="10m")
        found = step(item, after=10 * MINUTE - TICK)
        assert isinstance(found, Queue)
        assert found.until == NOON + 10 * MINUTE
        assert reason(step(item, after=10 * MINUTE)) == (End, LeaseReason.WAIT_TIMEOUT)

    def test_waits_from_the_begin_that_it_asked_for(self) -> None:
        item = lease(waitTimeout="10m", beginTime=format_time(NOON + HOUR), duration="5h")
        assert isinstance(step(item, after=HOUR + 9 * MINUTE), Queue)
        assert reason(step(item, after=HOUR + 10 * MINUTE)) == (End, LeaseReason.WAIT_TIMEOUT)

    def test_begins_later_if_it_asked_for_that(self) -> None:
        item = lease(beginTime=format_time(NOON + HOUR))
        found = step(item, after=HOUR - TICK)
        assert isinstance(found, Later)
        assert found.begin == NOON + HOUR
        assert set(found.choices) == {"e1"}
        assert isinstance(step(item, after=HOUR), Queue)

    def test_that_begins_later_may_have_no_candidates_yet(self) -> None:
        item = lease(beginTime=format_time(NOON + HOUR), selector={"matchLabels": {"board": "x"}})
        assert isinstance(step(item), Later)

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ({"duration": "1d"}, LeaseReason.INVALID_DURATION),
            ({"duration": None}, LeaseReason.INVALID_DURATION),
            ({"duration": "-1h"}, LeaseReason.INVALID_DURATION),
            ({"waitTimeout": "x"}, LeaseReason.INVALID_DURATION),
            ({"idleTimeout": "x"}, LeaseReason.INVALID_DURATION),
            ({"beginTime": "tomorrow"}, LeaseReason.INVALID_TIME),
            ({"beginTime": "2030-01-31T12:00:00Z", "endTime": "2030-01-31T12:00:00Z"}, LeaseReason.INVALID_TIME),
            ({"selector": {}}, LeaseReason.INVALID_SELECTOR),
            ({"selector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}, LeaseReason.INVALID_SELECTOR),
            ({"clientRef": {"name": "bob"}}, LeaseReason.INVALID_CLIENT),
            ({"clientRef": {"name": ""}}, LeaseReason.INVALID_CLIENT),
            ({"ttlSecondsAfterEnded": "x"}, LeaseReason.INVALID_SPEC),
            ({"exporterRef": {"name": "e9"}}, LeaseReason.EXPORTER_NOT_FOUND),
            ({"selector": {"matchLabels": {"board": "x"}}}, LeaseReason.SELECTOR_MISMATCH),
        ],
    )
    def test_that_cannot_be_met_is_refused_and_stays_open(self, spec: dict[str, Any], why: LeaseReason) -> None:
        item = lease(**spec)
        assert reason(step(item)) == (Refuse, why)
        found = step(item, after=1000 * HOUR)
        assert isinstance(found, Refuse)
        assert found.until is None

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ({"selector": {"matchLabels": {"board": "x"}}}, LeaseReason.SELECTOR_MISMATCH),
            ({"duration": "1d"}, LeaseReason.INVALID_DURATION),
            ({"clientRef": {"name": "bob"}}, LeaseReason.INVALID_CLIENT),
        ],
    )
    def test_that_cannot_be_met_ends_after_four_seconds_if_a_front_end_made_it(
        self, spec: dict[str, Any], why: LeaseReason
    ) -> None:
        item = lease(meta=metadata("l1", labels=FRONTEND), **spec)
        found = step(item, after=4 * SECOND - TICK)
        assert isinstance(found, Refuse)
        assert found.until == NOON + 4 * SECOND
        assert reason(step(item, after=4 * SECOND)) == (End, why)

    @pytest.mark.parametrize(
        ("labels", "wait", "until"),
        [(FRONTEND, "2s", 2 * SECOND), (FRONTEND, "9s", 4 * SECOND), ({}, "2s", 2 * SECOND), ({}, "9s", 9 * SECOND)],
    )
    @pytest.mark.parametrize("spec", [{"clientRef": {"name": "bob"}}, {"exporterRef": {"name": "e9"}}])
    def test_that_cannot_be_met_stays_open_no_longer_than_it_would_wait(
        self, spec: dict[str, Any], labels: dict[str, str], wait: str, until: timedelta
    ) -> None:
        found = step(lease(meta=metadata("l1", labels=labels), waitTimeout=wait, **spec))
        assert isinstance(found, Refuse)
        assert found.until == NOON + until
        assert found.word.type in (LeaseCondition.INVALID, LeaseCondition.UNSATISFIABLE)

    def test_of_another_origin_stays_open(self) -> None:
        item = lease(meta=metadata("l1", labels={"lablease.dev/origin": "x"}), duration="1d")
        assert isinstance(step(item, after=HOUR), Refuse)

    def test_an_invalid_field_is_named(self) -> None:
        found = step(lease(duration="1d"))
        assert isinstance(found, Refuse)
        assert found.word.message.startswith("spec.duration: '1d' is not a duration")

    def test_a_pin_needs_no_selector(self) -> None:
        assert isinstance(step(lease(selector={}, exporterRef={"name": "e1"})), Queue)


class TestAGrantBetweenItsTwoWrites:
    def test_is_finished(self) -> None:
        assert step(lease(), world(exporters=(slot(),))) == Finish("e1", 7, Approval())

    def test_says_which_rule_won(self) -> None:
        here = world(exporters=(slot(),))
        here.put_policy(policy("p", rule(priority=3, spotAccess=True)))
        assert step(lease(), here) == Finish("e1", 7, Approval(3, True))

    def test_is_given_up_if_the_lease_may_not_have_the_exporter_any_more(self) -> None:
        here = world(exporters=(slot(),))
        here.put_policy(policy("p"))
        item = lease()
        assert step(item, here) == Stand()
        assert slot_step(here.exporters["e1"], here, NOON) == Free()

    def test_is_given_up_if_the_lease_was_released(self) -> None:
        item = lease(release=True)
        here = world(item, exporters=(slot(),))
        assert reason(step(item, here)) == (End, LeaseReason.RELEASED)
        assert slot_step(here.exporters["e1"], here, NOON) == Free()

    def test_is_given_up_if_the_lease_begins_later_now(self) -> None:
        item = lease(beginTime=format_time(NOON + HOUR))
        here = world(item, exporters=(slot(),))
        assert isinstance(step(item, here), Later)
        assert slot_step(here.exporters["e1"], here, NOON) == Free()

    def test_of_two_slots_that_name_a_lease_one_is_kept(self) -> None:
        other = exporter("e2", leaseRef={"name": "l1"}, grant=9)
        item = lease()
        here = world(item, exporters=(slot(), other))
        assert step(item, here) == Finish("e1", 7, Approval())
        assert slot_step(here.exporters["e1"], here, NOON) == Keep()
        assert slot_step(other, here, NOON) == Free()

    def test_keeps_its_slot(self) -> None:
        here = world(lease(), exporters=(slot(),))
        assert slot_step(here.exporters["e1"], here, NOON) == Keep()


class TestALeaseThatRuns:
    def test_runs_until_its_end(self) -> None:
        here = world(exporters=(slot(),))
        assert step(lease(status=holding()), here, HOUR - TICK) == Run(NOON + HOUR, "Ready", None)

    def test_expires_exactly_at_its_end(self) -> None:
        here = world(exporters=(slot(),))
        assert reason(step(lease(status=holding()), here, HOUR)) == (End, LeaseReason.EXPIRED)

    def test_ends_when_it_is_released(self) -> None:
        here = world(exporters=(slot(),))
        assert reason(step(lease(status=holding(), release=True), here)) == (End, LeaseReason.RELEASED)

    def test_ends_when_it_gets_the_label_of_ended_leases(self) -> None:
        item = lease(meta=metadata("l1", labels=ENDED_LABEL), status=holding())
        assert reason(step(item, world(exporters=(slot(),)))) == (End, LeaseReason.RELEASED)

    def test_ends_when_its_exporter_is_deleted(self) -> None:
        here = world(exporters=(exporter("e2"),))
        assert reason(step(lease(status=holding()), here)) == (End, LeaseReason.EXPORTER_GONE)

    @pytest.mark.parametrize("field", ["duration", "beginTime", "endTime"])
    def test_ends_when_its_times_become_unreadable(self, field: str) -> None:
        spec: dict[str, Any] = {field: "1d"}
        item = lease(status=holding(), **spec)
        kind, why = reason(step(item, world(exporters=(slot(),))))
        assert kind is End
        assert why in (LeaseReason.INVALID_DURATION, LeaseReason.INVALID_TIME)

    def test_ends_when_nobody_knows_any_more_for_whom_it_runs(self) -> None:
        item = lease(status=holding(), clientRef={"name": 7})
        assert reason(step(item, world(exporters=(slot(),)))) == (End, LeaseReason.INVALID_CLIENT)

    def test_goes_on_when_another_field_becomes_unreadable(self) -> None:
        item = lease(status=holding(), waitTimeout="1d")
        assert isinstance(step(item, world(exporters=(slot(),))), Run)

    def test_keeps_an_exporter_that_is_away_disabled_or_relabelled(self) -> None:
        there = slot(session=None, meta=metadata("e1", labels={"board": "x"}), spec={"enabled": False})
        item = lease(status=holding())
        here = world(item, exporters=(there,))
        assert isinstance(step(item, here), Run)
        assert slot_step(there, here, NOON) == Keep()

    def test_goes_on_when_policies_or_its_client_change(self) -> None:
        here = world(exporters=(slot(),))
        here.put_policy(policy("p"))
        here.clients.clear()
        assert isinstance(step(lease(status=holding()), here), Run)

    def test_that_a_crash_left_without_a_begin_gets_one(self) -> None:
        item = lease(status=holding(beginTime=None))
        assert step(item, world(exporters=(slot(),))) == Finish("e1", 7, Approval())

    def test_that_a_crash_left_without_a_begin_and_any_end_expires(self) -> None:
        item = lease(status=holding(beginTime=None), duration=None)
        assert reason(step(item, world(exporters=(slot(),)))) == (End, LeaseReason.EXPIRED)

    def test_takes_over_the_number_of_a_slot_that_names_it(self) -> None:
        status = holding(grant=3, priority=2, spotAccess=True)
        assert step(lease(status=status), world(exporters=(slot(),))) == Finish("e1", 7, Approval(2, True))

    def test_takes_an_empty_slot_again(self) -> None:
        assert step(lease(status=holding()), world(exporters=(slot(None),))) == Retake("e1")

    def test_takes_a_slot_again_that_names_a_lease_without_a_right_to_it(self) -> None:
        assert step(lease(status=holding()), world(exporters=(slot("gone"),))) == Retake("e1")
        elsewhere = lease("l2", status=holding(exporterRef={"name": "e2"}))
        assert step(lease(status=holding()), world(elsewhere, exporters=(slot("l2"),))) == Retake("e1")

    @pytest.mark.parametrize(
        "rival", [lease("l2", status=holding()), lease("l2"), lease("l2", beginTime=format_time(NOON - MINUTE))]
    )
    def test_ends_when_another_lease_holds_its_exporter(self, rival: Lease) -> None:
        here = world(rival, exporters=(slot("l2"),))
        assert reason(step(lease(status=holding()), here)) == (End, LeaseReason.EXPORTER_GONE)

    def test_two_leases_in_each_others_slots_do_not_go_round_in_circles(self) -> None:
        one = lease("l1", status=holding(exporterRef={"name": "e1"}))
        two = lease("l2", status=holding(exporterRef={"name": "e2"}))
        there = (slot("l2"), exporter("e2", leaseRef={"name": "l1"}, grant=7))
        here = world(one, two, exporters=there)
        assert lease_step(one, here, NOON) == Retake("e1")
        assert lease_step(two, here, NOON) == Retake("e2")


class TestAnEditOfARunningLease:
    def edited(self, here: World, **spec: Any) -> LeaseStep:
        here.put_exporter(slot())
        return step(lease(meta=metadata("l1", generation=2), status=holding(), **spec), here)

    def test_changes_its_end(self) -> None:
        assert self.edited(world(), duration="3h") == Run(NOON + 3 * HOUR, "has exporter e1", None)

    def test_is_cut_to_the_longest_that_policies_allow_and_says_so(self) -> None:
        here = world()
        here.put_policy(policy("p", rule({"team": "red"}, maximumDuration="90m")))
        cut = NOON + 90 * MINUTE
        assert self.edited(here, duration="3h") == Run(
            cut, "has exporter e1; cut to 1h30m0s, the longest that policies allow", cut
        )
        assert self.edited(here, duration="90m") == Run(cut, "has exporter e1", None)

    def test_that_gives_only_an_end_is_cut_as_any_other(self) -> None:
        here = world()
        here.put_policy(policy("p", rule(maximumDuration="90m")))
        found = self.edited(here, duration=None, endTime=format_time(NOON + 3 * HOUR))
        assert isinstance(found, Run)
        assert found.until == found.notice == NOON + 90 * MINUTE

    def test_never_makes_it_run_beyond_the_end_that_it_asks_for(self) -> None:
        here = world(exporters=(slot(),))
        here.put_policy(policy("p", rule(maximumDuration="90m")))
        meta = metadata("l1", generation=2, created=NOON - HOUR)
        found = step(lease(meta=meta, status=holding(), duration=None, endTime=format_time(NOON + HOUR)), here)
        assert isinstance(found, Run)
        assert found.until == NOON + HOUR

    @pytest.mark.parametrize(("board", "goes_on"), [("rpi4", True), ("x86", False)])
    def test_is_judged_by_the_policies_of_its_exporter(self, board: str, goes_on: bool) -> None:
        here = world()
        here.put_policy(policy("p", rule(), exporters={"board": board}))
        assert isinstance(self.edited(here, duration="3h"), Run if goes_on else End)

    def test_is_not_cut_for_a_maximum_that_another_rule_or_another_exporter_has(self) -> None:
        here = world()
        here.put_policy(
            policy("p", rule(maximumDuration="90m"), rule(maximumDuration="4h"), exporters={"board": "rpi4"})
        )
        here.put_policy(policy("q", rule(maximumDuration="9h"), exporters={"board": "x86"}))
        assert self.edited(here, duration="3h") == Run(NOON + 3 * HOUR, "has exporter e1", None)
        found = self.edited(here, duration="5h")
        assert isinstance(found, Run)
        assert found.until == found.notice == NOON + 4 * HOUR

    def test_of_a_lease_with_a_begin_is_cut_from_that_begin(self) -> None:
        here = world()
        here.put_policy(policy("p", rule(maximumDuration="90m")))
        found = self.edited(here, duration="3h", beginTime=format_time(NOON - HOUR))
        assert isinstance(found, Run)
        assert found.until == found.notice == NOON + 30 * MINUTE

    def test_takes_back_the_notice_when_it_is_short_enough_again(self) -> None:
        here = world(exporters=(slot(),))
        status = holding(endTime=format_time(NOON + MINUTE))
        item = lease(meta=metadata("l1", generation=2), status=status)
        assert step(item, here) == Run(NOON + HOUR, "has exporter e1", None)
        same = lease(status=status)
        assert step(same, here) == Run(NOON + MINUTE, "Ready", NOON + MINUTE)

    def test_to_a_client_without_access_ends_it(self) -> None:
        here = world()
        here.clients["bob"] = client("bob")
        here.put_policy(policy("p", rule({"team": "red"})))
        assert reason(self.edited(here, clientRef={"name": "bob"})) == (End, LeaseReason.NO_ACCESS)

    def test_to_a_client_that_does_not_exist_ends_it(self) -> None:
        assert reason(self.edited(world(), clientRef={"name": "bob"})) == (End, LeaseReason.NO_ACCESS)

    def test_to_a_client_with_access_is_a_transfer(self) -> None:
        here = world()
        here.clients["bob"] = client("bob")
        assert isinstance(self.edited(here, clientRef={"name": "bob"}), Run)


class TestTheSlotOfALeaseThatIsOver:
    def after(self, status: str | None, after: timedelta, over: datetime | None = NOON) -> object:
        there = slot(exporterStatus=status)
        here = world(exporters=(there,))
        here.end_lease("l1", Ended(over))
        here.vacated["e1"] = NOON
        return slot_step(there, here, NOON + after)

    def test_is_freed_when_the_exporter_is_clean(self) -> None:
        assert self.after("Available", timedelta(0)) == Free()
        assert self.after(None, timedelta(0)) == Free()

    def test_is_kept_while_the_exporter_cleans_up(self) -> None:
        assert self.after("AfterLeaseHook", HOUR) == Wait(stuck_at=NOON + 5 * MINUTE)

    def test_is_freed_some_seconds_after_a_failed_hook(self) -> None:
        assert self.after("AfterLeaseHookFailed", SECOND) == Wait(at=NOON + 5 * SECOND)
        assert self.after("AfterLeaseHookFailed", 5 * SECOND) == Free()

    def test_is_freed_when_the_exporter_is_away(self) -> None:
        there = slot(exporterStatus="LeaseReady")
        here = world(exporters=(there,))
        here.presences["e1"] = Presence(NOON - MINUTE)
        assert slot_step(there, here, NOON) == Free()

    def test_whose_end_nobody_saw_counts_from_now(self) -> None:
        there = slot(exporterStatus="AfterLeaseHook")
        here = world(exporters=(there,))
        assert slot_step(there, here, NOON + HOUR) == Wait(stuck_at=NOON + HOUR + 5 * MINUTE)

    def test_is_freed_at_once_if_nobody_was_told_of_the_grant(self) -> None:
        there = slot(exporterStatus="LeaseReady")
        assert slot_step(there, world(lease(release=True), exporters=(there,)), NOON) == Free()

    def test_of_a_lease_that_runs_elsewhere_is_kept_while_the_exporter_cleans_up(self) -> None:
        there = slot(exporterStatus="AfterLeaseHook")
        here = world(lease(status=holding(exporterRef={"name": "e2"})), exporters=(there, exporter("e2")))
        assert slot_step(there, here, NOON) == Wait(stuck_at=NOON + 5 * MINUTE)

    def test_of_a_lease_that_runs_elsewhere_is_freed(self) -> None:
        there = slot()
        here = world(lease(status=holding(exporterRef={"name": "e2"})), exporters=(there, exporter("e2")))
        assert slot_step(there, here, NOON) == Free()

    def test_an_empty_slot_is_open(self) -> None:
        assert slot_step(exporter(), world(), NOON) == Open()

    def test_a_held_slot_is_kept(self) -> None:
        here = world(lease(status=holding()), exporters=(slot(),))
        assert slot_step(here.exporters["e1"], here, NOON) == Keep()
