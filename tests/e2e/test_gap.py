"""A stock exporter takes a lease up only after it was told that the one before is over."""

import itertools
import re

import pytest

from lablease.testing import configs
from lablease.testing.boards import stock_drivers
from lablease.testing.kube import Watch, holder, is_true, status_of
from lablease.testing.stack import Stack
from lablease.testing.waiting import eventually

LEASES = 200


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_leases_back_to_back_each_get_their_gap(stack: Stack) -> None:
    exporter, client = stack.make_exporter(), stack.make_client()
    process = stack.start_stock_exporter(exporter, stock_drivers(exporter.name, stack.device_log))
    stem = stack.name("backtoback")
    names = [f"{stem}-{number:03}" for number in range(LEASES)]  # within a second the order is that of the names
    with stack.kube.watching("leases") as leases, stack.kube.watching("exporters") as exporters:
        for name in names:  # all wait from the beginning: each end is the next one's begin
            stack.kube.create("leases", configs.lease(name, client.name, {"board": exporter.name}, duration="1h"))
        for name in names:
            leases.first(name, lambda item: is_true(item, "Ready"), "Ready", within_seconds=10)
            until_taken_up(exporters, exporter.name, name)
            stack.release(name)
        stack.until_free(exporter.name)

    told = [line for line in process.text().splitlines() if "leased" in line or "new lease" in line]
    taken_up = re.findall(r"Starting new lease: (\S+)", process.text())
    assert taken_up == names, told[-20:]
    # Its own words for each message of its Status stream: leased under a name, or not leased.
    words = re.findall(r"Currently leased by \S+ under (\S+)|(Currently not leased)", process.text())
    said = [name or "gap" for name, _ in words]
    for earlier, later in itertools.pairwise(said):
        assert earlier == later or "gap" in (earlier, later), (earlier, later)
    assert [name for index, name in enumerate(said) if name != "gap" and said[index - 1] != name] == names
    assert process.alive


def until_taken_up(exporters: Watch, exporter: str, lease: str) -> None:
    """Wait until the exporter reports LEASE_READY while this lease holds it."""

    def look() -> bool:
        last = exporters.of(exporter)[-1:]
        return any(
            holder(seen.item) == lease and status_of(seen.item).get("exporterStatus") == "LeaseReady" for seen in last
        )

    eventually(look, f"{exporter} is ready for {lease}", within_seconds=10)
