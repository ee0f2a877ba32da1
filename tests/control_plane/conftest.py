"""One real API server for all tests of this folder: own ports, fresh data, CRDs and RBAC applied."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lablease.embedded.control_plane import ControlPlane
from lablease.embedded.testing import control_plane as run_control_plane


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder: Path = tmp_path_factory.mktemp("control-plane")
    with run_control_plane(folder) as running:
        yield running
