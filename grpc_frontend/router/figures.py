"""What the router counts (``docs/metrics.md`` says which question each figure answers)."""

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lablease.grpc_frontend.router.pairing import Reason, Refusal
from lablease.grpc_frontend.router.tunnel import Tunnel


class Figures:
    """Counters of one router process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tunnels = Gauge("lablease_router_tunnels", "Tunnels that are open", registry=registry)
        self.pending = Gauge(
            "lablease_router_pending_halves", "Halves that wait for their other half", registry=registry
        )
        self._refused = Counter(
            "lablease_router_refused_halves", "Halves that were not let in", ["reason"], registry=registry
        )
        self._ended = Counter("lablease_router_ended_tunnels", "Tunnels that ended", ["reason"], registry=registry)
        self._bytes = Counter("lablease_router_relayed_bytes", "Bytes of frames relayed", ["to"], registry=registry)
        self._pair = Histogram(
            "lablease_router_pair_seconds",
            "Time that the first half waited for the second",
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60, 300, 1800),
            registry=registry,
        )
        self._counted: WeakKeyDictionary[Tunnel, tuple[int, int]] = WeakKeyDictionary()

    def refused(self, refusal: Refusal) -> None:
        """A half was not let in."""
        self._refused.labels(refusal).inc()

    def paired(self, waited_seconds: float) -> None:
        """A tunnel opened."""
        self._pair.observe(waited_seconds)

    def closed(self, tunnel: Tunnel, reason: Reason) -> None:
        """A tunnel ended."""
        self._ended.labels(reason).inc()
        self.flow((tunnel,))

    def flow(self, tunnels: Iterable[Tunnel]) -> None:
        """Count the bytes since the last look at these tunnels: not per frame, frames are the hot path."""
        for tunnel in tunnels:
            to_exporter, to_client = self._counted.get(tunnel, (0, 0))
            self._bytes.labels("exporter").inc(tunnel.bytes_to_exporter - to_exporter)
            self._bytes.labels("client").inc(tunnel.bytes_to_client - to_client)
            self._counted[tunnel] = (tunnel.bytes_to_exporter, tunnel.bytes_to_client)
