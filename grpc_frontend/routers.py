"""Which router a tunnel goes through, as a pure choice."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lablease.model.keys import Key


@dataclass(frozen=True, slots=True)
class Router:
    """A router that both peers can reach at ``endpoint`` (host:port). Labels restrict it to exporters that have them."""

    endpoint: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


def choose(routers: Iterable[Router], exporter_labels: Mapping[str, str], lease: Key) -> Router | None:
    """Return the router for a lease's tunnels, or None if none fits.

    Of those whose labels the exporter all has, the ones with most labels; among equals by rendezvous hashing, so that
    all front ends choose alike and the loss of one router moves only its own leases.
    """
    fitting = [router for router in routers if router.labels.items() <= exporter_labels.items()]
    return max(fitting, key=lambda router: (len(router.labels), _weight(router, lease)), default=None)


def _weight(router: Router, lease: Key) -> bytes:
    return hashlib.sha256(f"{router.endpoint}\0{lease}".encode()).digest()
