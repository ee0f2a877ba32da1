"""What a front end counts (``docs/metrics.md`` says which question each figure answers)."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Figures:
    """Counters of one front end process. Labels are names of methods and codes, never of objects."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.streams = Gauge(
            "lablease_frontend_streams", "Open Status and Listen streams", ["method"], registry=registry
        )
        self.waiting = Gauge(
            "lablease_frontend_waiting_halves", "Clients' halves that wait at routers", registry=registry
        )
        self.routers = Gauge("lablease_frontend_routers", "Routers that take new tunnels", registry=registry)
        self._calls = Counter("lablease_frontend_calls", "Calls that ended", ["method", "code"], registry=registry)
        self._seconds = Histogram(
            "lablease_frontend_call_seconds",
            "Time from a call's arrival to its answer; streams are not in it",
            ["method"],
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 30, 60),
            registry=registry,
        )

    def answered(self, method: str, code: str, seconds: float | None) -> None:
        """A call ended; ``seconds`` is None for a stream."""
        self._calls.labels(method, code).inc()
        if seconds is not None:
            self._seconds.labels(method).observe(seconds)
