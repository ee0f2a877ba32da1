"""Where a waiting lease stands and when it may begin."""

from datetime import timedelta
from typing import Any

from lablease.model.durations import format_time
from lablease.model.lease import Lease
from lablease.model.testing import HOUR, MINUTE, NOON, SECOND, client, exporter, lease, metadata, policy, rule
from lablease.rules.liveness import Presence
from lablease.rules.queue import Place, place
from lablease.rules.world import World


def waiter(name: str, after: timedelta = timedelta(0), **spec: Any) -> Lease:
    return lease(name, meta=metadata(name, created=NOON + after), **spec)


def held(name: str, until: timedelta) -> tuple[Any, Lease]:
    status = {"ended": False, "exporterRef": {"name": name}, "grant": 1, "beginTime": format_time(NOON)}
    holder = lease(f"on-{name}", status=status, duration=None, endTime=format_time(NOON + until))
    return exporter(name, leaseRef={"name": f"on-{name}"}, grant=1), holder


def world(*leases: Lease, busy: tuple[tuple[str, timedelta], ...] = (("e1", HOUR), ("e2", 2 * HOUR))) -> World:
    made = World("lab")
    made.clients["alice"] = client()
    for name, until in busy:
        there, holder = held(name, until)
        made.put_exporter(there)
        made.put_lease(holder)
    for item in leases:
        made.put_lease(item)
    return made


def test_the_position_counts_who_is_ahead_on_the_same_exporters() -> None:
    first, second, third = waiter("a"), waiter("b", SECOND), waiter("c", 2 * SECOND)
    here = world(first, second, third)
    assert [place(item, here, NOON) for item in (first, second, third)] == [
        Place(1, NOON + HOUR),
        Place(2, NOON + 2 * HOUR),
        Place(3, None),
    ]


def test_who_wants_something_else_or_comes_later_is_not_ahead() -> None:
    mine = waiter("b", HOUR)
    others = (
        waiter("pinned", exporterRef={"name": "x"}, selector={}),
        waiter("later", beginTime=format_time(NOON + SECOND), duration="9h"),
        waiter("released", release=True),
        waiter("broken", duration="1d"),
        waiter("stranger", clientRef={"name": "nobody"}),
    )
    assert place(mine, world(mine, *others), NOON) == Place(1, NOON + HOUR)


def test_a_booking_is_ahead_from_its_begin_on() -> None:
    mine, booked = waiter("b", HOUR), waiter("booked", beginTime=format_time(NOON + SECOND), duration="9h")
    here = world(mine, booked)
    assert place(mine, here, NOON) == Place(1, NOON + HOUR)
    assert place(mine, here, NOON + SECOND) == Place(2, NOON + 2 * HOUR)


def test_a_higher_priority_is_ahead() -> None:
    mine, other = waiter("a"), waiter("b", SECOND, clientRef={"name": "bob"})
    here = world(mine, other)
    here.clients["bob"] = client("bob", labels={"vip": "yes"})
    here.put_policy(policy("p", rule(), rule({"vip": "yes"}, priority=1)))
    assert place(mine, here, NOON) == Place(2, NOON + 2 * HOUR)
    assert place(other, here, NOON) == Place(1, NOON + HOUR)


def test_the_estimate_ignores_exporters_that_are_away_and_never_lies_in_the_past() -> None:
    mine = waiter("a")
    here = world(mine, busy=(("e1", -MINUTE),))
    here.put_exporter(exporter("e0", session=None))
    here.put_exporter(exporter("e2"))
    here.presences["e2"] = Presence(lost=NOON - MINUTE)
    assert place(mine, here, NOON) == Place(1, NOON)
    idle = world(mine, busy=())
    idle.put_exporter(exporter("e1"))
    assert place(mine, idle, NOON) == Place(1, NOON)


def test_a_booking_begins_at_its_begin_at_the_earliest() -> None:
    mine = waiter("a", beginTime=format_time(NOON + 90 * MINUTE), duration="9h")
    assert place(mine, world(mine), NOON) == Place(1, NOON + 90 * MINUTE)


def test_a_holder_without_a_begin_counts_as_free_now() -> None:
    mine = waiter("a")
    here = world(mine, busy=())
    here.put_exporter(exporter("e1", leaseRef={"name": "half"}, grant=1))
    here.put_lease(lease("half", status={"ended": False, "exporterRef": {"name": "e1"}, "grant": 1}))
    assert place(mine, here, NOON) == Place(1, NOON)


def test_who_does_not_wait_has_no_place() -> None:
    here = world()
    assert place(here.leases["on-e1"], here, NOON) is None
    assert place(waiter("a", selector={"matchLabels": {"board": "x"}}), here, NOON) is None
    assert place(waiter("a", status={"ended": True}), here, NOON) is None
