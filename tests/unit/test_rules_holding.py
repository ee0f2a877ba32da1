"""Who holds an exporter."""

from datetime import timedelta
from typing import Any

import pytest

from lablease.model.exporter import parse_exporter
from lablease.model.lease import parse_lease
from lablease.model.testing import HOUR, NOON, exporter, lease, raw_exporter, raw_lease
from lablease.rules.holding import grant_of, held, next_grant

STATUS = {"ended": False, "exporterRef": {"name": "e1"}, "grant": 7, "beginTime": "2030-01-31T12:00:00Z"}
SLOT: dict[str, Any] = {"leaseRef": {"name": "l1"}, "grant": 7}


def test_slot_and_lease_that_name_each_other_under_one_grant_hold() -> None:
    assert held(exporter(**SLOT), lease(status=STATUS))


@pytest.mark.parametrize(
    ("slot", "status"),
    [
        ({"leaseRef": None, "grant": 7}, STATUS),
        ({"leaseRef": {"name": "l2"}, "grant": 7}, STATUS),
        (SLOT, {"ended": False}),
        (SLOT, STATUS | {"exporterRef": {"name": "e2"}}),
        (SLOT, STATUS | {"grant": 6}),
        (SLOT, STATUS | {"grant": 8}),
        (SLOT, STATUS | {"ended": True}),
    ],
)
def test_anything_else_does_not_hold(slot: dict[str, Any], status: dict[str, Any]) -> None:
    assert not held(exporter(**slot), lease(status=status))
    assert grant_of(exporter(**slot), lease(status=status)) is None


def test_a_lease_of_another_namespace_or_none_does_not_hold() -> None:
    raw = raw_lease(status=STATUS)
    raw["metadata"]["namespace"] = "other"
    assert not held(exporter(**SLOT), parse_lease(raw))
    assert not held(exporter(**SLOT), None)
    assert grant_of(exporter(**SLOT), None) is None


def test_a_grant_of_jumpstarters_own_controller_has_no_number_and_holds() -> None:
    status = {"ended": False, "exporterRef": {"name": "e1"}, "beginTime": "2030-01-31T12:00:00Z"}
    assert held(exporter(leaseRef={"name": "l1"}), lease(status=status))
    assert not held(exporter(leaseRef={"name": "l1"}), lease(status={"ended": False}))


def test_the_fence_of_a_holder() -> None:
    grant = grant_of(exporter(**SLOT), lease(status=STATUS))
    assert grant is not None
    assert (grant.namespace, grant.exporter, grant.lease, grant.number) == ("lab", "e1", "l1", 7)
    assert (grant.client, grant.end) == ("alice", NOON + HOUR)


def test_the_next_grant_is_the_time_in_milliseconds_and_always_higher() -> None:
    milliseconds = int(NOON.timestamp() * 1000)
    assert next_grant(exporter(), NOON) == milliseconds
    assert next_grant(exporter(), NOON + timedelta(microseconds=1999)) == milliseconds + 1
    assert next_grant(exporter(grant=milliseconds - 1), NOON) == milliseconds
    assert next_grant(exporter(grant=milliseconds), NOON) == milliseconds + 1
    assert next_grant(exporter(grant=milliseconds * 2), NOON) == milliseconds * 2 + 1


def test_a_recreated_exporter_starts_above_the_grants_of_its_namesake() -> None:
    assert parse_exporter(raw_exporter()).grant == 0
    assert next_grant(exporter(), NOON + HOUR) > next_grant(exporter(), NOON)
