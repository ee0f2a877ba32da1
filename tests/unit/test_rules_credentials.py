"""When a token is signed, under which generation, and what status says about it."""

from datetime import timedelta

import pytest

from lablease.model.meta import Condition, Truth
from lablease.model.testing import HOUR, NOON
from lablease.rules.credentials import (
    Fine,
    Publish,
    Published,
    Sign,
    Token,
    credential_step,
    expiry_condition,
    next_level,
)

DAY = timedelta(days=1)
LIFE = 100 * DAY
EXPIRES = NOON + LIFE
GOOD = Token(True, 3, EXPIRES)
SAID = Published("alice-client", 3, "lab:1", EXPIRES)
NOTHING = Published(None, 0, "")


def step(published: Published, token: Token | None, after: timedelta = timedelta(0)) -> Sign | Publish | Fine:
    now = NOON + after
    return credential_step(published, token, secret="alice-client", endpoint="lab:1", lifetime=LIFE, now=now)


@pytest.mark.parametrize(
    ("published", "token", "expected"),
    [
        (NOTHING, None, Sign(1, replace=False)),
        (NOTHING, Token(True, 1, EXPIRES), Publish(1, EXPIRES)),
        (SAID, GOOD, Fine(EXPIRES - 10 * DAY)),
        (SAID, None, Sign(4, replace=False)),
        (SAID, Token(True, 4, EXPIRES), Publish(4, EXPIRES)),
        (SAID, Token(ours=False), Sign(3, replace=True)),
        (NOTHING, Token(ours=False), Sign(1, replace=True)),
        (SAID, Token(True, 2, EXPIRES), Sign(3, replace=True)),
        (Published("alice-client", 3, "old:1", EXPIRES), GOOD, Publish(3, EXPIRES)),
        (Published("other", 3, "lab:1", EXPIRES), GOOD, Publish(3, EXPIRES)),
        (Published("alice-client", 3, "lab:1", None), GOOD, Publish(3, EXPIRES)),
        (Published("alice-client", 1, "lab:1", None), Token(True, 1, None), Fine(None)),
    ],
)
def test_the_next_step_of_a_credential(published: Published, token: Token | None, expected: object) -> None:
    assert step(published, token) == expected


def test_renewal_comes_when_a_tenth_is_left_and_keeps_the_generation() -> None:
    assert step(SAID, GOOD, 90 * DAY - timedelta(seconds=1)) == Fine(NOON + 90 * DAY)
    assert step(SAID, GOOD, 90 * DAY) == Sign(3, replace=True)


@pytest.mark.parametrize(
    ("left", "truth", "reason"),
    [
        (31 * DAY, Truth.FALSE, "Valid"),
        (30 * DAY + HOUR, Truth.FALSE, "Valid"),
        (30 * DAY, Truth.TRUE, "ExpiresWithin30Days"),
        (7 * DAY + HOUR, Truth.TRUE, "ExpiresWithin30Days"),
        (7 * DAY, Truth.TRUE, "ExpiresWithin7Days"),
        (timedelta(seconds=1), Truth.TRUE, "ExpiresWithin7Days"),
        (timedelta(0), Truth.TRUE, "Expired"),
        (-DAY, Truth.TRUE, "Expired"),
    ],
)
def test_the_condition_says_how_near_the_expiry_is(left: timedelta, truth: Truth, reason: str) -> None:
    word = expiry_condition((), expires=NOON + left, generation=2, now=NOON)
    assert (word.type, word.status, word.reason, word.observed_generation) == ("TokenExpiring", truth, reason, 2)
    assert word.last_transition == NOON
    assert word.message == f"the token expires at {NOON + left:%Y-%m-%d}"


def test_a_condition_whose_reason_is_right_is_kept() -> None:
    old = Condition("TokenExpiring", Truth.FALSE, "Valid", "", NOON - DAY)
    assert expiry_condition((old,), expires=NOON + 99 * DAY, generation=1, now=NOON) is old


def test_a_new_reason_of_the_same_truth_keeps_the_transition() -> None:
    old = Condition("TokenExpiring", Truth.TRUE, "ExpiresWithin30Days", "", NOON - DAY)
    word = expiry_condition((old,), expires=NOON + DAY, generation=1, now=NOON)
    assert (word.reason, word.last_transition) == ("ExpiresWithin7Days", NOON - DAY)
    gone = expiry_condition((word,), expires=NOON + 99 * DAY, generation=1, now=NOON)
    assert (gone.status, gone.last_transition) == (Truth.FALSE, NOON)


def test_when_the_condition_changes_next() -> None:
    assert next_level(NOON + 40 * DAY, NOON) == NOON + 10 * DAY
    assert next_level(NOON + 30 * DAY, NOON) == NOON + 23 * DAY
    assert next_level(NOON + 7 * DAY, NOON) == NOON + 7 * DAY
    assert next_level(NOON - DAY, NOON) == NOON - DAY
