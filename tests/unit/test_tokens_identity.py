import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lablease.errors import InvalidField, NotAuthenticated
from lablease.tokens.identity import IdentityVerifier, SigningKey, Subject, SubjectKind, issue_identity

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALICE = Subject(SubjectKind.CLIENT, "lab", "alice", "11f0-22")
KEY = SigningKey.generate()


def token(key: SigningKey = KEY, *, generation: int = 3, lifetime: timedelta = HOUR) -> str:
    return issue_identity(key, ALICE, generation=generation, now=NOW, lifetime=lifetime, jti="j1")


def signed(claims: dict[str, Any], headers: dict[str, Any] | None = None, key: SigningKey = KEY) -> str:
    whole: dict[str, Any] = {
        "iss": "https://localhost:8085",
        "aud": ["jumpstarter"],
        "sub": ALICE.text,
        "iat": int(NOW.timestamp()),
        "exp": int((NOW + HOUR).timestamp()),
    }
    whole |= claims
    whole = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(whole, key.private, algorithm="ES256", headers=headers or {"kid": key.kid})


def refusal(text: str, *, now: datetime = NOW, keys: tuple[SigningKey, ...] = (KEY,)) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        IdentityVerifier([key.public_jwk() for key in keys]).verify(text, now)
    return str(caught.value)


def test_a_token_says_who_its_bearer_is() -> None:
    identity = IdentityVerifier([KEY.public_jwk()]).verify(token(), NOW)

    assert identity.subject == "client:lab:alice:11f0-22"
    assert identity.user == "internal:client:lab:alice:11f0-22"
    assert (identity.issued, identity.expires, identity.generation) == (NOW, NOW + HOUR, 3)
    assert Subject.parse(identity.subject) == ALICE


def test_the_claims_are_those_that_upstream_checks() -> None:
    claims = jwt.decode(token(), options={"verify_signature": False})

    assert claims["iss"] == "https://localhost:8085"
    assert claims["aud"] == ["jumpstarter"]
    assert claims["sub"] == "client:lab:alice:11f0-22"
    assert (claims["gen"], claims["jti"]) == (3, "j1")
    assert jwt.get_unverified_header(token()) == {"alg": "ES256", "typ": "JWT", "kid": KEY.kid}


@pytest.mark.parametrize(
    "text", ["", "client", "client:a:b", "client:a:b:c:d", "client::b:c", "admin:a:b:c", "a:b:c:d"]
)
def test_a_subject_that_is_not_of_four_known_parts_is_refused(text: str) -> None:
    with pytest.raises(InvalidField, match="sub: must be client:"):
        Subject.parse(text)


def test_a_token_is_expired_exactly_at_its_time_and_says_it_in_the_words_jmp_looks_for() -> None:
    verifier = IdentityVerifier([KEY.public_jwk()])
    text = token()

    verifier.verify(text, NOW + HOUR - timedelta(microseconds=1))
    with pytest.raises(NotAuthenticated) as caught:
        verifier.verify(text, NOW + HOUR)
    assert str(caught.value) == "token is expired"
    verifier.verify(text, NOW)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("a.b.c", id="no token"),
        pytest.param("x" * 9000, id="too long"),
        pytest.param("\udc80", id="no text"),
        pytest.param(token()[:-8] + "AAAAAAAA", id="changed signature"),
        pytest.param(token(SigningKey.generate()), id="key unknown"),
        pytest.param(signed({}, {"kid": KEY.kid}, SigningKey.generate()), id="other key under our kid"),
        pytest.param(signed({"iss": "https://elsewhere"}), id="issuer"),
        pytest.param(signed({"iss": None}), id="no issuer"),
        pytest.param(signed({"aud": ["other"]}), id="audience"),
        pytest.param(signed({"aud": None}), id="no audience"),
        pytest.param(signed({"exp": None}), id="no end"),
        pytest.param(signed({"exp": "tomorrow"}), id="end is text"),
        pytest.param(signed({"exp": 10**30}), id="end out of range"),
        pytest.param(signed({"exp": True}), id="end is a bool"),
        pytest.param(signed({"iat": None}), id="no issue time"),
        pytest.param(signed({"sub": None}), id="no subject"),
        pytest.param(signed({"sub": ""}), id="empty subject"),
        pytest.param(signed({"gen": "1"}), id="generation is text"),
        pytest.param(signed({"gen": True}), id="generation is a bool"),
        pytest.param(signed({"gen": -1}), id="generation is negative"),
        pytest.param(signed({"nbf": int((NOW + timedelta(minutes=2)).timestamp())}), id="not valid yet"),
    ],
)
def test_a_bad_token_is_refused_without_the_word_that_makes_jmp_crash(text: str) -> None:
    assert "expired" not in refusal(text)


def test_the_public_key_as_an_hmac_secret_opens_nothing() -> None:
    pem = KEY.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _, payload, _ = token().split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": KEY.kid}).encode()).rstrip(b"=").decode()
    digest = hmac.new(pem, f"{header}.{payload}".encode(), hashlib.sha256).digest()
    forged = f"{header}.{payload}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"

    assert refusal(forged) == "token must be signed with ES256"


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE"])
def test_a_token_without_a_signature_is_refused(algorithm: str) -> None:
    _, payload, _ = token().split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": KEY.kid}).encode()).rstrip(b"=").decode()

    assert refusal(f"{header}.{payload}.") == "token must be signed with ES256"


def test_keys_rotate_old_and_new_hold_side_by_side() -> None:
    new = SigningKey.generate()
    both = IdentityVerifier([KEY.public_jwk(), new.public_jwk()])

    assert both.verify(token(KEY), NOW).subject == both.verify(token(new), NOW).subject
    assert refusal(token(KEY), keys=(new,)) == "token is not signed by a known key"


def test_a_token_of_upstream_without_kid_holds_when_its_key_is_the_default_one() -> None:
    bare = jwt.encode(
        {
            "iss": "https://localhost:8085",
            "aud": ["jumpstarter"],
            "sub": ALICE.text,
            "iat": int(NOW.timestamp()),
            "exp": int((NOW + HOUR).timestamp()),
        },
        KEY.private,
        algorithm="ES256",
    )
    jwk = KEY.public_jwk()
    nameless = {name: value for name, value in jwk.items() if name != "kid"}

    for entry in (jwk | {"kid": "default"}, nameless):
        assert IdentityVerifier([SigningKey.generate().public_jwk(), entry]).verify(bare, NOW).generation is None
    assert refusal(bare) == "token is not signed by a known key"


def test_two_keys_without_kid_are_both_tried() -> None:
    other = SigningKey.generate()
    entries = [{name: value for name, value in key.public_jwk().items() if name != "kid"} for key in (other, KEY)]
    text = signed({}, {"kid": "default"})

    assert IdentityVerifier(entries).verify(text, NOW).subject == ALICE.text


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "AAAA"},
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256"},
    ],
)
def test_a_jwks_entry_that_is_no_public_key_on_p256_is_named(entry: dict[str, str]) -> None:
    with pytest.raises(InvalidField, match=r"jwks\[1\]"):
        IdentityVerifier([KEY.public_jwk(), entry])


def test_a_key_survives_its_pem_and_its_id_is_the_thumbprint_of_its_point() -> None:
    again = SigningKey.from_pem(KEY.to_pem())
    jwk = KEY.public_jwk()
    canonical = f'{{"crv":"P-256","kty":"EC","x":"{jwk["x"]}","y":"{jwk["y"]}"}}'

    assert again.public_jwk() == jwk
    assert again.kid == base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()
    assert "PRIVATE" not in repr(again)


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"secret-that-is-no-pem",
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(rsa.generate_private_key(65537, 2048)),
    ],
)
def test_a_signing_key_that_is_no_p256_key_is_refused_without_quoting_it(text: bytes) -> None:
    with pytest.raises(InvalidField, match="signing key: must be") as caught:
        SigningKey.from_pem(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("generation", "lifetime"), [(-1, HOUR), (0, timedelta(0)), (0, timedelta(seconds=0.9))])
def test_a_token_that_could_not_hold_is_not_issued(generation: int, lifetime: timedelta) -> None:
    with pytest.raises(InvalidField):
        token(generation=generation, lifetime=lifetime)


def test_the_memory_of_verified_tokens_is_bounded_and_forgets_the_least_used() -> None:
    verifier = IdentityVerifier([KEY.public_jwk()], cache_size=2)
    texts = [signed({"jti": str(number)}) for number in range(3)]
    first = verifier.verify(texts[0], NOW)
    second = verifier.verify(texts[1], NOW)

    assert verifier.verify(texts[0], NOW) is first
    verifier.verify(texts[2], NOW)
    assert verifier.verify(texts[0], NOW) is first
    assert verifier.verify(texts[1], NOW) is not second
