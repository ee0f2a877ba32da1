from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from lablease.errors import InvalidField, NotAuthenticated
from lablease.model.grant import Grant
from lablease.tokens.identity import SigningKey, Subject, SubjectKind, issue_identity
from lablease.tokens.router import (
    CONTROL_LIFETIME,
    LEEWAY,
    MAX_LIFETIME,
    Role,
    RouterClaims,
    RouterTokenVerifier,
    issue_control_token,
    issue_router_token,
    verify_control_token,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = bytes(range(32))
GRANT = Grant("lab", "board-1", "lease-1", 1767225600000, "alice", NOW + timedelta(hours=2, microseconds=125))
CLAIMS = RouterClaims(
    stream="6f3f0b04-8f41-4a6a-9c11-0d3f0a4f8b4e",
    role=Role.CLIENT,
    grant=GRANT,
    router="router.lab:443",
    expires=NOW + timedelta(minutes=30),
    jti="j1",
)
TICK = timedelta(microseconds=1)


def changed(**claims: Any) -> str:
    payload = jwt.decode(issue_router_token(KEY, CLAIMS, NOW), options={"verify_signature": False}) | claims
    return jwt.encode({name: value for name, value in payload.items() if value is not None}, KEY, algorithm="HS256")


def refusal(token: str, now: datetime = NOW) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        RouterTokenVerifier(KEY).verify(token, now)
    return str(caught.value)


@pytest.mark.parametrize("claims", [CLAIMS, replace(CLAIMS, role=Role.EXPORTER, grant=replace(GRANT, end=None))])
def test_what_is_signed_is_what_is_read(claims: RouterClaims) -> None:
    assert RouterTokenVerifier(KEY).verify(issue_router_token(KEY, claims, NOW), NOW) == claims


def test_the_claims_contain_those_of_upstream() -> None:
    payload = jwt.decode(issue_router_token(KEY, CLAIMS, NOW), options={"verify_signature": False})

    assert payload["iss"] == "https://jumpstarter.dev/stream"
    assert payload["aud"] == ["https://jumpstarter.dev/router"]
    assert payload["sub"] == CLAIMS.stream
    assert payload["exp"] - payload["iat"] == 1800
    assert payload["nbf"] == payload["iat"]


@pytest.mark.parametrize("length", [0, 31])
def test_a_short_key_signs_and_checks_nothing(length: int) -> None:
    key = b"k" * length
    for attempt in (
        lambda: issue_router_token(key, CLAIMS, NOW),
        lambda: RouterTokenVerifier(key),
        lambda: issue_control_token(key, frontend="f", router="r", now=NOW, jti="j"),
    ):
        with pytest.raises(InvalidField, match="router key: must have at least 32 bytes"):
            attempt()


@pytest.mark.parametrize("expires", [NOW, NOW - TICK, NOW + MAX_LIFETIME + TICK])
def test_a_token_lives_at_most_thirty_minutes_and_at_all(expires: datetime) -> None:
    with pytest.raises(InvalidField, match="expires"):
        issue_router_token(KEY, replace(CLAIMS, expires=expires), NOW)


def test_times_are_judged_at_their_edges_on_the_clock_that_is_given() -> None:
    token = issue_router_token(KEY, CLAIMS, NOW)
    verifier = RouterTokenVerifier(KEY)

    verifier.verify(token, CLAIMS.expires - TICK)
    verifier.verify(token, NOW - LEEWAY)
    assert refusal(token, CLAIMS.expires) == "token is expired"
    assert refusal(token, NOW - LEEWAY - TICK) == "token lives longer than allowed"
    assert refusal(changed(exp=int((NOW + timedelta(minutes=1)).timestamp())), NOW - LEEWAY - TICK) == (
        "token is not valid yet"
    )


@pytest.mark.parametrize(
    "name", ["sub", "jti", "iat", "exp", "role", "router", "namespace", "exporter", "lease", "grant", "client"]
)
def test_a_token_without_one_of_its_claims_is_refused(name: str) -> None:
    assert name in refusal(changed(**{name: None}))


@pytest.mark.parametrize(
    "claims",
    [
        {"role": "admin"},
        {"grant": "7"},
        {"grant": True},
        {"grant": -1},
        {"end": "soon"},
        {"end": 1e300},
        {"iss": "https://elsewhere"},
        {"aud": ["other"]},
        {"exp": int((NOW + timedelta(hours=1)).timestamp())},
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(claims: dict[str, Any]) -> None:
    refusal(changed(**claims))


def test_tokens_of_another_key_or_kind_are_refused() -> None:
    identity = issue_identity(
        SigningKey.generate(),
        Subject(SubjectKind.CLIENT, "lab", "alice", "u"),
        generation=0,
        now=NOW,
        lifetime=timedelta(hours=1),
        jti="j",
    )
    unsigned = jwt.encode({"sub": "x"}, "", algorithm="none")

    for token in (
        issue_router_token(b"o" * 32, CLAIMS, NOW),
        issue_control_token(KEY, frontend="f", router=CLAIMS.router, now=NOW, jti="j"),
        identity,
        unsigned,
        "",
        "a.b.c",
        "x" * 9000,
    ):
        assert "expired" not in refusal(token)


def test_a_control_token_opens_one_router_for_five_minutes() -> None:
    token = issue_control_token(KEY, frontend="frontend-1", router="router.lab:443", now=NOW, jti="j")

    assert verify_control_token(KEY, token, router="router.lab:443", now=NOW).frontend == "frontend-1"
    with pytest.raises(NotAuthenticated, match="another router"):
        verify_control_token(KEY, token, router="router-2.lab:443", now=NOW)
    with pytest.raises(NotAuthenticated, match="token is expired"):
        verify_control_token(KEY, token, router="router.lab:443", now=NOW + CONTROL_LIFETIME)


def test_a_stream_token_opens_no_control_stream() -> None:
    with pytest.raises(NotAuthenticated, match="something else"):
        verify_control_token(KEY, issue_router_token(KEY, CLAIMS, NOW), router=CLAIMS.router, now=NOW)


@pytest.mark.parametrize("lifetime", [timedelta(0), CONTROL_LIFETIME + TICK])
def test_a_control_token_lives_between_a_second_and_five_minutes(lifetime: timedelta) -> None:
    with pytest.raises(InvalidField, match="lifetime"):
        issue_control_token(KEY, frontend="f", router="r", now=NOW, jti="j", lifetime=lifetime)
