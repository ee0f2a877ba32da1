"""The API server as a person with kubectl sees it: an admin's own small client, none of the product's code."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from lablease.embedded.kubeconfig import Access
from lablease.testing.waiting import eventually

Json = dict[str, Any]

GROUP = "/apis/jumpstarter.dev/v1alpha1"
BUSY_SECONDS = 0.2
IDLE_SECONDS = 30.0
"""A connection that was unused for longer may be closed by the server at any moment (it does so after 90 s)."""


class Refused(Exception):
    """The API server said no."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(slots=True)
class Kube:
    """One identity in one namespace. Each thread has a connection of its own, kept open."""

    access: Access
    namespace: str
    _local: threading.local = field(default_factory=threading.local)

    def path(self, plural: str, name: str = "", subresource: str = "") -> str:
        """Return the path of ours (clients, exporters, leases, exporteraccesspolicies) or of a core resource."""
        core = plural in {"secrets", "configmaps", "events", "serviceaccounts"}
        root = "/api/v1" if core else GROUP
        return "/".join(part for part in (root, "namespaces", self.namespace, plural, name, subresource) if part)

    def request(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Json:
        """Send one request.

        Raises:
            Refused: any answer from 300 on.
        """
        data = None if body is None else json.dumps(body)
        while True:
            status, text = self._exchange(method, path, data, content_type)
            if status != http.client.TOO_MANY_REQUESTS:
                break
            time.sleep(BUSY_SECONDS)  # as client-go does: the server did nothing and asks for patience
        parsed: Json = json.loads(text) if text else {}
        if status >= 300:
            raise Refused(status, str(parsed.get("reason", "")), str(parsed.get("message", "")))
        return parsed

    def _exchange(self, method: str, path: str, data: str | None, content_type: str) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request(method, path, data, self.headers(content_type))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens it again
            raise

    def get(self, plural: str, name: str) -> Json:
        """Read one object."""
        return self.request("GET", self.path(plural, name))

    def find(self, plural: str, name: str) -> Json | None:
        """Read one object, None if there is none."""
        try:
            return self.get(plural, name)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def list(self, plural: str) -> list[Json]:
        """Read all objects of the namespace."""
        listed = self.request("GET", self.path(plural))
        kind = {"kind": str(listed["kind"]).removesuffix("List"), "apiVersion": listed["apiVersion"]}
        return [{**kind, **item} for item in listed["items"]]

    def create(self, plural: str, body: Mapping[str, object]) -> Json:
        """Create an object."""
        return self.request("POST", self.path(plural), body)

    def patch(self, plural: str, name: str, body: Mapping[str, object], subresource: str = "") -> Json:
        """Merge-patch an object."""
        return self.request("PATCH", self.path(plural, name, subresource), body, "application/merge-patch+json")

    def delete(self, plural: str, name: str) -> None:
        """Delete an object; it may be gone already."""
        try:
            self.request("DELETE", self.path(plural, name))
        except Refused as refused:
            if refused.status != 404:
                raise

    def until(
        self, plural: str, name: str, holds: Callable[[Json], object], what: str, within_seconds: float = 15.0
    ) -> Json:
        """Return the object once ``holds`` says so of it.

        Raises:
            NeverHappened: not in time.
        """
        last: list[Json] = []

        def look() -> Json | None:
            found = self.find(plural, name)
            last[:] = [found] if found else []
            return found if found is not None and holds(found) else None

        try:
            return eventually(look, f"{plural}/{name}: {what}", within_seconds)
        except AssertionError as never:
            never.add_note(json.dumps(last[0], indent=1)[:4000] if last else "there is no such object")
            raise

    @contextmanager
    def watching(self, plural: str) -> Generator["Watch"]:
        """Record every change of a kind with the moment at which it arrived."""
        version = str(self.request("GET", self.path(plural) + "?limit=1")["metadata"]["resourceVersion"])
        watch = Watch(self, plural, version)
        watch.start()
        try:
            yield watch
        finally:
            watch.stop()

    def headers(self, content_type: str) -> dict[str, str]:
        """Return what goes with a request of this identity."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        if (bearer := self.access.bearer()) is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        return headers

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        now = time.monotonic()
        if connection is None:
            connection = self._local.connection = self.connect()
        elif now - self._local.used > IDLE_SECONDS:
            connection.close()  # the next request opens it again
        self._local.used = now
        return connection

    def connect(self) -> http.client.HTTPConnection:
        """Open a connection of its own, for a watch."""
        address = urlsplit(self.access.server)
        host, port = address.hostname or "127.0.0.1", address.port or 443
        if address.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=30)
        return http.client.HTTPSConnection(host, port, timeout=30, context=self.access.ssl_context())


@dataclass(frozen=True, slots=True)
class Seen:
    """One event: when it arrived (``time.time`` and ``time.monotonic``), what it was, and the object."""

    wall: float
    monotonic: float
    kind: str
    item: Json


class Watch:
    """Changes of one kind in one namespace, in order."""

    def __init__(self, kube: Kube, plural: str, version: str) -> None:
        self.seen: list[Seen] = []
        self._kube = kube
        self._query = urlencode({"watch": "true", "resourceVersion": version, "timeoutSeconds": "3600"})
        self._plural = plural
        self._connection = kube.connect()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._read, name=f"watch {plural}", daemon=True)
        self._stopping = False

    def start(self) -> None:
        """Open the watch; events from now on are recorded."""
        self._connection.timeout = 3600
        self._connection.request(
            "GET", f"{self._kube.path(self._plural)}?{self._query}", headers=self._kube.headers("application/json")
        )
        self._socket = self._connection.sock  # the connection lets go of it when the answer has no length
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self._thread.start()

    def stop(self) -> None:
        """Close it."""
        self._stopping = True
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reader, which close alone does not
        self._thread.join(timeout=5)
        self._answer.close()

    def of(self, name: str) -> list[Seen]:
        """Return the events of one object."""
        return [seen for seen in list(self.seen) if seen.item["metadata"]["name"] == name]

    def first(self, name: str, holds: Callable[[Json], object], what: str, within_seconds: float = 15.0) -> Seen:
        """Return the first event of an object for which ``holds``.

        Raises:
            NeverHappened: it did not come in time.
        """
        return eventually(
            lambda: next((seen for seen in self.of(name) if holds(seen.item)), None),
            f"{self._plural}/{name}: {what}",
            within_seconds,
        )

    def _read(self) -> None:
        try:
            for line in self._answer:
                event = json.loads(line)
                self.seen.append(Seen(time.time(), time.monotonic(), event["type"], event["object"]))
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            if not self._stopping:
                raise


def status_of(item: Mapping[str, Any]) -> Json:
    """Return the status of an object; an empty one where nothing was written yet."""
    status: Json = item.get("status") or {}
    return status


def holder(exporter: Mapping[str, Any]) -> str:
    """Return the name of the lease in the slot of an exporter, empty if there is none."""
    reference: Json = status_of(exporter).get("leaseRef") or {}
    return str(reference.get("name", ""))


def conditions(item: Mapping[str, Any]) -> list[Json]:
    """Return the conditions of an object in their order."""
    listed: list[Json] = status_of(item).get("conditions") or []
    return listed


def condition(item: Mapping[str, Any], kind: str) -> Json:
    """Return a condition of an object; an empty one where it has none."""
    nothing: Json = {}
    return next((entry for entry in conditions(item) if entry["type"] == kind), nothing)


def is_true(item: Mapping[str, Any], kind: str) -> bool:
    """Say whether a condition is True."""
    return condition(item, kind).get("status") == "True"


def ended(item: Mapping[str, Any]) -> bool:
    """Say whether a lease has ended."""
    return bool(status_of(item).get("ended"))
