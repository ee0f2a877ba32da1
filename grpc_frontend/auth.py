"""Who calls: from the metadata of a call to the object that the caller is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import orjson
import structlog

from lablease import clock
from lablease.errors import InvalidField, NotAllowed, NotAuthenticated, NotFound, Unavailable
from lablease.grpc_frontend.limits import Allowance
from lablease.grpc_frontend.records import ConfigRecord
from lablease.grpc_frontend.store import Store
from lablease.model.client import Client
from lablease.model.exporter import Exporter
from lablease.model.fields import as_list, as_mapping
from lablease.model.keys import Key
from lablease.model.meta import GROUP, Meta
from lablease.tokens.identity import USER_PREFIX, Identity, IdentityVerifier, Subject, SubjectKind

MIGRATED_NAMESPACE = f"{GROUP}/migrated-namespace"
MIGRATED_UID = f"{GROUP}/migrated-uid"
"""Annotations of an object that was moved from another cluster: its old tokens name these."""

FIRST_GENERATION = 1
"""Of the first credential that was issued for an object; tokens of jumpstarter's own controller count as that."""

RENEW_PART = 0.1
"""The operator replaces a token when this part of its life is left."""

_JWKS = "jwks.json"
_BEARER = "bearer"

log = structlog.get_logger(__name__)

Metadata = Sequence[tuple[str, str | bytes]]


class Kind(StrEnum):
    """What a caller says it is, spelled as on the wire."""

    CLIENT = "Client"
    EXPORTER = "Exporter"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated peer, within one call. ``generation`` is that of its credential."""

    kind: Kind
    key: Key
    uid: str
    user: str
    generation: int = 0
    renew: datetime | None = None
    """From when on the credential is old enough to ask for its successor."""
    token: str = field(default="", repr=False)
    hints: Mapping[str, str] = field(default_factory=dict[str, str])
    """Metadata of this call that starts with ``x-lablease-``."""


def bearer_token(metadata: Metadata) -> str:
    """Return the token of the ``authorization`` header.

    Raises:
        NotAuthenticated: there is none.
        InvalidField: there are several, or it is not of the form ``Bearer <token>``.
    """
    values = _values(metadata, "authorization")
    if not values:
        raise NotAuthenticated("no token: send the metadata authorization with Bearer and the token")
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != _BEARER or not token.strip():
        raise InvalidField("authorization", "must be given once, as Bearer and the token")
    return token.strip()


def claimed_object(metadata: Metadata) -> tuple[Kind, Key]:
    """Return which object the caller says it is.

    Raises:
        InvalidField: one of the three entries is missing or repeated, or the kind is unknown.
    """
    kind, namespace, name = (_single(metadata, f"jumpstarter-{part}") for part in ("kind", "namespace", "name"))
    if kind not in set(Kind):
        raise InvalidField("jumpstarter-kind", f"{kind!r} is not known: use Client or Exporter")
    return Kind(kind), Key(namespace, name)


def allowed_users(kind: Kind, meta: Meta, username: str | None) -> frozenset[str]:
    """Return the user names that may act as an object: its own identity, and ``spec.username`` verbatim."""
    subject = Subject(
        SubjectKind.CLIENT if kind is Kind.CLIENT else SubjectKind.EXPORTER,
        meta.annotations.get(MIGRATED_NAMESPACE, meta.key.namespace),
        meta.key.name,
        meta.annotations.get(MIGRATED_UID, meta.uid),
    )
    own = USER_PREFIX + subject.text
    return frozenset({own, username} if username else {own})


class Authenticator:
    """Checks tokens against the published keys, and finds the caller's object."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._verifier: IdentityVerifier | None = None
        self._published = ""
        self._misses = Allowance(burst=5, per_second=1)
        store.identity_keys.add_listener(self._keys_changed)

    async def admit(self, metadata: Metadata, kinds: frozenset[Kind]) -> Caller:
        """Return the caller.

        Raises:
            NotAuthenticated: no token, a token that does not hold, or one that does not fit the object.
            InvalidField: the metadata is malformed.
            NotAllowed: the call is not for this kind of peer.
            Unavailable: the keys are not known yet, or the API server is away.
        """
        token = bearer_token(metadata)
        if self._verifier is None:
            raise Unavailable("the keys of identities are not published yet")
        identity = self._verifier.verify(token, clock.utc_now())
        kind, key = claimed_object(metadata)
        if kind not in kinds:
            raise NotAllowed(f"this call is for {' or '.join(sorted(kinds))}, not for {kind}")
        found = await self._find(kind, key, identity)
        if identity.user not in allowed_users(kind, found.meta, found.username):
            raise NotAuthenticated(f"this token does not belong to {kind.lower()} {key.name}")
        generation = current_generation(identity, found)
        hints = {name: value for name, value in metadata if name.startswith("x-lablease-") and isinstance(value, str)}
        renew = identity.expires - (identity.expires - identity.issued) * RENEW_PART
        return Caller(kind, key, found.meta.uid, identity.user, generation, renew, token, hints)

    def expiry(self, token: str, now: datetime) -> datetime:
        """Return when a token of ours stops working by itself."""
        if self._verifier is None:
            raise Unavailable("the keys of identities are not published yet")
        return self._verifier.verify(token, now).expires

    async def _find(self, kind: Kind, key: Key, identity: Identity) -> Client | Exporter:
        """Look into the cache; what it does not have is looked up live, a few times per identity."""
        cached = self._store.clients.get(key) if kind is Kind.CLIENT else self._store.exporter(key)
        if cached is not None:
            return cached
        if key.namespace == self._store.namespace and self._misses.take(identity.user):
            try:
                if kind is Kind.CLIENT:
                    return await self._store.read_client(key)
                return await self._store.read_exporter(key)
            except NotFound:
                pass
        raise NotAuthenticated(f"{kind.lower()} {key.name} is not known in namespace {key.namespace}")

    def _keys_changed(self, _old: ConfigRecord | None, new: ConfigRecord | None) -> None:
        if new is None:
            return
        published = new.data.get(_JWKS, "")
        if published == self._published:
            return
        try:
            self._verifier = _verifier(published)
        except (orjson.JSONDecodeError, InvalidField) as error:
            log.error("identity_keys.unreadable", reason=str(error))
            return
        self._published = published
        log.info("identity_keys.loaded")


def current_generation(identity: Identity, found: Client | Exporter) -> int:
    """Return the generation of a credential; a token without one counts as the first.

    Raises:
        NotAuthenticated: the object's credential was rotated since. The text avoids the word on which jmp 0.9.0 breaks.
    """
    generation = FIRST_GENERATION if identity.generation is None else identity.generation
    if generation < found.credential_generation:
        raise NotAuthenticated("this token was replaced by a newer one: fetch the new one")
    return generation


def _verifier(published: str) -> IdentityVerifier:
    keys = as_list(as_mapping(orjson.loads(published), _JWKS).get("keys"), f"{_JWKS}.keys")
    return IdentityVerifier([as_mapping(item, f"{_JWKS}.keys[{index}]") for index, item in enumerate(keys)])


def _values(metadata: Metadata, name: str) -> list[str]:
    return [value for key, value in metadata if key == name and isinstance(value, str)]


def _single(metadata: Metadata, name: str) -> str:
    values = _values(metadata, name)
    if len(values) != 1 or not values[0]:
        raise InvalidField(name, f"must be given exactly once in the metadata, was given {len(values)} times")
    return values[0]
