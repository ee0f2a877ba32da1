"""Print what a lease costs the API server: writes, writes without effect and reads of our services, per lease.

Counted from the API server's own audit log, for leases that are granted at once, without hooks, released by their
client. What admins and the kubelet of nobody do is not counted; what our services do to Secrets, Events and
coordination Leases is printed apart.
"""

import argparse
import asyncio
import json
import multiprocessing
import platform
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lablease.testing.fakes import FakeExporter, Speaker, fake_client
from lablease.testing.kube import Json
from lablease.testing.stack import Identity, Stack, lab
from lablease.testing.upstream import Missing, Upstream, find

OURS = "jumpstarter.dev"
SERVICES = "system:serviceaccount:lablease-system:"
WRITES = {"create", "update", "patch", "delete"}
TARGET = (8, 0, 0)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--leases", type=int, default=50)
    leases = arguments.parse_args().leases
    print(f"{platform.machine()}, {multiprocessing.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="ll-", dir="/tmp") as runtime:
        folder = Path(runtime)
        try:
            upstream = find()
        except Missing as missing:
            print(f"the published peers are left out: {missing}")
            upstream = None
        with lab(folder / "lab", folder, upstream or Upstream(folder)) as stack:
            stack.start_services()
            with_stubs(stack, leases)
            if upstream is not None:
                with_published_peers(stack, max(leases // 10, 3))


def with_stubs(stack: Stack, leases: int) -> None:
    """Exporter and client are bare stubs: nothing but the protocol."""
    board, client = stack.make_exporter(), stack.make_client()

    async def use() -> None:
        async with (
            FakeExporter(speaker(stack, board), stack.endpoint, stack.ca) as exporter,
            fake_client(speaker(stack, client), stack.endpoint, stack.ca) as caller,
        ):
            await asyncio.to_thread(stack.until_free, board.name)
            begun = position(stack)
            for _ in range(leases):
                lease = await caller.create(f"board={board}")
                await caller.until_ready(lease.name)
                await exporter.until_taken(lease.name.rsplit("/", 1)[-1])
                await caller.release(lease.name)
                await asyncio.to_thread(stack.until_free, board.name)
            report("stub client, stub exporter", leases, Tally(stack, begun, board.name))

    asyncio.run(use())


def with_published_peers(stack: Stack, leases: int) -> None:
    """`jmp shell -- j power on` with `jmp run`, both 0.9.0."""
    board, client = stack.make_exporter(), stack.make_client()
    stack.start_stock_exporter(board, {"power": {"type": "jumpstarter_driver_power.driver.MockPower"}})
    begun = position(stack)
    for _ in range(leases):
        stack.shell(client, "-l", f"board={board}", "--", "j", "power", "on").ok()
        stack.until_free(board.name)
    report("jmp shell 0.9.0, jmp run 0.9.0", leases, Tally(stack, begun, board.name))


def speaker(stack: Stack, identity: Identity) -> Speaker:
    return Speaker(identity.kind, stack.namespace, identity.name, identity.token)


def position(stack: Stack) -> int:
    """Return how long the audit log is now."""
    return stack.control.audit_log.stat().st_size


class Tally:
    """What the log says since a position in it about leases and one exporter.

    What is written about other exporters (that one has gone offline, say) is no cost of these leases.
    """

    def __init__(self, stack: Stack, begun: int, board: str) -> None:
        self._board = board
        self.writes: Counter[str] = Counter()
        self.without_effect: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.lists: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        versions: dict[tuple[str, str], str] = {}
        for since, entry in entries(stack.control.audit_log, begun):
            self._add(entry, versions, since)

    def _add(self, entry: Json, versions: dict[tuple[str, str], str], since: bool) -> None:
        who = str(entry["user"]["username"])
        counts = since and who.startswith(SERVICES)
        reference: Json = entry.get("objectRef") or {}
        what = "/".join(str(reference[key]) for key in ("resource", "subresource") if key in reference)
        label = f"{who.removeprefix(SERVICES).removeprefix('lablease-')} {entry['verb']} {what}"
        if reference.get("resource") == "exporters" and reference.get("name", self._board) != self._board:
            return
        if reference.get("apiGroup") != OURS:
            label = " ".join(filter(None, (label, str(reference.get("apiGroup", "")))))
            if counts:
                self.others[label] += 1
        elif entry["verb"] in WRITES:
            outcome = self._outcome(entry, what.partition("/")[0], versions)
            if counts:
                outcome[label] += 1
        elif counts and entry["verb"] == "get":
            self.reads[label] += 1
        elif counts and entry["verb"] == "list":
            self.lists[label] += 1

    def _outcome(self, entry: Json, plural: str, versions: dict[tuple[str, str], str]) -> Counter[str]:
        """Say where a write belongs; one that left the object at its version had no effect."""
        if entry["responseStatus"]["code"] >= 300:
            return self.refused
        answer: Json = entry.get("responseObject") or {}
        meta: Json = answer.get("metadata") or {}
        key, version = (plural, str(meta.get("name"))), str(meta.get("resourceVersion"))
        same = versions.get(key) == version
        versions[key] = version
        return self.without_effect if same else self.writes


def entries(log: Path, begun: int) -> Iterator[tuple[bool, Json]]:
    """Yield the completed requests of the log, and whether each stands behind the position."""
    with log.open("rb") as file:
        while line := file.readline():
            entry = json.loads(line)
            if entry["stage"] == "ResponseComplete":
                yield file.tell() > begun, entry


def report(who: str, leases: int, tally: Tally) -> None:
    """Print the three figures and what they consist of."""
    totals = (tally.writes, tally.without_effect, tally.reads + tally.lists)
    per_lease = " / ".join(f"{counter.total() / leases:.2f}" for counter in totals)
    print(f"\n{who}, {leases} leases: {per_lease} writes / without effect / reads per lease (target {TARGET})")
    for title, counter in (
        ("writes", tally.writes),
        ("without effect", tally.without_effect),
        ("refused (409 and the like)", tally.refused),
        ("reads of one object", tally.reads),
        ("reads of a whole kind", tally.lists),
        ("other resources", tally.others),
    ):
        for label, count in sorted(counter.items()):
            print(f"  {title:28}{label:48}{count / leases:8.2f}")


if __name__ == "__main__":
    main()
