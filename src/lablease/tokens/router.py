"""Tokens of the tunnels: HS256 with the router key, which signs nothing else and no identity.

A *stream token* lets one side of one tunnel join; its claims contain those of jumpstarter 0.9.0 and the fence. A
*control token* lets a front end open the control stream of one router. Neither is accepted in place of the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import jwt

from lablease.errors import InvalidField, NotAuthenticated
from lablease.model.grant import Grant
from lablease.tokens.claims import check_shape, instant, text, whole

STREAM_ISSUER = "https://jumpstarter.dev/stream"
STREAM_AUDIENCE = "https://jumpstarter.dev/router"
CONTROL_ISSUER = "lablease:frontend"
CONTROL_AUDIENCE = "lablease:router-control"
MAX_LIFETIME = timedelta(minutes=30)
"""Longest life of a stream token, as in jumpstarter 0.9.0; a revocation must be remembered this long."""
CONTROL_LIFETIME = timedelta(minutes=5)
LEEWAY = timedelta(seconds=5)
"""How far the clock of who signed may be ahead of the router's."""
MIN_KEY_BYTES = 32

_ALGORITHM = "HS256"


class Role(StrEnum):
    """Which half of a tunnel."""

    CLIENT = "client"
    EXPORTER = "exporter"


@dataclass(frozen=True, slots=True)
class RouterClaims:
    """What a stream token says.

    ``stream`` is the UUID that both halves share, ``router`` the endpoint that both dial, ``jti`` unique per token.
    ``issued`` is when it was signed (whole seconds): verification sets it, issuing takes ``now`` instead.
    """

    stream: str
    role: Role
    grant: Grant
    router: str
    expires: datetime
    jti: str
    issued: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ControlCaller:
    """The front end that a control token speaks for."""

    frontend: str


def read_router_key(path: Path) -> bytes:
    """Return the bytes of the file, all of them: nothing is stripped, so that all who read it have the same key.

    Raises:
        InvalidField: the file cannot be read or has fewer than 32 bytes.
    """
    try:
        return check_router_key(path.read_bytes())
    except OSError as error:
        raise InvalidField("router key", f"cannot read {path}: {error.strerror}") from None


def check_router_key(key: bytes) -> bytes:
    """Return the key if it is usable.

    Raises:
        InvalidField: it has fewer than 32 bytes. An empty one would let everybody sign.
    """
    if len(key) < MIN_KEY_BYTES:
        raise InvalidField("router key", f"must have at least {MIN_KEY_BYTES} bytes, has {len(key)}")
    return key


def issue_router_token(key: bytes, claims: RouterClaims, now: datetime) -> str:
    """Sign a stream token. Whole seconds of ``expires`` count.

    Raises:
        InvalidField: the key is too short, or the token would live longer than 30 minutes or not at all.
    """
    check_router_key(key)
    if not now < claims.expires <= now + MAX_LIFETIME:
        raise InvalidField("expires", "must lie after now and at most 30 minutes from it")
    grant = claims.grant
    issued = int(now.timestamp())
    payload: dict[str, object] = {
        "iss": STREAM_ISSUER,
        "aud": [STREAM_AUDIENCE],
        "sub": claims.stream,
        "jti": claims.jti,
        "iat": issued,
        "nbf": issued,
        "exp": int(claims.expires.timestamp()),
        "role": claims.role.value,
        "router": claims.router,
        "namespace": grant.namespace,
        "exporter": grant.exporter,
        "lease": grant.lease,
        "grant": grant.number,
        "client": grant.client,
    }
    if grant.end is not None:
        payload["end"] = grant.end.timestamp()
    return jwt.encode(payload, key, algorithm=_ALGORITHM)


class RouterTokenVerifier:
    """Checks stream tokens. That a token is used once, and its fence, are the pairing table's business."""

    def __init__(self, key: bytes) -> None:
        """Take the router key.

        Raises:
            InvalidField: it has fewer than 32 bytes.
        """
        self._key = check_router_key(key)

    def verify(self, token: str, now: datetime) -> RouterClaims:
        """Return what the token says.

        Raises:
            NotAuthenticated: it is malformed, signed otherwise, for something else, too old or too early.
        """
        claims = _decode(self._key, token, now, issuer=STREAM_ISSUER, audience=STREAM_AUDIENCE, lifetime=MAX_LIFETIME)
        role = text(claims, "role")
        if role not in set(Role):
            raise NotAuthenticated("token claim role must be client or exporter")
        return RouterClaims(
            stream=text(claims, "sub"),
            role=Role(role),
            grant=_grant(claims),
            router=text(claims, "router"),
            expires=instant(claims, "exp"),
            jti=text(claims, "jti"),
            issued=instant(claims, "iat"),
        )


def issue_control_token(
    key: bytes, *, frontend: str, router: str, now: datetime, jti: str, lifetime: timedelta = CONTROL_LIFETIME
) -> str:
    """Sign a token with which the front end ``frontend`` opens the control stream of ``router``.

    It is checked when the stream opens; the stream may outlive it.

    Raises:
        InvalidField: the key is too short, or the lifetime not between a second and five minutes.
    """
    check_router_key(key)
    if not timedelta(seconds=1) <= lifetime <= CONTROL_LIFETIME:
        raise InvalidField("lifetime", "must be between one second and five minutes")
    payload = {
        "iss": CONTROL_ISSUER,
        "aud": [CONTROL_AUDIENCE],
        "sub": frontend,
        "router": router,
        "jti": jti,
        "iat": int(now.timestamp()),
        "exp": int((now + lifetime).timestamp()),
    }
    return jwt.encode(payload, key, algorithm=_ALGORITHM)


def verify_control_token(key: bytes, token: str, *, router: str, now: datetime) -> ControlCaller:
    """Return which front end calls the router named ``router``.

    Raises:
        NotAuthenticated: the token is no control token for this router, or too old or too early.
    """
    claims = _decode(key, token, now, issuer=CONTROL_ISSUER, audience=CONTROL_AUDIENCE, lifetime=CONTROL_LIFETIME)
    if text(claims, "router") != router:
        raise NotAuthenticated("token is for another router")
    return ControlCaller(text(claims, "sub"))


def _decode(
    key: bytes, token: str, now: datetime, *, issuer: str, audience: str, lifetime: timedelta
) -> Mapping[str, object]:
    """Check signature, issuer and audience, and the times against ``now`` rather than a clock of the library."""
    check_shape(token)
    try:
        claims: Mapping[str, object] = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            issuer=issuer,
            audience=audience,
            options={
                "require": ["exp", "iat", "sub", "jti"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except jwt.MissingRequiredClaimError as error:
        raise NotAuthenticated(f"token has no claim {error.claim}") from None
    except (jwt.InvalidIssuerError, jwt.InvalidAudienceError):
        raise NotAuthenticated("token is for something else") from None
    except jwt.PyJWTError:
        raise NotAuthenticated("token is malformed or not signed with the router key") from None
    expires = instant(claims, "exp")
    if now >= expires:
        raise NotAuthenticated("token is expired")
    if expires > now + lifetime + LEEWAY:
        raise NotAuthenticated("token lives longer than allowed")
    if any(now + LEEWAY < instant(claims, name) for name in ("iat", "nbf") if name in claims):
        raise NotAuthenticated("token is not valid yet")
    return claims


def _grant(claims: Mapping[str, object]) -> Grant:
    return Grant(
        namespace=text(claims, "namespace"),
        exporter=text(claims, "exporter"),
        lease=text(claims, "lease"),
        number=whole(claims, "grant"),
        client=text(claims, "client"),
        end=instant(claims, "end") if "end" in claims else None,
    )
