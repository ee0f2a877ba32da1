"""Access policies: who may have what, for how long, and which approval is the best."""

from datetime import timedelta

import pytest

from lablease.model.policy import parse_policy
from lablease.model.testing import HOUR, MINUTE, Raw, policy, raw_policy, rule
from lablease.rules.policy import Access, Approval

RPI, ALICE = {"board": "rpi4"}, {"team": "red"}


def approval(access: Access, length: timedelta = HOUR, client: dict[str, str] = ALICE) -> Approval | None:
    return access.approval(access.within(access.rules_for(client), length), RPI)


def test_without_policies_everything_is_open() -> None:
    access = Access([])
    assert access.open
    assert approval(access, 1000 * HOUR) == Approval(0, False)


def test_with_a_policy_what_no_rule_allows_is_refused() -> None:
    assert approval(Access([policy("p", rule({"team": "blue"}))])) is None
    assert approval(Access([policy("p", rule(), exporters={"board": "x"})])) is None
    assert approval(Access([policy("p")])) is None


def test_an_empty_from_list_matches_nobody() -> None:
    assert approval(Access([policy("p", {"from": []})])) is None


def test_an_empty_selector_matches_everybody() -> None:
    assert approval(Access([policy("p", rule(priority=3))])) == Approval(3, False)


def test_one_of_several_from_entries_is_enough() -> None:
    two = {"from": [*rule({"team": "blue"})["from"], *rule({"team": "red"})["from"]]}
    assert approval(Access([policy("p", two)])) is not None


@pytest.mark.parametrize(("length", "allowed"), [(HOUR, True), (HOUR + timedelta(microseconds=1), False)])
def test_the_maximum_itself_is_admitted(length: timedelta, allowed: bool) -> None:
    assert (approval(Access([policy("p", rule(maximumDuration="1h"))]), length) is not None) is allowed


@pytest.mark.parametrize(
    ("rules", "best"),
    [
        ([rule(priority=1), rule(priority=5)], Approval(5, False)),
        ([rule(priority=1), rule(priority=50, spotAccess=True)], Approval(1, False)),
        ([rule(priority=7, spotAccess=True), rule(priority=8, spotAccess=True)], Approval(8, True)),
    ],
)
def test_the_best_approval_is_no_spot_then_the_highest_priority(rules: list[Raw], best: Approval) -> None:
    assert approval(Access([policy("p", *rules)])) == best
    assert approval(Access([policy(f"p{number}", item) for number, item in enumerate(rules)])) == best


def test_the_longest_admitted_duration() -> None:
    access = Access(
        [
            policy("a", rule(ALICE, maximumDuration="10m"), rule(ALICE, maximumDuration="30m"), exporters=RPI),
            policy("b", rule(ALICE, maximumDuration="5h"), exporters={"board": "x"}),
            policy("c", rule({"team": "blue"}, maximumDuration="9h")),
            policy("d", rule(ALICE), exporters={"board": "y"}),
        ]
    )
    assert access.longest(access.rules_for(ALICE), [RPI]) == 30 * MINUTE
    assert access.longest(access.rules_for(ALICE), [{}]) is None
    assert access.longest(access.rules_for(ALICE), [RPI, {"board": "y"}]) == 30 * MINUTE


def test_what_others_may_have_is_described_once() -> None:
    access = Access(
        [
            policy("a", rule({"team": "blue"}, description="blue team"), rule(ALICE, description="mine")),
            policy(
                "b",
                rule({"team": "green"}, description="blue team"),
                rule({"x": "y"}),
                rule({"q": "y"}, description="q"),
            ),
        ]
    )
    assert access.described(access.rules_for(ALICE)) == "blue team; q"
    assert len(Access([policy("a", rule({"x": "y"}, description="d" * 9000))]).described(())) == 4096


def test_a_policy_that_cannot_be_read_grants_nothing_but_is_one() -> None:
    raw = raw_policy("p", rule())
    raw["spec"]["exporterSelector"] = {"matchExpressions": [{"key": "a", "operator": "Near"}]}
    broken = parse_policy(raw)
    assert broken.problems
    access = Access([broken])
    assert not access.open
    assert approval(access) is None


def test_a_rule_that_cannot_be_read_does_not_stop_the_others() -> None:
    assert approval(Access([policy("p", rule(maximumDuration="7d", priority=9), rule(priority=1))])) == Approval(
        1, False
    )


def test_the_order_of_policies_never_matters() -> None:
    policies = [policy("a", rule(priority=1)), policy("b", rule(priority=2), exporters={"board": "x"})]
    forwards, backwards = Access(policies), Access(policies[::-1])
    assert forwards.rules_for(ALICE) == backwards.rules_for(ALICE)
    assert approval(forwards) == approval(backwards) == Approval(1, False)
