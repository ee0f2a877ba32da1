"""Print how long a lease takes from its creation to Ready, beside the raw writes that it cannot do without.

One at a time, a free exporter is there: the time is three round trips to the API server (create, take the slot, say
so) and what we add to them. Both are measured alternately in the same run, since machines differ and get busy.
"""

import argparse
import asyncio
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from lablease.testing import configs
from lablease.testing.fakes import FakeExporter, Speaker
from lablease.testing.kube import Json, Kube, is_true
from lablease.testing.stack import Identity, Stack, lab
from lablease.testing.upstream import Upstream

RAW_NAMESPACE = "raw"
BUDGET_P50_MS, BUDGET_P99_MS = 3.0, 10.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--leases", type=int, default=300)
    leases = arguments.parse_args().leases
    with tempfile.TemporaryDirectory(prefix="ll-", dir="/tmp") as runtime:
        folder = Path(runtime)
        with lab(folder / "lab", folder, Upstream(folder)) as stack:
            stack.start_services()
            board, client = stack.make_exporter(), stack.make_client()
            with exporter_process(stack, board):
                stack.until_free(board.name)
                report(leases, *measure(stack, board, client, leases))


def measure(stack: Stack, board: Identity, client: Identity, leases: int) -> tuple[list[float], list[list[float]]]:
    """Return the times of the leases, and of the raw writes of each round (seconds)."""
    raw = Raw(stack)
    warm_up = 5
    granted: list[float] = []
    floor: list[list[float]] = []
    with Changes(stack.kube) as changes:
        for number in range(leases + warm_up):
            times = raw.round(number)
            item = configs.lease(f"bench-{number}", client.name, {"board": board.name}, duration="1h")
            begun = time.perf_counter()
            stack.kube.create("leases", item)
            changes.until_ready(item["metadata"]["name"])
            took = time.perf_counter() - begun
            stack.release(item["metadata"]["name"])
            stack.until_free(board.name)
            if number >= warm_up:
                granted.append(took)
                floor.append(times)
    return granted, floor


class Raw:
    """The same writes with nobody behind them, in a namespace that no operator looks at."""

    def __init__(self, stack: Stack) -> None:
        stack.kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": RAW_NAMESPACE}})
        self._kube = Kube(stack.kube.access, RAW_NAMESPACE)
        self._kube.create("exporters", configs.exporter("raw"))

    def round(self, number: int) -> list[float]:
        """Create a lease, patch the status of an exporter, patch the status of the lease; return the three times."""
        name = f"raw-{number}"
        slot = {"status": {"leaseRef": {"name": name}, "grant": number + 1}}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Ready",
            "message": "An exporter was granted",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
        status = {
            "status": {"ended": False, "exporterRef": {"name": "raw"}, "grant": number + 1, "conditions": [ready]}
        }
        return [
            timed(lambda: self._kube.create("leases", configs.lease(name, "x", {"board": "raw"}, duration="1h"))),
            timed(lambda: self._kube.patch("exporters", "raw", slot, "status")),
            timed(lambda: self._kube.patch("leases", name, status, "status")),
        ]


def timed(write: object) -> float:
    begun = time.perf_counter()
    write()  # type: ignore[operator]
    return time.perf_counter() - begun


class Changes:
    """A watch on leases, read by the thread that waits: nothing else runs in this process meanwhile."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._connection = kube.connect()

    def __enter__(self) -> Self:
        path = self._kube.path("leases")
        version = self._kube.request("GET", f"{path}?limit=1")["metadata"]["resourceVersion"]
        headers = self._kube.headers("application/json")
        self._connection.request("GET", f"{path}?watch=true&resourceVersion={version}", headers=headers)
        self._lines = self._connection.getresponse()
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def until_ready(self, name: str) -> Json:
        """Return the lease as soon as an event shows it Ready."""
        for line in self._lines:
            item: Json = json.loads(line)["object"]
            if item["metadata"]["name"] == name and is_true(item, "Ready"):
                return item
        raise AssertionError("the watch ended")


@contextmanager
def exporter_process(stack: Stack, board: Identity) -> Generator[None]:
    """Run an exporter of bare stubs in a process of its own."""
    speaker = Speaker(board.kind, stack.namespace, board.name, board.token)
    process = multiprocessing.get_context("spawn").Process(
        target=run_exporter, args=(speaker, stack.endpoint, stack.ca), daemon=True
    )
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def run_exporter(speaker: Speaker, endpoint: str, ca: bytes) -> None:
    """Serve until the process is ended."""

    async def serve() -> None:
        async with FakeExporter(speaker, endpoint, ca):
            await asyncio.Event().wait()

    asyncio.run(serve())


def report(leases: int, granted: list[float], floor: list[list[float]]) -> None:
    """Print a table: p50, p99 and the largest, in milliseconds."""
    print(
        f"{platform.machine()}, {multiprocessing.cpu_count()} cores, Python {platform.python_version()}, {leases} leases"
    )
    print(f"{'':34}{'p50':>9}{'p99':>9}{'max':>9}  ms")
    for index, what in enumerate(("raw create", "raw status patch (exporter)", "raw status patch (lease)")):
        row(what, [times[index] for times in floor])
    total = [sum(times) for times in floor]
    row("raw: all three", total)
    row("create -> Ready", granted)
    added_p50 = 1000 * (percentile(granted, 50) - percentile(total, 50))
    added_p99 = 1000 * (percentile(granted, 99) - percentile(total, 99))
    print(f"added to the raw writes: {added_p50:.1f} ms at p50 (budget {BUDGET_P50_MS:g}),", end=" ")
    print(f"{added_p99:.1f} ms at p99 (budget {BUDGET_P99_MS:g})")


def row(what: str, seconds: list[float]) -> None:
    values = (percentile(seconds, 50), percentile(seconds, 99), max(seconds))
    print(f"{what:34}" + "".join(f"{1000 * value:9.1f}" for value in values))


def percentile(seconds: list[float], percent: int) -> float:
    """Return a percentile; of fewer than a hundred values the upper ones are the largest."""
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    main()
