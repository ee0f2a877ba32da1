"""Credentials: what is signed, what a Secret is taken for, and that the token itself goes nowhere else."""

import base64
from datetime import timedelta
from typing import Any

import pytest

from lablease.model.client import parse_client
from lablease.model.testing import NOON, Raw, client, exporter, metadata, raw_client
from lablease.operator.realm import Realm, StoredToken
from lablease.operator.tokens import Issuer, Keeper, owner_of, secret_name, subject_of
from lablease.operator.writes import Kind, Verb, Write
from lablease.rules.credentials import Token
from lablease.rules.world import World
from lablease.tokens.identity import IdentityVerifier, SigningKey

KEY = SigningKey.generate()
LIFE = timedelta(days=100)
ISSUER = Issuer(KEY, "lab:1", LIFE)


def secret(text: str, uid: str = "s1") -> Raw:
    return {"metadata": {"uid": uid}, "data": {"token": base64.b64encode(text.encode()).decode()}}


def realm() -> Realm:
    made = Realm(World("lab"))
    made.world.clients["alice"] = client()
    made.world.put_exporter(exporter())
    return made


def look(here: Realm, kind: Kind = Kind.CLIENT, name: str = "alice") -> Write | None:
    return Keeper(ISSUER).look(here, kind, name, NOON)[0]


def token_in(write: Write) -> str:
    return base64.b64decode(write.body["data"]["token"]).decode()


@pytest.mark.parametrize(
    ("secret_", "owner"),
    [
        ("alice-client", (Kind.CLIENT, "alice")),
        ("e1-exporter", (Kind.EXPORTER, "e1")),
        ("a-client-exporter", (Kind.EXPORTER, "a-client")),
        ("-client", None),
        ("other", None),
    ],
)
def test_a_secret_names_its_owner(secret_: str, owner: tuple[Kind, str] | None) -> None:
    assert owner_of(secret_) == owner
    assert owner is None or secret_name(*owner) == secret_


@pytest.mark.parametrize(
    ("kind", "name", "subject"),
    [(Kind.CLIENT, "alice", "client:lab:alice:uid-alice"), (Kind.EXPORTER, "e1", "exporter:lab:e1:uid-e1")],
)
def test_a_new_owner_gets_a_secret_with_a_token_for_itself(kind: Kind, name: str, subject: str) -> None:
    write = look(realm(), kind, name)
    assert write is not None
    assert (write.verb, write.ref.kind, write.ref.key.name) == (Verb.CREATE, Kind.SECRET, secret_name(kind, name))
    identity = IdentityVerifier([KEY.public_jwk()]).verify(token_in(write), NOON)
    assert (identity.subject, identity.generation, identity.expires) == (subject, 1, NOON + LIFE)
    (owner,) = write.body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == (kind, name, f"uid-{name}")
    assert "token" not in write.facts


def test_two_tokens_of_one_second_differ() -> None:
    first, second = look(realm()), look(realm())
    assert first is not None
    assert second is not None
    assert token_in(first) != token_in(second)


def test_a_secret_is_ours_only_with_a_valid_token_of_our_key() -> None:
    keeper, subject = Keeper(ISSUER), subject_of(Kind.CLIENT, client().meta)
    good = keeper.read(secret(ISSUER.sign(subject, 3, NOON)), NOON)
    assert good == StoredToken("s1", subject.text, Token(True, 3, NOON + LIFE))
    foreign = Issuer(SigningKey.generate(), "lab:1", LIFE).sign(subject, 3, NOON)
    broken: Raw = {"metadata": {"uid": "s1"}, "data": {"token": "%"}}
    empty: Raw = {"metadata": {}}
    for raw in (secret(foreign), secret("junk"), broken, empty):
        assert not keeper.read(raw, NOON).token.ours
    assert not keeper.read(secret(ISSUER.sign(subject, 3, NOON)), NOON + LIFE).token.ours


def published(here: Realm, **status: Any) -> None:
    usual = {
        "credential": {"name": "alice-client"},
        "credentialGeneration": 1,
        "endpoint": "lab:1",
        "tokenExpiresAt": "2030-05-11T12:00:00Z",
    }
    here.world.clients["alice"] = parse_client(raw_client(status=usual | status))


def test_status_is_written_once_with_everything_and_then_no_more() -> None:
    here = realm()
    subject = subject_of(Kind.CLIENT, client().meta)
    here.tokens[Kind.CLIENT, "alice"] = Keeper(ISSUER).read(secret(ISSUER.sign(subject, 1, NOON)), NOON)
    write = look(here)
    assert write is not None
    assert (write.verb, write.ref.kind) == (Verb.STATUS, Kind.CLIENT)
    status = write.body["status"]
    assert status.keys() == {"credential", "credentialGeneration", "endpoint", "tokenExpiresAt", "conditions"}
    assert write.body["metadata"] == {"resourceVersion": "1"}
    published(here, conditions=status["conditions"])
    assert look(here) is None


def test_a_token_of_a_namesake_that_was_deleted_is_replaced() -> None:
    here = realm()
    old = parse_client(raw_client() | {"metadata": metadata("alice") | {"uid": "older"}})
    stored = Keeper(ISSUER).read(secret(ISSUER.sign(subject_of(Kind.CLIENT, old.meta), 7, NOON)), NOON)
    here.tokens[Kind.CLIENT, "alice"] = stored
    write = look(here)
    assert write is not None
    assert write.verb is Verb.PATCH
    assert IdentityVerifier([KEY.public_jwk()]).verify(token_in(write), NOON).generation == 1


def test_the_secret_of_a_deleted_owner_is_deleted_and_only_that_one() -> None:
    here = realm()
    here.tokens[Kind.CLIENT, "gone"] = StoredToken("s9", "", Token(ours=False))
    write = look(here, Kind.CLIENT, "gone")
    assert write is not None
    assert (write.verb, write.uid, write.ref.key.name) == (Verb.DELETE, "s9", "gone-client")
    assert look(here, Kind.CLIENT, "never") is None


def test_a_moved_object_keeps_its_old_subject() -> None:
    moved = metadata("alice") | {
        "annotations": {"jumpstarter.dev/migrated-namespace": "old", "jumpstarter.dev/migrated-uid": "u0"}
    }
    assert subject_of(Kind.CLIENT, parse_client(raw_client() | {"metadata": moved}).meta).text == "client:old:alice:u0"
