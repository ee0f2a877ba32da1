from datetime import UTC, datetime
from pathlib import Path

import pytest

from lablease.errors import InvalidField, NotAuthenticated
from lablease.grpc_frontend.auth import (
    MIGRATED_NAMESPACE,
    MIGRATED_UID,
    Kind,
    allowed_users,
    bearer_token,
    claimed_object,
    current_generation,
)
from lablease.grpc_frontend.limits import Allowance
from lablease.model.client import Client
from lablease.model.keys import Key
from lablease.model.meta import Meta
from lablease.tokens.identity import Identity

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMED = (("jumpstarter-kind", "Client"), ("jumpstarter-namespace", "lab"), ("jumpstarter-name", "alice"))


def meta(**annotations: str) -> Meta:
    return Meta(Key("lab", "alice"), "uid-1", "7", 1, NOON, annotations=annotations)


@pytest.mark.parametrize("header", ["Bearer x.y.z", "bearer x.y.z", "BEARER   x.y.z "])
def test_the_scheme_is_read_in_any_case(header: str) -> None:
    assert bearer_token((("authorization", header),)) == "x.y.z"


def test_no_token_is_no_proof() -> None:
    with pytest.raises(NotAuthenticated, match="no token"):
        bearer_token(())


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "Basic x"),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer  "),),
        (("authorization", "Bearer x"), ("authorization", "Bearer y")),
    ],
    ids=["other scheme", "no token", "blank", "twice"],
)
def test_a_malformed_header_is_named(metadata: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(InvalidField, match="authorization"):
        bearer_token(metadata)


def test_the_object_is_named_by_three_entries() -> None:
    assert claimed_object(NAMED) == (Kind.CLIENT, Key("lab", "alice"))


@pytest.mark.parametrize("index", range(3))
def test_each_entry_must_be_there_exactly_once(index: int) -> None:
    name = NAMED[index][0]
    for metadata in (NAMED[:index] + NAMED[index + 1 :], (*NAMED, NAMED[index])):
        with pytest.raises(InvalidField) as caught:
            claimed_object(metadata)
        assert caught.value.field == name


def test_the_kind_is_case_sensitive() -> None:
    with pytest.raises(InvalidField, match="Client or Exporter"):
        claimed_object((("jumpstarter-kind", "client"), *NAMED[1:]))


def test_an_object_is_its_own_identity_and_its_username_verbatim() -> None:
    assert allowed_users(Kind.CLIENT, meta(), None) == {"internal:client:lab:alice:uid-1"}
    assert allowed_users(Kind.EXPORTER, meta(), "dex:Alice") == {"internal:exporter:lab:alice:uid-1", "dex:Alice"}


def test_a_moved_object_keeps_its_old_identity() -> None:
    moved = meta(**{MIGRATED_NAMESPACE: "old", MIGRATED_UID: "uid-0"})
    assert allowed_users(Kind.CLIENT, moved, None) == {"internal:client:old:alice:uid-0"}


@pytest.mark.parametrize(("token", "stored", "allowed"), [(3, 3, True), (3, 4, False), (4, 3, True), (None, 1, True)])
def test_a_token_of_an_older_generation_is_refused(token: int | None, stored: int, allowed: bool) -> None:
    identity = Identity("s", "internal:s", NOON, NOON, token)
    client = Client(meta(), credential_generation=stored)
    if allowed:
        current_generation(identity, client)
    else:
        with pytest.raises(NotAuthenticated) as caught:
            current_generation(identity, client)
        assert "expired" not in str(caught.value)


def test_a_token_without_generation_holds_until_the_first_rotation() -> None:
    identity = Identity("s", "internal:s", NOON, NOON, None)
    with pytest.raises(NotAuthenticated):
        current_generation(identity, Client(meta(), credential_generation=2))


def test_an_allowance_is_used_up_and_comes_back_with_time() -> None:
    now = [0.0]
    allowance = Allowance(2, 1, monotonic=lambda: now[0])
    assert [allowance.take("a") for _ in range(3)] == [True, True, False]
    assert allowance.take("b")
    now[0] = 1.0
    assert [allowance.take("a") for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [allowance.take("a") for _ in range(3)] == [True, True, False]


def test_an_allowance_remembers_a_bounded_number_of_keys() -> None:
    allowance = Allowance(1, 0, keys=2, monotonic=lambda: 0.0)
    for key in "abc":
        assert allowance.take(key)
    assert not allowance.take("c")
    assert allowance.take("a")


def test_no_module_of_the_front_end_catches_everything() -> None:
    folder = Path(__file__).parents[2] / "grpc_frontend"
    files = [path for path in folder.rglob("*.py") if path.name != "main.py"]
    assert len(files) > 20
    assert not [path.name for path in files if "except Exception" in path.read_text()]
