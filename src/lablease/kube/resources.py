"""The resources that we read and write, and where the API server has them."""

from dataclasses import dataclass
from urllib.parse import quote

from lablease.model.meta import GROUP, VERSION


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object: its group (empty: the core group), version, plural in paths, and kind."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of the collection, of one object or of its subresource.

        Without a namespace a namespaced resource is addressed in all namespaces. A name may come from a peer: it stays
        one segment.
        """
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace is not None else ""
        parts = [quote(part, safe="") for part in (name, subresource) if part is not None]
        return "/".join([f"{root}{scope}/{self.plural}", *parts])


LEASES = Resource(GROUP, VERSION, "leases", "Lease")
EXPORTERS = Resource(GROUP, VERSION, "exporters", "Exporter")
CLIENTS = Resource(GROUP, VERSION, "clients", "Client")
POLICIES = Resource(GROUP, VERSION, "exporteraccesspolicies", "ExporterAccessPolicy")
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
COORDINATION_LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
