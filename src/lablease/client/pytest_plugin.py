"""pytest plugin: the fixture ``lease`` is a leased exporter, for the whole run of tests.

    def test_boots(lease):
        power = lease.driver("power", PowerClient)
        lease.run(power.cycle())

Inside ``lablease shell`` or ``jmp shell`` the exporter of that shell is used; otherwise one is leased with the
options below, which can stand in the configuration file too.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lablease.client.sync import Board

_OPTIONS = {
    "selector": "labels of the exporter to lease, such as board=rpi4",
    "name": "name of the exporter to lease",
    "duration": "for how long to lease it: 30m (default), 1h30m, PT1H",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--lablease-selector``, ``--lablease-name`` and ``--lablease-duration``, and the same as ini options."""
    group = parser.getgroup("lablease", "leased lab hardware")
    for option, text in _OPTIONS.items():
        group.addoption(f"--lablease-{option}", default=None, help=text)
        parser.addini(f"lablease_{option}", text)


@pytest.fixture(scope="session")
def lease(request: pytest.FixtureRequest) -> Generator[Board]:
    """Return a leased exporter as ``lablease.client.sync.Board``; released when all tests are done."""
    from lablease.client import sync
    from lablease.client.durations import parse_duration

    host = os.environ.get("JUMPSTARTER_HOST")
    if host:
        with sync.here(host) as board:
            yield board
        return
    selector, name = _option(request.config, "selector"), _option(request.config, "name")
    if not selector and not name:
        pytest.fail("no exporter: run inside `lablease shell`, or give --lablease-selector or --lablease-name", False)
    duration = parse_duration(_option(request.config, "duration") or "30m")
    with sync.lease(selector, exporter_name=name, duration=duration) as board:
        yield board


def _option(config: pytest.Config, option: str) -> str:
    value = config.getoption(f"--lablease-{option}") or config.getini(f"lablease_{option}")
    return str(value or "")
