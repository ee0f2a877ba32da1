"""Candidates of a request, and refusals that say what would help."""

from typing import Any

import pytest

from lablease.model.exporter import Exporter
from lablease.model.lease import LeaseReason
from lablease.model.testing import client, exporter, lease, metadata, policy, rule
from lablease.rules.matching import choices, refusal, request_of
from lablease.rules.policy import Approval
from lablease.rules.world import World


def world() -> World:
    made = World("lab")
    made.clients["alice"] = client(labels={"team": "red"})
    made.put_exporter(exporter("rpi-1", meta=metadata("rpi-1", labels={"board": "rpi4", "site": "a"})))
    made.put_exporter(exporter("rpi-2", meta=metadata("rpi-2", labels={"board": "rpi4", "site": "b"})))
    made.put_exporter(exporter("x86-1", meta=metadata("x86-1", labels={"board": "x86"})))
    return made


def candidates(here: World, **spec: Any) -> dict[str, Approval]:
    request = request_of(lease(**spec), here.clients["alice"], here.access)
    return dict(here.choices_for(request))


def why(here: World, **spec: Any) -> tuple[LeaseReason, str]:
    assert candidates(here, **spec) == {}
    found = refusal(lease(**spec), here.clients["alice"], here, here.access)
    return found.reason, found.message


def test_candidates_are_all_that_match() -> None:
    assert set(candidates(world())) == {"rpi-1", "rpi-2"}


def test_a_selector_without_labels_looks_at_all() -> None:
    found = candidates(world(), selector={"matchExpressions": [{"key": "board", "operator": "Exists"}]})
    assert set(found) == {"rpi-1", "rpi-2", "x86-1"}


@pytest.mark.parametrize("labels", [{"board": "rpi4", "site": "a"}, {"arch": "arm", "board": "rpi4", "site": "a"}])
def test_only_exporters_with_the_rarest_label_are_looked_at(labels: dict[str, str]) -> None:
    looked: list[str] = []

    class Watched(dict[str, Exporter]):
        def get(self, name: str, default: Any = None) -> Any:
            looked.append(name)
            return super().get(name, default)

    here = world()
    for name in ("a-1", "a-2"):
        here.put_exporter(exporter(name, meta=metadata(name, labels={"arch": "arm"})))
    here.put_exporter(exporter("rpi-1", meta=metadata("rpi-1", labels={"board": "rpi4", "site": "a", "arch": "arm"})))
    here.exporters = Watched(here.exporters)
    request = request_of(lease(selector={"matchLabels": labels}), client(), here.access)
    assert list(choices(request, here, here.access)) == ["rpi-1"]
    assert looked == ["rpi-1"]


def test_leases_of_different_clients_form_groups_of_their_own() -> None:
    here, other = world(), client("bob", labels={"team": "red"})
    mine = request_of(lease(), here.clients["alice"], here.access)
    assert mine == request_of(lease("l2"), here.clients["alice"], here.access)
    assert mine != request_of(lease("l2", clientRef={"name": "bob"}), other, here.access)


def test_a_pin_and_a_selector_must_both_match() -> None:
    assert set(candidates(world(), exporterRef={"name": "rpi-2"})) == {"rpi-2"}
    assert set(candidates(world(), selector={}, exporterRef={"name": "x86-1"})) == {"x86-1"}
    assert candidates(world(), exporterRef={"name": "x86-1"}) == {}


def test_a_disabled_exporter_is_a_candidate_only_by_pin_and_permission() -> None:
    here = world()
    here.put_exporter(exporter("rpi-1", meta=metadata("rpi-1", labels={"board": "rpi4"}), spec={"enabled": False}))
    assert set(candidates(here)) == {"rpi-2"}
    assert set(candidates(here, allowDisabled=True)) == {"rpi-2"}
    assert candidates(here, exporterRef={"name": "rpi-1"}) == {}
    assert set(candidates(here, exporterRef={"name": "rpi-1"}, allowDisabled=True)) == {"rpi-1"}


def test_an_exporter_that_is_being_deleted_is_no_candidate() -> None:
    here = world()
    going = metadata("rpi-1", labels={"board": "rpi4"}) | {"deletionTimestamp": "2030-01-31T12:00:00Z"}
    here.put_exporter(exporter("rpi-1", meta=going))
    assert set(candidates(here)) == {"rpi-2"}


def test_policies_decide_about_candidates_by_client_exporter_and_length() -> None:
    here = world()
    here.put_policy(policy("p", rule({"team": "red"}, priority=4, maximumDuration="2h"), exporters={"site": "a"}))
    assert candidates(here) == {"rpi-1": Approval(4, False)}
    assert candidates(here, duration="3h") == {}


def test_a_lease_with_only_an_end_cannot_slip_under_the_maximum() -> None:
    here = world()
    here.put_policy(policy("p", rule({"team": "red"}, maximumDuration="2h")))
    assert candidates(here, duration=None, endTime="2030-01-31T15:00:00Z") == {}
    assert candidates(here, duration=None, endTime="2030-01-31T14:00:00Z") != {}


def test_an_unknown_pin_is_named_with_what_is_near() -> None:
    reason, message = why(world(), exporterRef={"name": "rpi-3"})
    assert reason is LeaseReason.EXPORTER_NOT_FOUND
    assert message == "there is no exporter rpi-3; there is rpi-1, rpi-2"
    assert why(world(), exporterRef={"name": "zzzzzzzz"})[1] == "there is no exporter zzzzzzzz"


def test_a_pin_that_does_not_match_says_which_label() -> None:
    reason, message = why(world(), exporterRef={"name": "x86-1"})
    assert reason is LeaseReason.SELECTOR_MISMATCH
    assert message == "exporter x86-1 does not have board=rpi4 (it has board=x86)"
    two = why(world(), selector={"matchLabels": {"board": "rpi4", "site": "a"}}, exporterRef={"name": "x86-1"})[1]
    assert two == "exporter x86-1 does not have board=rpi4 (it has board=x86), site=a (it has no site)"


def test_a_disabled_pin_says_how_to_override_it() -> None:
    here = world()
    here.put_exporter(exporter("rpi-1", meta=metadata("rpi-1", labels={"board": "rpi4"}), spec={"enabled": False}))
    reason, message = why(here, exporterRef={"name": "rpi-1"})
    assert reason is LeaseReason.EXPORTER_DISABLED
    assert "set allowDisabled" in message


def test_all_matching_exporters_disabled() -> None:
    here = World("lab")
    here.clients["alice"] = client()
    for name in ("a", "b", "c", "d", "e"):
        here.put_exporter(exporter(name, meta=metadata(name, labels={"board": "rpi4"}), spec={"enabled": False}))
    reason, message = why(here)
    assert reason is LeaseReason.ALL_DISABLED
    assert message.endswith("a, b, c and 2 more")


def test_no_match_names_the_nearest() -> None:
    reason, message = why(world(), selector={"matchLabels": {"board": "rpi4", "site": "c"}})
    assert reason is LeaseReason.SELECTOR_MISMATCH
    assert message == (
        "none of 3 exporters matches board=rpi4,site=c; rpi-1 lacks site=c (it has site=a);"
        " rpi-2 lacks site=c (it has site=b); x86-1 lacks board=rpi4 (it has board=x86), site=c (it has no site)"
    )


def test_no_access_describes_who_has_it() -> None:
    here = world()
    here.put_policy(policy("p", rule({"team": "blue"}, description="only the blue team")))
    reason, message = why(here)
    assert reason is LeaseReason.NO_ACCESS
    assert message == "no policy lets client alice have rpi-1, rpi-2; policies are for: only the blue team"


def test_no_access_without_descriptions() -> None:
    here = world()
    here.put_policy(policy("p"))
    assert why(here, exporterRef={"name": "rpi-1"})[1] == "no policy lets client alice have rpi-1"


def test_too_long_says_how_long_would_be_allowed() -> None:
    here = world()
    here.put_policy(policy("p", rule({"team": "red"}, maximumDuration="30m")))
    reason, message = why(here)
    assert reason is LeaseReason.DURATION_TOO_LONG
    assert message == "1h0m0s is too long: at most 30m0s for client alice"
    assert why(here, duration=None, endTime="2030-01-31T14:30:00Z")[1].startswith("2h30m0s is too long")


def test_up_to_three_exporters_are_all_named() -> None:
    here = world()
    here.put_policy(policy("p"))
    everything = {"matchExpressions": [{"key": "board", "operator": "Exists"}]}
    assert why(here, selector=everything)[1] == "no policy lets client alice have rpi-1, rpi-2, x86-1"


class TestTheWorldKeepsCandidatesUpToDate:
    @pytest.fixture
    def here(self) -> World:
        made = world()
        assert set(candidates(made)) == {"rpi-1", "rpi-2"}
        return made

    def test_when_an_exporter_comes(self, here: World) -> None:
        here.put_exporter(exporter("rpi-9", meta=metadata("rpi-9", labels={"board": "rpi4"})))
        assert set(candidates(here)) == {"rpi-1", "rpi-2", "rpi-9"}

    def test_when_somebody_pinned_another(self, here: World) -> None:
        assert set(candidates(here, exporterRef={"name": "rpi-1"})) == {"rpi-1"}
        here.put_exporter(exporter("rpi-9", meta=metadata("rpi-9", labels={"board": "rpi4"})))
        assert set(candidates(here, exporterRef={"name": "rpi-1"})) == {"rpi-1"}

    def test_when_an_exporter_goes(self, here: World) -> None:
        here.forget_exporter("rpi-1")
        here.forget_exporter("rpi-1")
        assert set(candidates(here)) == {"rpi-2"}

    def test_when_an_exporter_begins_to_go(self, here: World) -> None:
        labels = {"board": "rpi4", "site": "a"}
        going = metadata("rpi-1", labels=labels) | {"deletionTimestamp": "2030-01-31T12:00:00Z"}
        here.put_exporter(exporter("rpi-1", meta=going))
        assert set(candidates(here)) == {"rpi-2"}

    def test_for_many_requests_side_by_side(self, here: World) -> None:
        leases = [lease(selector={"matchLabels": {"board": f"b{number}"}}) for number in range(100)]
        requests = [request_of(item, here.clients["alice"], here.access) for item in leases]
        first = [here.choices_for(request) for request in requests]
        assert all(here.choices_for(request) is found for request, found in zip(requests, first, strict=True))

    def test_when_labels_change(self, here: World) -> None:
        here.put_exporter(exporter("rpi-1", meta=metadata("rpi-1", labels={"board": "x86"})))
        assert set(candidates(here)) == {"rpi-2"}
        assert set(here.with_label("board", "x86")) == {"x86-1", "rpi-1"}
        assert set(here.with_label("site", "a")) == set()

    def test_when_policies_come_and_go(self, here: World) -> None:
        here.put_policy(policy("p"))
        assert candidates(here) == {}
        here.forget_policy("p")
        assert set(candidates(here)) == {"rpi-1", "rpi-2"}

    def test_and_bounds_how_many_it_remembers(self, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lablease.rules.world._MAXIMUM_REQUESTS", 2)
        for number in range(5):
            assert candidates(here, selector={"matchLabels": {"board": f"b{number}"}}) == {}
        assert set(candidates(here)) == {"rpi-1", "rpi-2"}

    def test_and_forgets_all_when_one_more_is_asked_for(self, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lablease.rules.world._MAXIMUM_REQUESTS", 2)
        usual = request_of(lease(), here.clients["alice"], here.access)
        first = here.choices_for(usual)
        candidates(here, selector={"matchLabels": {"board": "b1"}})
        assert here.choices_for(usual) is first
        candidates(here, selector={"matchLabels": {"board": "b2"}})
        assert here.choices_for(usual) is not first


def test_the_world_finds_leases_by_client_exporter_and_slot() -> None:
    here = world()
    here.put_lease(lease("l1", status={"ended": False, "exporterRef": {"name": "rpi-1"}}))
    here.put_lease(lease("l2"))
    assert list(here.leases_of("alice")) == ["l1", "l2"]
    assert list(here.leases_on("rpi-1")) == ["l1"]
    here.put_lease(lease("l1", clientRef={"name": "bob"}))
    assert (list(here.leases_of("alice")), list(here.leases_on("rpi-1"))) == (["l2"], [])
    for name in ("b", "a"):
        here.put_exporter(exporter(name, leaseRef={"name": "l2"}))
    assert here.slot_naming("l2") == "a"
    here.forget_exporter("a")
    assert here.slot_naming("l2") == "b"
    here.forget_lease("l2")
    here.forget_lease("l2")
    assert list(here.leases_of("alice")) == []
    assert here.slot_naming("l1") is None
