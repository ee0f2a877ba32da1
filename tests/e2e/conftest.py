"""One lab per test session (per worker, with -n), real processes only; its record is checked at the end."""

import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from lablease.testing.history import check
from lablease.testing.stack import Stack, lab
from lablease.testing.upstream import Missing, Upstream, find

LOG_TAIL_BYTES = 6000

# Under nohup the signal is ignored here, and so in every command that a shell of a lease runs: none would hear the end.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

_LAB: list[Stack] = []
"""The lab of this session, for the report of a failed test."""


_SEEN = [0]
"""How many processes there were before this test."""


@pytest.fixture(scope="session")
def upstream() -> Upstream:
    """The published 0.9.0 packages."""
    try:
        return find()
    except Missing as missing:
        pytest.fail(str(missing), pytrace=False)


@pytest.fixture(scope="session")
def runtime() -> Iterator[Path]:
    """A folder with a short path, for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="ll-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, runtime: Path, upstream: Upstream) -> Iterator[Stack]:
    """A lab with operator, router and front end, each with its own service account."""
    with lab(tmp_path_factory.mktemp("lab"), runtime, upstream) as running:
        _LAB.append(running)
        running.start_services()
        yield running
        print(check(running))
        _LAB.clear()


@pytest.fixture(autouse=True)
def _end_what_was_started(request: pytest.FixtureRequest) -> Iterator[None]:
    """End the processes that a test started, so that they load no other test; the services go on."""
    if _LAB:
        _SEEN[0] = len(_LAB[0].processes.started)
    yield
    if "stack" in request.fixturenames:
        running: Stack = request.getfixturevalue("stack")
        services = {process.pid for process in running.running.values()}
        for process in reversed(running.processes.started):
            if process.pid not in services and process.name not in running.kept and process.alive:
                process.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show under a test that failed how the services ended, and the processes of this test."""
    report = yield
    if report.failed and _LAB:
        for process in (*_LAB[0].running.values(), *_LAB[0].processes.started[_SEEN[0] :]):
            tail = process.text()[-LOG_TAIL_BYTES:]
            state = "alive" if process.alive else f"exit {process.popen.returncode}"
            report.sections.append((f"{process.name} ({state}) {process.log}", tail))
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What must be idle for five minutes begins first, after what restarts services, and is looked at last."""
    restarts, begins, others, looks = range(4)

    def turn(item: pytest.Item) -> int:
        if item.path.stem == "test_frontend_raw_restart":
            return restarts
        return {"test_idle_things_were_started": begins, "test_five_idle_minutes_cost_no_connection": looks}.get(
            item.name, others
        )

    items.sort(key=turn)
