"""The Kubernetes API over one aiohttp session: the hot path of the operator and the front end.

aiohttp with orjson costs a third of the CPU of the generated clients for a small status patch, and Kopf brings it anyway.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import aiohttp
import orjson
import yarl

from lablease import clock
from lablease.errors import LableaseError, OutcomeUnknown, Unavailable
from lablease.kube.config import KubeConfig, load
from lablease.kube.failures import failure
from lablease.kube.resources import Resource
from lablease.model.keys import Key

RawObject = dict[str, Any]
PatchBody = RawObject | list[RawObject]
Content = Literal["merge", "apply", "json"]

_CONTENT_TYPES: dict[Content, str] = {
    "merge": "application/merge-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML
    "json": "application/json-patch+json",
}
REQUEST_SECONDS = 10.0
"""A hung API server must not hold a caller longer; watches have their own limit."""
WATCH_SECONDS = 290
"""The API server ends the watch after this; shorter than common load-balancer limits of 5 minutes."""
SILENCE_SECONDS = 90.0
"""Bookmarks come about every minute; a watch that is silent for longer is dead."""
TOKEN_SECONDS = 30.0
"""How long a token read from its file is used before the file is read again."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects of a collection at one version."""

    items: list[RawObject]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK; a bookmark's object carries only its resource version."""

    type: str
    object: RawObject


class KubeApi:
    """Typed verbs on the API server.

    Every verb raises of ``lablease.errors``: ``NotFound`` (404), ``AlreadyExists`` (409 on create), ``Stale`` (409),
    ``InvalidField`` (400, 422), ``NotAllowed`` (403), ``NotAuthenticated`` (401), ``Gone`` (410), ``Unavailable`` (429,
    5xx, no connection); a write that was sent and not answered raises ``OutcomeUnknown``.
    """

    def __init__(self, config: KubeConfig, session: aiohttp.ClientSession, user_agent: str = "lablease") -> None:
        self.config = config
        self.session = session
        self._user_agent = user_agent
        self._bearer: str | None = None
        self._bearer_read = float("-inf")

    async def aclose(self) -> None:
        """Close the session and its connections."""
        await self.session.close()

    async def get(self, resource: Resource, key: Key) -> RawObject:
        """Read one object from etcd's newest state."""
        return await self._request("GET", resource, key.namespace, key.name)

    async def list(
        self, resource: Resource, namespace: str | None, labels: str = "", name: str | None = None
    ) -> Listing:
        """Read a collection in pages, at one version, newest state; with a name only the object of that name."""
        items: list[RawObject] = []
        query = {"limit": "500"} | ({"labelSelector": labels} if labels else {}) | _only(name)
        while True:
            page = await self._request("GET", resource, namespace, query=query)
            items += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return Listing(items, page["metadata"]["resourceVersion"])
            query = query | {"continue": token}

    async def create(self, resource: Resource, namespace: str | None, body: RawObject) -> RawObject:
        """Create an object; kind and version are filled in."""
        full = {"apiVersion": resource.api_version, "kind": resource.kind} | body
        return await self._request("POST", resource, namespace, body=full)

    async def patch(
        self,
        resource: Resource,
        key: Key,
        body: PatchBody,
        *,
        subresource: str | None = None,
        content: Content = "merge",
        field_manager: str | None = None,
        force: bool = False,
    ) -> RawObject:
        """Change an object. With ``metadata.resourceVersion`` in the body a merge patch is refused once that has passed."""
        query = ({"fieldManager": field_manager} if field_manager else {}) | ({"force": "true"} if force else {})
        return await self._request(
            "PATCH",
            resource,
            key.namespace,
            key.name,
            subresource,
            body=body,
            query=query,
            kind=_CONTENT_TYPES[content],
        )

    async def replace(self, resource: Resource, key: Key, body: RawObject) -> RawObject:
        """Replace an object; the body carries the version that it was read at."""
        full = {"apiVersion": resource.api_version, "kind": resource.kind} | body
        return await self._request("PUT", resource, key.namespace, key.name, body=full)

    async def delete(
        self, resource: Resource, key: Key, *, uid: str | None = None, resource_version: str | None = None
    ) -> None:
        """Delete an object, if given only that very one at that very version."""
        conditions = {"uid": uid, "resourceVersion": resource_version}
        preconditions = {name: value for name, value in conditions.items() if value is not None}
        await self._request("DELETE", resource, key.namespace, key.name, body={"preconditions": preconditions})

    async def watch(
        self, resource: Resource, namespace: str | None, resource_version: str, name: str | None = None
    ) -> AsyncIterator[WatchEvent]:
        """Yield what changed since a version until the API server ends the stream; then watch again from the last seen.

        Raises:
            Gone: the version is no longer kept.
            Unavailable: no connection, or silent for too long.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
            "resourceVersion": resource_version,
        } | _only(name)
        url = self._url(resource.path(namespace), query)
        limit = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=SILENCE_SECONDS)
        try:
            async with self.session.get(url, headers=self._headers(), ssl=self.config.tls, timeout=limit) as response:
                if response.status != 200:
                    raise failure(response.status, await response.read(), resource, None)
                async for line in _lines(response):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise failure(event["object"].get("code", 500), orjson.dumps(event["object"]), resource, None)
                    yield WatchEvent(event["type"], event["object"])
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"watch of {resource.plural}: {type(error).__name__}") from error

    async def _request(
        self,
        method: str,
        resource: Resource,
        namespace: str | None,
        name: str | None = None,
        subresource: str | None = None,
        *,
        body: object = None,
        query: dict[str, str] | None = None,
        kind: str = "application/json",
    ) -> RawObject:
        url = self._url(resource.path(namespace, name, subresource), query or {})
        data = None if body is None else orjson.dumps(body)
        headers = self._headers() | ({"Content-Type": kind} if data is not None else {})
        limit = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        try:
            async with self.session.request(
                method, url, data=data, headers=headers, ssl=self.config.tls, timeout=limit
            ) as response:
                content = await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unavailable(f"API server: {type(error).__name__}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unanswered(method, error) from error
        if response.status >= 400:
            raise failure(response.status, content, resource, name, creating=method == "POST")
        answer: RawObject = orjson.loads(content)
        return answer

    @staticmethod
    def _unanswered(method: str, error: BaseException) -> LableaseError:
        kind = Unavailable if method == "GET" else OutcomeUnknown
        return kind(f"API server did not answer a {method}: {type(error).__name__}")

    def _url(self, path: str, query: dict[str, str]) -> yarl.URL:
        return yarl.URL(f"{self.config.server}{path}{'?' + urlencode(query) if query else ''}", encoded=True)

    def _headers(self) -> dict[str, str]:
        now = clock.monotonic()
        if now - self._bearer_read > TOKEN_SECONDS:
            self._bearer, self._bearer_read = self.config.bearer(), now
        headers = {"User-Agent": self._user_agent, "Accept": "application/json", "Accept-Encoding": "identity"}
        return headers | ({"Authorization": f"Bearer {self._bearer}"} if self._bearer else {})


def _only(name: str | None) -> dict[str, str]:
    """Return the query that a permission for one name of a resource needs."""
    return {} if name is None else {"fieldSelector": f"metadata.name={name}"}


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Split a watch into lines of any length; an object may be far larger than aiohttp's line limit."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


async def connect(kubeconfig: Path | None, user_agent: str = "lablease", context: str | None = None) -> KubeApi:
    """Open a session to the API server of a kubeconfig, or of the pod that we run in. Nothing is sent yet.

    Raises:
        InvalidField: the kubeconfig is not usable.
    """
    config = await asyncio.to_thread(load, kubeconfig, context)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
    return KubeApi(config, session, user_agent)
