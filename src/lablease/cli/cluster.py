"""Clients and exporters as objects of the Kubernetes API, and the config files made from them."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from lablease.clock import monotonic
from lablease.errors import LableaseError, NotFound
from lablease.kube.api import KubeApi, RawObject
from lablease.kube.api import connect as connect_kube
from lablease.kube.resources import CLIENTS, CONFIGMAPS, EXPORTERS, SECRETS, Resource
from lablease.model.fields import as_mapping, as_string
from lablease.model.keys import Key

CA_CONFIGMAP = "jumpstarter-service-ca-cert"
"""Where upstream keeps the CA of the front end, key ``ca.crt``; absent where a public CA has signed."""

_PATIENCE_SECONDS = 15.0
_POLL_SECONDS = 0.2


class NoCredentials(LableaseError):
    """The operator has not given an object its credentials."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a config file needs: where to connect, with which token, trusting which CA (base64 of PEM)."""

    endpoint: str
    token: str
    ca: str


class Cluster:
    """One namespace of a Kubernetes API."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    async def create(self, resource: Resource, name: str, labels: Mapping[str, str], username: str | None) -> RawObject:
        """Create a client or an exporter, and wait for its credentials.

        Raises:
            NoCredentials: none came in time; the object stays.
        """
        body: RawObject = {
            "metadata": {"name": name, "namespace": self.namespace, "labels": dict(labels)},
            "spec": {"username": username} if username else {},
        }
        await self.api.create(resource, self.namespace, body)
        return await self._with_credentials(resource, name)

    async def access(self, resource: Resource, name: str) -> Access:
        """Read what the config file of an object needs.

        Raises:
            NotFound: no such object; NoCredentials: it has none yet.
        """
        found = await self._with_credentials(resource, name)
        status = as_mapping(found.get("status"), "status")
        return Access(
            endpoint=as_string(status.get("endpoint"), "status.endpoint"),
            token=await self._token(_secret_name(found)),
            ca=await self._ca(),
        )

    async def rotate(self, name: str) -> None:
        """Replace the token of a client: its Secret is dropped, and the operator makes it anew.

        Raises:
            NoCredentials: the operator did not.
        """
        secret = _secret_name(await self._with_credentials(CLIENTS, name))
        before = await self._token(secret)
        await self.api.delete(SECRETS, Key(self.namespace, secret))
        give_up = monotonic() + _PATIENCE_SECONDS
        while monotonic() < give_up:
            try:
                if await self._token(secret) != before:
                    return
            except NotFound:
                pass
            await asyncio.sleep(_POLL_SECONDS)
        raise NoCredentials(f"client {name}: no new token after {_PATIENCE_SECONDS:g} s; does the operator run?")

    async def _with_credentials(self, resource: Resource, name: str) -> RawObject:
        give_up = monotonic() + _PATIENCE_SECONDS
        while True:
            found = await self.api.get(resource, Key(self.namespace, name))
            if _secret_name(found):
                return found
            if monotonic() > give_up:
                kind = resource.kind.lower()
                raise NoCredentials(
                    f"{kind} {name}: no credentials after {_PATIENCE_SECONDS:g} s; does the operator run?"
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _token(self, secret: str) -> str:
        data = as_mapping((await self.api.get(SECRETS, Key(self.namespace, secret))).get("data"), "data")
        return base64.b64decode(as_string(data.get("token"), "data.token")).decode("ascii")

    async def _ca(self) -> str:
        try:
            found = await self.api.get(CONFIGMAPS, Key(self.namespace, CA_CONFIGMAP))
        except NotFound:
            return ""
        pem = as_string(as_mapping(found.get("data"), "data").get("ca.crt"), "data['ca.crt']")
        return base64.b64encode(pem.encode()).decode("ascii")


@asynccontextmanager
async def open_cluster(kubeconfig: Path | None, context: str | None, namespace: str | None) -> AsyncGenerator[Cluster]:
    """Connect with a kubeconfig: the one that is named, else KUBECONFIG, else ``~/.kube/config``.

    The namespace is the named one, else the context's, else ``default``.
    """
    path = kubeconfig or Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    api = await connect_kube(path, "lablease-admin", context)
    try:
        yield Cluster(api, namespace or api.config.namespace or "default")
    finally:
        await api.aclose()


def resource_named(kind: str) -> Resource:
    """Return the resource of ``client`` or ``exporter``."""
    return {"client": CLIENTS, "exporter": EXPORTERS}[kind]


def _secret_name(found: RawObject) -> str:
    status = as_mapping(found.get("status"), "status")
    return as_string(as_mapping(status.get("credential"), "status.credential").get("name"), "status.credential.name")
