"""Begin, end and duration: which combinations are accepted, what they become, and when a lease ends."""

from datetime import UTC, datetime, timedelta

import pytest

from lablease.errors import InvalidField
from lablease.model.lease import LeaseSpec
from lablease.model.testing import HOUR, MINUTE, NOON, lease
from lablease.rules.times import (
    FOREVER,
    Fields,
    Times,
    amend,
    check,
    end_if_begun,
    fixed_end,
    later,
    length,
    normalise,
    planned_end,
    times_of,
)

B, E, D = NOON, NOON + HOUR, HOUR
ZERO = timedelta(0)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (Times(duration=D), Times(duration=D)),
        (Times(begin=B, duration=D), Times(begin=B, duration=D)),
        (Times(begin=B, end=E), Times(B, E, D)),
        (Times(end=E, duration=D), Times(B, E, D)),
        (Times(B, E, D), Times(B, E, D)),
        (Times(B, E, ZERO), Times(B, E, D)),
        (Times(B, E, -D), Times(B, E, D)),
    ],
)
def test_what_a_creation_stores(given: Times, stored: Times) -> None:
    assert normalise(given) == stored


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        (Times(), "duration", "is required"),
        (Times(begin=B), "duration", "is required"),
        (Times(end=E), "duration", "is required"),
        (Times(duration=ZERO), "duration", "must be positive, not 0s"),
        (Times(begin=B, duration=-D), "duration", "must be positive"),
        (Times(end=E, duration=ZERO), "duration", "must be positive"),
        (Times(begin=E, end=B), "end_time", "must be after begin_time"),
        (Times(begin=B, end=B), "end_time", "must be after begin_time"),
        (Times(B, E, D + MINUTE), "duration", "1h1m0s does not agree"),
        (Times(end=datetime.min.replace(tzinfo=UTC), duration=D), "duration", "longer than all time"),
    ],
)
def test_what_a_creation_refuses(given: Times, field: str, words: str) -> None:
    with pytest.raises(InvalidField) as caught:
        normalise(given)
    assert caught.value.field == field
    assert words in caught.value.problem


def test_the_error_names_the_field_as_its_author_wrote_it() -> None:
    with pytest.raises(InvalidField, match=r"spec\.duration"):
        normalise(Times(), Fields(duration="spec.duration"))


LATE = NOON + 5 * HOUR


@pytest.mark.parametrize(
    ("stored", "request_", "assigned", "result"),
    [
        (Times(duration=D), Times(), True, Times(duration=D)),
        (Times(duration=D), Times(duration=2 * D), True, Times(duration=2 * D)),
        (Times(duration=D), Times(end=E, duration=D), True, Times(B, E, D)),
        (Times(duration=D), Times(begin=LATE, duration=D), False, Times(begin=LATE, duration=D)),
        (Times(begin=B, duration=D), Times(duration=2 * D), True, Times(begin=B, duration=2 * D)),
        (Times(begin=B, duration=D), Times(end=E, duration=D), True, Times(B, E, D)),
        (Times(begin=B, duration=D), Times(begin=B, duration=2 * D), True, Times(begin=B, duration=2 * D)),
        (Times(begin=B, duration=D), Times(begin=LATE, duration=D), False, Times(begin=LATE, duration=D)),
        (Times(B, E, D), Times(end=LATE, duration=5 * D), True, Times(B, LATE, 5 * D)),
        (Times(B, E, D), Times(LATE, LATE + D, D), False, Times(LATE, LATE + D, D)),
    ],
)
def test_what_an_update_makes_of_stored_times(stored: Times, request_: Times, assigned: bool, result: Times) -> None:
    assert amend(stored, request_, assigned=assigned) == result


OURS = Fields("from", "to", "for")


@pytest.mark.parametrize(
    ("stored", "request_", "assigned", "text"),
    [
        (Times(duration=D), Times(end=E), False, "for: is required, unless both from and to are given"),
        (Times(duration=D), Times(begin=B, end=B), False, "to: must be after from"),
        (Times(B, E, D), Times(duration=2 * D), False, "for: 2h0m0s does not agree with from and to, which are 1h0m0s"),
        (
            Times(begin=B, duration=D),
            Times(begin=LATE, duration=D),
            True,
            "from: cannot change any more: the lease has",
        ),
        (
            Times(duration=D),
            Times(end=datetime.min.replace(tzinfo=UTC), duration=D),
            False,
            "for: is longer than all time before to",
        ),
    ],
)
def test_an_update_is_refused_in_the_words_of_its_author(
    stored: Times, request_: Times, assigned: bool, text: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        amend(stored, request_, assigned=assigned, fields=OURS)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("stored", "request_", "assigned", "field"),
    [
        (Times(duration=D), Times(begin=B), False, "duration"),
        (Times(duration=D), Times(end=E), True, "duration"),
        (Times(duration=D), Times(begin=B, duration=D), True, "begin_time"),
        (Times(begin=B, duration=D), Times(begin=LATE, duration=D), True, "begin_time"),
        (Times(begin=B, duration=D), Times(end=LATE, duration=D), True, "duration"),
        (Times(B, E, D), Times(duration=2 * D), True, "duration"),
        (Times(B, E, D), Times(begin=B, end=LATE), False, "duration"),
    ],
)
def test_what_an_update_refuses(stored: Times, request_: Times, assigned: bool, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        amend(stored, request_, assigned=assigned)
    assert caught.value.field == field


SPECS = [
    (LeaseSpec("a", duration=D), None, NOON + MINUTE + HOUR),
    (LeaseSpec("a", begin=B, duration=D), E, E),
    (LeaseSpec("a", end=E), E, E),
    (LeaseSpec("a", begin=B, end=LATE, duration=D), LATE, LATE),
    (LeaseSpec("a"), None, None),
    (LeaseSpec("a", begin=B), None, None),
]


@pytest.mark.parametrize(("spec", "fixed", "end"), SPECS)
def test_a_lease_ends_at_its_end_or_its_begin_and_duration(
    spec: LeaseSpec, fixed: datetime | None, end: datetime | None
) -> None:
    assert fixed_end(spec) == fixed
    assert end_if_begun(spec, NOON + MINUTE) == end


def test_a_running_lease_ends_exactly_at_its_duration() -> None:
    running = lease(status={"ended": False, "beginTime": "2030-01-31T12:01:00Z"})
    assert planned_end(running) == NOON + MINUTE + HOUR


def test_a_lease_that_has_not_begun_has_no_planned_end() -> None:
    assert planned_end(lease()) is None


def test_notice_brings_the_end_forward_and_never_back() -> None:
    early = lease(status={"ended": False, "beginTime": "2030-01-31T12:00:00Z", "endTime": "2030-01-31T12:10:00Z"})
    late = lease(status={"ended": False, "beginTime": "2030-01-31T12:00:00Z", "endTime": "2030-01-31T18:00:00Z"})
    assert planned_end(early) == NOON + 10 * MINUTE
    assert planned_end(late) == NOON + HOUR


def test_a_running_lease_without_any_end_is_over() -> None:
    assert planned_end(lease(duration="1d", status={"ended": False, "beginTime": "2030-01-31T12:00:00Z"})) == NOON


CREATED = NOON - MINUTE


@pytest.mark.parametrize(
    ("spec", "result"),
    [
        (LeaseSpec("a", duration=D), D),
        (LeaseSpec("a", begin=B, end=LATE, duration=D), D),
        (LeaseSpec("a", begin=B, end=LATE), LATE - B),
        (LeaseSpec("a", end=LATE), LATE - CREATED),
        (LeaseSpec("a"), ZERO),
    ],
)
def test_policies_judge_a_length(spec: LeaseSpec, result: timedelta) -> None:
    assert length(spec, CREATED) == result


def test_a_stored_lease_may_give_only_its_end() -> None:
    check(LeaseSpec("a", end=E))
    check(LeaseSpec("a", duration=D))
    assert times_of(LeaseSpec("a", begin=B, end=E, duration=D)) == Times(B, E, D)


@pytest.mark.parametrize(
    "spec", [LeaseSpec("a"), LeaseSpec("a", begin=B), LeaseSpec("a", duration=-D), LeaseSpec("a", end=E, duration=ZERO)]
)
def test_a_stored_lease_without_a_length_can_never_be_granted(spec: LeaseSpec) -> None:
    with pytest.raises(InvalidField, match=r"spec\.duration"):
        check(spec)


def test_the_end_of_time_is_not_passed() -> None:
    assert later(NOON, HOUR) == NOON + HOUR
    assert later(NOON, timedelta(days=365 * 9000)) == FOREVER
