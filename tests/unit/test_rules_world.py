"""What is known of a namespace: what is taken in is found, and what is gone leaves nothing behind."""

from datetime import timedelta

import pytest

from lablease.model.testing import MINUTE, NOON, SECOND, client, exporter, lease, policy, rule
from lablease.rules.liveness import Presence
from lablease.rules.matching import request_of
from lablease.rules.policy import Approval
from lablease.rules.world import Ended, World

TICK = timedelta(microseconds=1)
ON_E1 = {"ended": False, "exporterRef": {"name": "e1"}}


class TestALeaseThatIsOver:
    def test_is_remembered_only_by_its_record(self) -> None:
        here = World("lab")
        here.put_lease(lease(status=ON_E1))
        record = Ended(NOON, uid="u", resource_version="7", labelled=False, delete_at=NOON + MINUTE)
        here.end_lease("l1", record)
        assert here.ended == {"l1": record}
        assert here.leases == {}
        assert (list(here.leases_of("alice")), list(here.leases_on("e1"))) == ([], [])

    def test_is_no_more_over_if_it_was_made_anew(self) -> None:
        here = World("lab")
        here.end_lease("l1", Ended(NOON))
        here.put_lease(lease())
        assert (here.ended, list(here.leases)) == ({}, ["l1"])

    def test_is_forgotten_when_it_is_gone(self) -> None:
        here = World("lab")
        here.end_lease("l1", Ended(NOON))
        here.end_lease("l2", Ended(NOON))
        here.forget_lease("l1")
        here.forget_lease("never seen")
        assert list(here.ended) == ["l2"]

    def test_takes_only_itself_out_of_the_lists(self) -> None:
        here = World("lab")
        for name in ("l1", "l2"):
            here.put_lease(lease(name, status=ON_E1))
        here.end_lease("l1", Ended(NOON))
        assert (list(here.leases_of("alice")), list(here.leases_on("e1"))) == (["l2"], ["l2"])


class TestAnExporterThatIsGone:
    def test_takes_what_was_known_of_its_session_and_slot_along(self) -> None:
        here = World("lab")
        for name in ("e1", "e2"):
            here.put_exporter(exporter(name, leaseRef={"name": "gone"}))
            here.presences[name] = Presence(lost=NOON)
            here.vacated[name] = NOON
        here.forget_exporter("e1")
        assert (list(here.exporters), list(here.presences), list(here.vacated)) == (["e2"], ["e2"], ["e2"])
        assert list(here.with_label("board", "rpi4")) == ["e2"]
        assert here.slot_naming("gone") == "e2"

    def test_may_never_have_been_seen(self) -> None:
        here = World("lab")
        here.put_exporter(exporter("e1"))
        here.forget_exporter("never seen")
        assert list(here.exporters) == ["e1"]


def test_a_slot_that_names_another_lease_now_is_found_only_by_that_one() -> None:
    here = World("lab")
    here.put_exporter(exporter("e1", leaseRef={"name": "l1"}))
    here.put_exporter(exporter("e1", leaseRef={"name": "l2"}))
    assert (here.slot_naming("l1"), here.slot_naming("l2")) == (None, "e1")
    here.put_exporter(exporter("e1"))
    assert here.slot_naming("l2") is None


@pytest.mark.parametrize(("after", "there"), [(15 * SECOND - TICK, True), (15 * SECOND, False)])
def test_an_exporter_counts_for_a_grace_after_its_front_end_lapsed(after: timedelta, there: bool) -> None:
    here = World("lab")
    here.presences["e1"] = Presence(lost=NOON)
    now = NOON + after
    found = (here.connected(exporter(), now), here.online(exporter(), now), here.ready(exporter(), now))
    assert found == (there, there, there)


def test_policies_that_change_are_compiled_again() -> None:
    here = World("lab")
    assert here.access is here.access
    here.put_policy(policy("p", rule()))
    assert not here.access.open
    here.forget_policy("never seen")
    assert not here.access.open
    here.forget_policy("p")
    assert here.access.open


def test_an_exporter_that_may_be_had_again_is_a_candidate_again() -> None:
    here = World("lab")
    request = request_of(lease(), client(), here.access)
    found = here.choices_for(request)
    here.put_exporter(exporter("e1", spec={"enabled": False}))
    assert dict(found) == {}
    here.put_exporter(exporter("e1"))
    assert found == {"e1": Approval()}
    assert here.choices_for(request) is found


def test_a_new_world_is_about_one_namespace_and_empty() -> None:
    here = World("lab")
    assert here.namespace == "lab"
    assert [here.leases, here.ended, here.exporters, here.clients, here.policies] == [{}] * 5
    assert [here.promises, here.presences, here.vacated] == [{}] * 3
