"""The few requests that bring a control plane up: enough of a client for a start-up, and no more.

Everything that runs for longer than a start uses `lablease.kube`.
"""

import http.client
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import yaml

from lablease.embedded.errors import ApiError
from lablease.embedded.kubeconfig import Access
from lablease.embedded.tree import Object, elements, mapping, text

FIELD_MANAGER = "lablease-up"
SERVED_PATIENCE_SECONDS = 30.0
READY_TIMEOUT_SECONDS = 2.0  # a starting API server accepts connections long before it answers
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Api:
    """One API server, one identity; a connection per request."""

    access: Access
    timeout_seconds: float = 15.0

    def request(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> Object:
        """Send one request and return the object of the answer.

        Raises:
            ApiError: the server said no (its status and reason), or did not answer (status 0).
        """
        status, data = self._exchange(method, path, body, content_type)
        try:
            answer: Object = mapping(json.loads(data) if data else None)
        except ValueError:
            answer = {"message": data.decode(errors="replace")[:500]}
        if status >= 300:
            problem = f"{method} {path}: {status} {text(answer, 'message')}"
            raise ApiError(status, text(answer, "reason"), problem)
        return answer

    def ready(self) -> str:
        """Return `ok` when the API server is ready to serve, else what is missing."""
        try:
            prompt = replace(self, timeout_seconds=READY_TIMEOUT_SECONDS)
            status, data = prompt._exchange("GET", "/readyz?verbose", None, "")
        except ApiError as unreachable:
            return unreachable.problem
        if status == 200:
            return "ok"
        failing = [line for line in data.decode(errors="replace").splitlines() if line.startswith("[-]")]
        return "; ".join(failing) or f"HTTP {status}"

    def _exchange(self, method: str, path: str, body: Object | None, content_type: str) -> tuple[int, bytes]:
        address = urlsplit(self.access.server)
        host, port = address.hostname or "", address.port or (443 if address.scheme == "https" else 80)
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        bearer = self.access.bearer()
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        connection = (
            http.client.HTTPSConnection(host, port, timeout=self.timeout_seconds, context=self.access.ssl_context())
            if address.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=self.timeout_seconds)
        )
        try:
            connection.request(
                method, address.path.rstrip("/") + path, json.dumps(body) if body is not None else None, headers
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as failed:
            raise ApiError(0, "Unreachable", f"{self.access.server} does not answer: {failed}") from failed
        finally:
            connection.close()

    def get(self, path: str) -> Object | None:
        """Return the object, or None if there is none."""
        try:
            return self.request("GET", path)
        except ApiError as refused:
            if refused.status == 404:
                return None
            raise

    def apply(self, objects: Iterable[Object]) -> None:
        """Server-side apply, in an order that works: namespaces, CRDs (awaited until served), then the rest as given.

        Raises:
            ApiError: an object was refused; the message names it.
        """
        plurals: dict[str, dict[str, str]] = {}
        ordered = sorted(objects, key=_rank)
        for position, item in enumerate(ordered):
            if _rank(item) > _CRD_RANK and position > 0 and _rank(ordered[position - 1]) <= _CRD_RANK:
                self._await_served(ordered[:position])
            self._apply_one(item, plurals)
        self._await_served(ordered)

    def _apply_one(self, item: Object, plurals: dict[str, dict[str, str]]) -> None:
        version, kind, name = text(item, "apiVersion"), text(item, "kind"), text(item, "metadata", "name")
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if kind not in plurals.get(version, {}):
            listed = elements(self.request("GET", root), "resources")
            names = {text(entry, "kind"): text(entry, "name") for entry in listed if "/" not in text(entry, "name")}
            plurals[version] = names
        if kind not in plurals[version]:
            raise ApiError(404, "NotFound", f"{kind} {name}: the API server has no kind {kind} in {version}")
        namespace = text(item, "metadata", "namespace")
        space = f"/namespaces/{namespace}" if namespace else ""
        query = urlencode({"fieldManager": FIELD_MANAGER, "force": "true"})
        path = f"{root}{space}/{plurals[version][kind]}/{name}?{query}"
        self.request("PATCH", path, item, "application/apply-patch+yaml")

    def _await_served(self, objects: Iterable[Object]) -> None:
        """Wait until every kind can be listed: an established CRD is still answered with 404 or 429 for a moment."""
        crds = [item for item in objects if text(item, "kind") == "CustomResourceDefinition"]
        deadline = time.monotonic() + SERVED_PATIENCE_SECONDS
        while crds:
            spec = mapping(crds[-1], "spec")
            version = text(elements(spec, "versions")[0], "name")
            try:
                self.request("GET", f"/apis/{text(spec, 'group')}/{version}/{text(spec, 'names', 'plural')}?limit=1")
                crds.pop()
            except ApiError as refused:
                if refused.status not in (404, 429) or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)

    def token(self, namespace: str, name: str, lifetime: timedelta) -> str:
        """Return a token for a service account (TokenRequest); the server allows no less than 10 minutes."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": int(lifetime.total_seconds())},
        }
        answer = self.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", body)
        return text(answer, "status", "token")


_CRD_RANK = 1


def _rank(item: Object) -> int:
    return {"Namespace": 0, "CustomResourceDefinition": _CRD_RANK, "ServiceAccount": 2}.get(text(item, "kind"), 3)


def load_manifests(paths: Iterable[Path]) -> list[Object]:
    """Return every object of the YAML files; a folder stands for the `*.yaml` in it, by name."""
    found: list[Object] = []
    for path in paths:
        if path.is_dir():
            found.extend(load_manifests(sorted(path.glob("*.yaml"))))
        else:
            found.extend(item for item in yaml.safe_load_all(path.read_text()) if item)
    return found
