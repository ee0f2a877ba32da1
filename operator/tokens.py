"""The credentials of clients and exporters: Secrets that hold a token, and what status says about them."""

import base64
import binascii
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from lablease.errors import NotAuthenticated
from lablease.kube.api import RawObject
from lablease.model.client import Client
from lablease.model.durations import format_time
from lablease.model.exporter import Exporter
from lablease.model.fields import Json, as_mapping, as_string
from lablease.model.keys import Key
from lablease.model.meta import GROUP, MANAGED_BY, MANAGED_LABEL, VERSION, Meta, to_conditions
from lablease.operator.realm import Realm, StoredToken
from lablease.operator.writes import Kind, Ref, Urgency, Verb, Write
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
from lablease.tokens.identity import IdentityVerifier, SigningKey, Subject, SubjectKind, issue_identity

_SUFFIXES: Mapping[Kind, str] = MappingProxyType({Kind.CLIENT: "-client", Kind.EXPORTER: "-exporter"})
_SUBJECTS: Mapping[Kind, SubjectKind] = MappingProxyType(
    {Kind.CLIENT: SubjectKind.CLIENT, Kind.EXPORTER: SubjectKind.EXPORTER}
)
_FIELD = "token"
MIGRATED_NAMESPACE = f"{GROUP}/migrated-namespace"
MIGRATED_UID = f"{GROUP}/migrated-uid"
"""Annotations of objects that were moved from another cluster: their old tokens stay valid."""


def secret_name(kind: Kind, owner: str) -> str:
    """Return the name of the Secret of an owner."""
    return owner + _SUFFIXES[kind]


def owner_of(secret: str) -> tuple[Kind, str] | None:
    """Return whose Secret it is, None if the name is none of ours."""
    for kind, suffix in _SUFFIXES.items():
        if secret.endswith(suffix) and len(secret) > len(suffix):
            return kind, secret.removesuffix(suffix)
    return None


def subject_of(kind: Kind, meta: Meta) -> Subject:
    """Return whom a token of an owner speaks for."""
    namespace = meta.annotations.get(MIGRATED_NAMESPACE, meta.key.namespace)
    return Subject(_SUBJECTS[kind], namespace, meta.key.name, meta.annotations.get(MIGRATED_UID, meta.uid))


@dataclass(frozen=True, slots=True)
class Issuer:
    """Signs tokens. ``endpoint`` is what clients and exporters are told to connect to."""

    key: SigningKey
    endpoint: str
    lifetime: timedelta

    def sign(self, subject: Subject, generation: int, now: datetime) -> str:
        """Return a new token; two of the same second differ."""
        jti = uuid.uuid4().hex
        return issue_identity(self.key, subject, generation=generation, now=now, lifetime=self.lifetime, jti=jti)


class Keeper:
    """Decides and writes credentials. The tokens themselves are never kept."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._verifier = IdentityVerifier([issuer.key.public_jwk()], cache_size=0)

    def read(self, raw: Json, now: datetime) -> StoredToken:
        """Judge the token in a Secret; one that is expired, foreign or broken counts as not ours."""
        uid = as_string(as_mapping(raw.get("metadata"), "metadata").get("uid"), "metadata.uid")
        encoded = as_string(as_mapping(raw.get("data"), "data").get(_FIELD), "data.token")
        try:
            identity = self._verifier.verify(base64.b64decode(encoded, validate=True).decode("ascii"), now)
        except (NotAuthenticated, binascii.Error, UnicodeDecodeError):
            return StoredToken(uid, "", Token(ours=False))
        return StoredToken(uid, identity.subject, Token(True, identity.generation or 0, identity.expires))

    def look(self, realm: Realm, kind: Kind, name: str, now: datetime) -> tuple[Write | None, datetime | None]:
        """Decide about one owner: the next write, and when to look again."""
        owner = realm.world.clients.get(name) if kind is Kind.CLIENT else realm.world.exporters.get(name)
        stored = realm.tokens.get((kind, name))
        secret = Ref(Kind.SECRET, Key(realm.world.namespace, secret_name(kind, name)))
        if secret in realm.writing:
            return None, None
        if owner is None:
            return (None if stored is None else _drop(secret, stored)), None
        if owner.meta.deleting:
            return None, None
        subject = subject_of(kind, owner.meta)
        token = None if stored is None else _judged(stored, subject)
        step = credential_step(
            _published(owner, token),
            token,
            secret=secret.key.name,
            endpoint=self._issuer.endpoint,
            lifetime=self._issuer.lifetime,
            now=now,
        )
        match step:
            case Sign(generation, replace):
                text = self._issuer.sign(subject, generation, now)
                return _put(secret, kind, owner.meta, text, replace=replace), None
            case Publish(generation, expires):
                return self._publish(realm, kind, owner, generation, expires, now), None
            case Fine(until):
                return self._expiring(realm, owner, until, now)

    def _publish(
        self,
        realm: Realm,
        kind: Kind,
        owner: Client | Exporter,
        generation: int,
        expires: datetime | None,
        now: datetime,
    ) -> Write | None:
        ref = Ref(kind, owner.key)
        if ref in realm.writing:
            return None
        status: RawObject = {
            "credential": {"name": secret_name(kind, owner.key.name)},
            "credentialGeneration": generation,
            "endpoint": self._issuer.endpoint,
        }
        if isinstance(owner, Client) and expires is not None:
            word = expiry_condition(owner.conditions, expires=expires, generation=owner.meta.generation, now=now)
            status |= {"tokenExpiresAt": format_time(expires), "conditions": to_conditions([word])}
        body: RawObject = {"metadata": {"resourceVersion": owner.meta.resource_version}, "status": status}
        facts = {"kind": str(kind), "generation": generation}
        return Write(ref, Verb.STATUS, Urgency.CREDENTIAL, body, event="credential.published", facts=facts)

    def _expiring(
        self, realm: Realm, owner: Client | Exporter, until: datetime | None, now: datetime
    ) -> tuple[Write | None, datetime | None]:
        """Keep the client's condition up to date while its token is fine."""
        if not isinstance(owner, Client) or owner.token_expires is None:
            return None, until
        expires = owner.token_expires
        level = next_level(expires, now)
        again = level if until is None else min(level, until)
        word = expiry_condition(owner.conditions, expires=expires, generation=owner.meta.generation, now=now)
        ref = Ref(Kind.CLIENT, owner.key)
        if word in owner.conditions or ref in realm.writing:
            return None, again
        status: RawObject = {"conditions": to_conditions([word])}
        body: RawObject = {"metadata": {"resourceVersion": owner.meta.resource_version}, "status": status}
        return Write(ref, Verb.STATUS, Urgency.CREDENTIAL, body), again


def _published(owner: Client | Exporter, token: Token | None) -> Published:
    """Read what status says; that of an exporter says nothing about the expiry."""
    silent = None if token is None else token.expires
    expires = owner.token_expires if isinstance(owner, Client) else silent
    return Published(owner.credential, owner.credential_generation, owner.endpoint, expires)


def _judged(stored: StoredToken, subject: Subject) -> Token:
    return stored.token if stored.subject == subject.text else Token(ours=False)


def _put(secret: Ref, kind: Kind, owner: Meta, text: str, *, replace: bool) -> Write:
    reference = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": str(kind),
        "name": owner.key.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    body: RawObject = {
        "metadata": {
            "name": secret.key.name,
            "labels": {MANAGED_LABEL: MANAGED_BY},
            "ownerReferences": [reference],
        },
        "data": {_FIELD: base64.b64encode(text.encode("ascii")).decode("ascii")},
    }
    if not replace:
        body["type"] = "Opaque"
    facts = {"kind": str(kind), "owner": owner.key.name}
    verb = Verb.PATCH if replace else Verb.CREATE
    return Write(secret, verb, Urgency.CREDENTIAL, body, event="token.signed", facts=facts)


def _drop(secret: Ref, stored: StoredToken) -> Write:
    return Write(secret, Verb.DELETE, Urgency.CREDENTIAL, uid=stored.uid, event="token.dropped")
