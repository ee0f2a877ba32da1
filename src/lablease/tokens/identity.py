"""Identity tokens: who a client or an exporter is. ES256, checked against a set of public keys.

The claims are those of jumpstarter 0.9.0 (issuer, audience, subject, ``iat``, ``exp``), so that its tokens and tools
keep working, and in addition ``jti``, ``gen`` and a ``kid`` in the header.
"""

import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lablease.errors import InvalidField, NotAuthenticated
from lablease.tokens.claims import check_shape, instant, text, whole

ISSUER = "https://localhost:8085"
AUDIENCE = "jumpstarter"
USER_PREFIX = "internal:"
DEFAULT_KEY_ID = "default"
"""What jumpstarter 0.9.0 calls its only key in the JWKS; its tokens carry no ``kid``."""

_ALGORITHM = "ES256"
_COORDINATE_BYTES = 32
_NBF_LEEWAY = timedelta(minutes=1)


class SubjectKind(StrEnum):
    """The kinds of objects that have an identity."""

    CLIENT = "client"
    EXPORTER = "exporter"


@dataclass(frozen=True, slots=True)
class Subject:
    """One object that a token speaks for. The uid keeps a re-created object of that name apart."""

    kind: SubjectKind
    namespace: str
    name: str
    uid: str

    @property
    def text(self) -> str:
        """The subject as the claim ``sub`` has it: ``client:<namespace>:<name>:<uid>``."""
        return f"{self.kind}:{self.namespace}:{self.name}:{self.uid}"

    @classmethod
    def parse(cls, claim: str) -> Self:
        """Read what ``Subject.text`` writes.

        Raises:
            InvalidField: it is not a known kind and three parts that are not empty.
        """
        kind, _, rest = claim.partition(":")
        parts = rest.split(":")
        if kind not in set(SubjectKind) or len(parts) != 3 or not all(parts):
            raise InvalidField("sub", "must be client:<namespace>:<name>:<uid> or exporter:<namespace>:<name>:<uid>")
        return cls(SubjectKind(kind), *parts)


class SigningKey:
    """The private key (P-256) that signs identities. Never logged: ``repr`` shows the key id only."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        numbers = private.public_key().public_numbers()
        self.private = private
        self._point = {"crv": "P-256", "kty": "EC", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}
        canonical = json.dumps(self._point, separators=(",", ":"), sort_keys=True)
        self.kid = _base64url(hashlib.sha256(canonical.encode()).digest())  # RFC 7638

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid})"

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the system's randomness."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """Read an unencrypted PEM private key.

        Raises:
            InvalidField: it is no such key, or not on P-256. The message never quotes the input.
        """
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise InvalidField("signing key", "must be an unencrypted PEM private key") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
            raise InvalidField("signing key", "must be an elliptic curve key on P-256")
        return cls(private)

    def to_pem(self) -> bytes:
        """Return the key as unencrypted PKCS 8: a secret."""
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def public_jwk(self) -> dict[str, str]:
        """Return the public half as an entry for a JWKS."""
        return {**self._point, "kid": self.kid, "use": "sig", "alg": _ALGORITHM}


def issue_identity(
    key: SigningKey, subject: Subject, *, generation: int, now: datetime, lifetime: timedelta, jti: str
) -> str:
    """Sign a token that says its bearer is ``subject``.

    Args:
        key: the current signing key; its ``kid`` goes into the header.
        subject: whom the token speaks for.
        generation: credential generation; a rotation raises it and makes older tokens worthless.
        now: issue time; whole seconds count.
        lifetime: at least one second.
        jti: unique id of the token.

    Raises:
        InvalidField: the lifetime is under a second or the generation negative.
    """
    if lifetime < timedelta(seconds=1):
        raise InvalidField("lifetime", "must be at least one second")
    if generation < 0:
        raise InvalidField("generation", "must not be negative")
    claims = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": subject.text,
        "iat": int(now.timestamp()),
        "exp": int((now + lifetime).timestamp()),
        "jti": jti,
        "gen": generation,
    }
    return jwt.encode(claims, key.private, algorithm=_ALGORITHM, headers={"kid": key.kid})


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified token says.

    ``subject`` is the text of the claim: ``Subject.parse`` reads it. ``user`` is the name that policies and objects
    know (prefix and subject). ``generation`` is None in a token that jumpstarter's own controller signed.
    """

    subject: str
    user: str
    issued: datetime
    expires: datetime
    generation: int | None
    not_before: datetime | None = None


class IdentityVerifier:
    """Checks identity tokens against a set of public keys.

    Signatures that were found good are remembered (at most ``cache_size`` tokens, least recently used go first),
    because a peer sends the same token with each call; times are judged at each call.
    """

    def __init__(
        self, jwks: Sequence[Mapping[str, object]], *, prefix: str = USER_PREFIX, cache_size: int = 4096
    ) -> None:
        """Take the keys.

        Args:
            jwks: public keys as JWK; an entry without ``kid`` counts as ``default``.
            prefix: goes before the subject in the user name.
            cache_size: how many verified tokens to remember; 0 remembers none.

        Raises:
            InvalidField: an entry is no public P-256 key.
        """
        self._keys: dict[str, list[ec.EllipticCurvePublicKey]] = {}
        for index, entry in enumerate(jwks):
            kid = entry.get("kid") or DEFAULT_KEY_ID
            self._keys.setdefault(str(kid), []).append(_public_key(entry, f"jwks[{index}]"))
        self._prefix = prefix
        self._cache_size = cache_size
        self._cache: OrderedDict[bytes, Identity] = OrderedDict()

    def verify(self, token: str, now: datetime) -> Identity:
        """Return who the bearer is.

        Raises:
            NotAuthenticated: with exactly ``token is expired`` when only its time is over (jmp 0.9.0 then logs in
                again); every other text avoids that word, because jmp 0.9.0 breaks on it.
        """
        check_shape(token)
        digest = hashlib.sha256(token.encode()).digest()
        identity = self._cache.get(digest)
        if identity is None:
            identity = self._check(token)
            self._cache[digest] = identity
            if len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(digest)
        if now >= identity.expires:
            raise NotAuthenticated("token is expired")
        if identity.not_before is not None and now + _NBF_LEEWAY < identity.not_before:
            raise NotAuthenticated("token is not valid yet")
        return identity

    def _check(self, token: str) -> Identity:
        keys = self._candidates(token)
        problem = "token is not signed by a known key"
        for key in keys:
            try:
                return self._identity(_decode(token, key))
            except jwt.InvalidSignatureError:
                continue
            except jwt.MissingRequiredClaimError as error:
                problem = f"token has no claim {error.claim}"
            except jwt.InvalidIssuerError:
                problem = "token is of another issuer"
            except jwt.InvalidAudienceError:
                problem = "token is for another audience"
            except jwt.PyJWTError:
                problem = "token is malformed"
        raise NotAuthenticated(problem)

    def _candidates(self, token: str) -> Sequence[ec.EllipticCurvePublicKey]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise NotAuthenticated("token is malformed") from None
        if header.get("alg") != _ALGORITHM:
            raise NotAuthenticated(f"token must be signed with {_ALGORITHM}")
        kid = header.get("kid", DEFAULT_KEY_ID)
        if kid not in self._keys:
            raise NotAuthenticated("token is not signed by a known key")
        return self._keys[kid]

    def _identity(self, claims: Mapping[str, object]) -> Identity:
        subject = text(claims, "sub")
        return Identity(
            subject=subject,
            user=self._prefix + subject,
            issued=instant(claims, "iat"),
            expires=instant(claims, "exp"),
            generation=whole(claims, "gen") if "gen" in claims else None,
            not_before=instant(claims, "nbf") if "nbf" in claims else None,
        )


def _decode(token: str, key: ec.EllipticCurvePublicKey) -> Mapping[str, object]:
    """Check all but the times, which are judged on the caller's ``now`` and not on a clock of the library."""
    claims: Mapping[str, object] = jwt.decode(
        token,
        key,
        algorithms=[_ALGORITHM],
        issuer=ISSUER,
        audience=AUDIENCE,
        options={
            "require": ["exp", "iat", "sub"],
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
        },
    )
    return claims


def _public_key(entry: Mapping[str, object], field: str) -> ec.EllipticCurvePublicKey:
    if entry.get("kty") != "EC" or entry.get("crv") != "P-256":
        raise InvalidField(field, "must be a key of type EC on curve P-256")
    try:
        x, y = (int.from_bytes(_unbase64url(str(entry.get(name))), "big") for name in ("x", "y"))
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise InvalidField(field, "x and y must be a point of P-256 in base64url") from None


def _coordinate(value: int) -> str:
    return _base64url(value.to_bytes(_COORDINATE_BYTES, "big"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64url(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
