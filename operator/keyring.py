"""The key that signs identities: made once, kept in a Secret of our own namespace; its public half is published."""

import base64
import binascii

import orjson

from lablease.errors import AlreadyExists, InvalidField
from lablease.kube.api import KubeApi, RawObject
from lablease.kube.resources import CONFIGMAPS, SECRETS
from lablease.model.fields import as_list, as_mapping, as_string
from lablease.model.keys import Key
from lablease.model.meta import MANAGED_BY, MANAGED_LABEL
from lablease.tokens.identity import SigningKey

SECRET_NAME = "lablease-identity"
SECRET_FIELD = "key.pem"
PUBLIC_NAME = "lablease-identity-keys"
PUBLIC_FIELD = "jwks.json"


async def signing_key(api: KubeApi, namespace: str) -> SigningKey:
    """Return the key. Of several that start at once one creates it and all read the same.

    Raises:
        InvalidField: the Secret exists and holds no usable key.
        Unavailable, NotAllowed: of the API server.
    """
    fresh = SigningKey.generate()
    body: RawObject = {
        "metadata": {"name": SECRET_NAME, "labels": {MANAGED_LABEL: MANAGED_BY}},
        "type": "Opaque",
        "data": {SECRET_FIELD: base64.b64encode(fresh.to_pem()).decode("ascii")},
    }
    try:
        await api.create(SECRETS, namespace, body)
    except AlreadyExists:
        return _read(await api.get(SECRETS, Key(namespace, SECRET_NAME)))
    return fresh


def _read(raw: RawObject) -> SigningKey:
    field = f"Secret {SECRET_NAME} data.{SECRET_FIELD}"
    encoded = as_string(as_mapping(raw.get("data"), "data").get(SECRET_FIELD), field)
    try:
        return SigningKey.from_pem(base64.b64decode(encoded, validate=True))
    except binascii.Error:
        raise InvalidField(field, "is not base64") from None


async def publish(api: KubeApi, namespace: str, key: SigningKey) -> None:
    """Add the public half to the published keys. Keys that are there stay: tokens that they signed are still about."""
    name = Key(namespace, PUBLIC_NAME)
    entry = key.public_jwk()
    try:
        await api.create(CONFIGMAPS, namespace, _public(None, [entry]))
    except AlreadyExists:
        raw = await api.get(CONFIGMAPS, name)
        keys = _keys(raw)
        if entry not in keys:
            version = as_string(as_mapping(raw.get("metadata"), "metadata").get("resourceVersion"), "resourceVersion")
            await api.patch(CONFIGMAPS, name, _public(version, [*keys, entry]))


def _keys(raw: RawObject) -> list[object]:
    field = f"ConfigMap {PUBLIC_NAME} data.{PUBLIC_FIELD}"
    text = as_string(as_mapping(raw.get("data"), "data").get(PUBLIC_FIELD), field)
    try:
        return list(as_list(as_mapping(orjson.loads(text or "{}"), field).get("keys"), field))
    except orjson.JSONDecodeError:
        raise InvalidField(field, "is not JSON") from None


def _public(version: str | None, keys: list[object]) -> RawObject:
    metadata: RawObject = {"name": PUBLIC_NAME} | ({} if version is None else {"resourceVersion": version})
    return {"metadata": metadata, "data": {PUBLIC_FIELD: orjson.dumps({"keys": keys}).decode()}}
