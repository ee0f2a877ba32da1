"""Many want what few have: one holder at a time, first come first served, whatever gets lost on the way."""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from lablease.testing.boards import native_drivers, stock_drivers
from lablease.testing.fakes import FakeClient, FakeExporter, Speaker, fake_client
from lablease.testing.history import check
from lablease.testing.kube import Json, Seen, Watch, ended, holder, is_true
from lablease.testing.processes import Process
from lablease.testing.proxy import CuttingProxy, Loss
from lablease.testing.stack import SCRIPTS, Identity, Stack, lab
from lablease.testing.upstream import Upstream

STOCK_CLIENTS, STOCK_LEASES = 5, 10
OUR_CLIENTS, OUR_LEASES = 5, 30
DECISION_SECONDS = 0.25
"""An asker who came so shortly before a grant need not have been part of that decision."""


# ---- two hundred leases ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_clients_compete_for_two_exporters(stack: Stack, tmp_path: Path) -> None:
    pool = {"pool": stack.name("pool")}
    stock, ours = stack.make_exporter(labels=pool), stack.make_exporter(labels=pool)
    stack.start_stock_exporter(stock, stock_drivers(stock.name, stack.device_log))
    stack.start_agent(ours, native_drivers(stack.device_log, tmp_path / "images"))
    selector = "pool=" + pool["pool"]

    with stack.kube.watching("leases") as leases, stack.kube.watching("exporters") as exporters:
        runs = [start_stock(stack, selector) for _ in range(STOCK_CLIENTS)]
        runs += [start_ours(stack, selector) for _ in range(OUR_CLIENTS)]
        for run in runs:
            assert run.wait(240) == 0, run.text()[-4000:]
        for board in (stock, ours):
            stack.until_free(board.name)

    used = [json.loads(line) for run in runs for line in run.text().splitlines() if line.startswith("{")]
    assert len(used) == STOCK_CLIENTS * STOCK_LEASES + OUR_CLIENTS * OUR_LEASES
    assert {line["exporter"] for line in used} == {stock.name, ours.name}
    names = {line["lease"] for line in used}
    assert_no_overlap(leases, names)
    assert_in_order(leases, exporters, names)
    # Each switched on and off exactly once, and nobody in between.
    for board in (stock, ours):
        calls = [line["method"] for line in stack.device_calls(board.name)]
        assert calls == ["on", "off"] * (len(calls) // 2)
    assert sum(len(stack.device_calls(board.name)) for board in (stock, ours)) == 2 * len(used)


def start_stock(stack: Stack, selector: str) -> Process:
    client = stack.make_client()
    argv = [stack.upstream.python, str(SCRIPTS / "lessee.py"), str(client.config), selector, str(STOCK_LEASES)]
    return stack.processes.start(f"stock-{client}", argv, stack.stock_environment())


def start_ours(stack: Stack, selector: str) -> Process:
    client = stack.make_client()
    argv = [sys.executable, str(SCRIPTS / "own_lessee.py"), str(client.config), selector, str(OUR_LEASES)]
    return stack.processes.start(f"ours-{client}", argv, stack.our_environment())


@dataclass(frozen=True, slots=True)
class Held:
    """One grant, from the first event that shows it to the first that shows its end."""

    lease: str
    exporter: str
    grant: int
    asked: Seen
    began: Seen
    over: Seen

    @property
    def rank(self) -> tuple[str, str]:
        """What first come first served goes by: creation, then name."""
        return str(self.asked.item["metadata"]["creationTimestamp"]), self.lease


def holdings(watch: Watch, names: set[str]) -> list[Held]:
    """Return the grants of these leases in the order of their numbers."""
    found: list[Held] = []
    for name in names:
        events = watch.of(name)
        began = next(seen for seen in events if is_true(seen.item, "Ready"))
        over = next(seen for seen in events if ended(seen.item))
        status = began.item["status"]
        found.append(Held(name, status["exporterRef"]["name"], status["grant"], events[0], began, over))
    return sorted(found, key=lambda held: held.grant)


def assert_no_overlap(watch: Watch, names: set[str]) -> None:
    for exporter in {held.exporter for held in holdings(watch, names)}:
        turns = sorted((h for h in holdings(watch, names) if h.exporter == exporter), key=lambda h: h.grant)
        for earlier, later in pairwise(turns):
            assert version(earlier.over.item) < version(later.began.item), (earlier.lease, later.lease)


def version(item: Json) -> int:
    return int(item["metadata"]["resourceVersion"])


def assert_in_order(leases: Watch, exporters: Watch, names: set[str]) -> None:
    """Nobody who came later was served while somebody who came earlier was known to wait."""
    decided = {
        (holder(seen.item), int(seen.item["status"]["grant"])): seen.monotonic
        for seen in reversed(exporters.seen)
        if holder(seen.item)
    }
    turns = holdings(leases, names)
    for index, served in enumerate(turns):
        at = decided[(served.lease, served.grant)]
        passed_over = [
            waiting.lease
            for waiting in turns[index + 1 :]
            # Grants of one decision have the same number, and their writes may come in any order.
            if waiting.grant > served.grant
            and waiting.rank < served.rank
            and waiting.asked.monotonic < at - DECISION_SECONDS
        ]
        assert not passed_over, (served.lease, passed_over)


# ---- the k-th request or answer is lost -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bench:
    """A lab whose services reach the API server through the proxy, and who competes in it."""

    stack: Stack
    proxy: CuttingProxy
    board: Identity
    clients: tuple[Identity, Identity]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, runtime: Path, upstream: Upstream) -> Iterator[Bench]:
    with lab(tmp_path_factory.mktemp("proxied"), runtime, upstream) as stack:
        with CuttingProxy(stack.kube.access) as proxy:
            stack.start_services(api_server=proxy.url)
            yield Bench(stack, proxy, stack.make_exporter(), (stack.make_client(), stack.make_client()))
            stack.processes.stop_all()
        check(stack)


def speaker(stack: Stack, identity: Identity) -> Speaker:
    return Speaker(identity.kind, stack.namespace, identity.name, identity.token)


@pytest.mark.parametrize("loss", list(Loss))
async def test_two_leases_live_whichever_request_or_answer_is_lost(bench: Bench, loss: Loss) -> None:
    stack = bench.stack
    async with (
        FakeExporter(speaker(stack, bench.board), stack.endpoint, stack.ca) as exporter,
        fake_client(speaker(stack, bench.clients[0]), stack.endpoint, stack.ca) as first,
        fake_client(speaker(stack, bench.clients[1]), stack.endpoint, stack.ca) as second,
    ):
        bench.proxy.lose(0, loss)
        await one_after_the_other(bench, exporter, first, second)
        needed = len(bench.proxy.counted)
        assert needed >= 2 * 6, bench.proxy.counted

        for ordinal in range(1, needed + 1):
            bench.proxy.lose(ordinal, loss)
            await one_after_the_other(bench, exporter, first, second)
            assert bench.proxy.lost is not None or len(bench.proxy.counted) < ordinal


async def one_after_the_other(bench: Bench, exporter: FakeExporter, first: FakeClient, second: FakeClient) -> None:
    """Two ask for one board; the second gets it when the first gives it back; in the end it is free."""
    selector = f"board={bench.board}"
    names = [bench.stack.name("life") for _ in range(2)]
    paths = [f"{first.parent}/leases/{name}" for name in names]
    await insist(lambda: first.create(selector, name=names[0]))
    await insist(lambda: first.until_ready(paths[0]))
    await insist(lambda: second.create(selector, name=names[1]))
    await exporter.until_taken(names[0])
    await insist(lambda: first.release(paths[0]))
    await insist(lambda: second.until_ready(paths[1]))
    await exporter.until_taken(names[1])
    await insist(lambda: second.release(paths[1]))
    await asyncio.to_thread(bench.stack.until_free, bench.board.name)
    for name in names:
        assert ended(await asyncio.to_thread(bench.stack.kube.get, "leases", name))


async def insist(attempt: Any, within_seconds: float = 20) -> None:
    """Do as a client does that was told UNAVAILABLE: try again. What it finds done already is done."""
    done = {grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.FAILED_PRECONDITION}
    async with asyncio.timeout(within_seconds):
        while True:
            try:
                await attempt()
            except grpc.aio.AioRpcError as error:
                if error.code() in done:
                    return
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.1)
            else:
                return
