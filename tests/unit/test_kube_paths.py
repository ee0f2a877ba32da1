"""Names come from peers: whatever they hold, they stay one segment of the path."""

import pytest

from lablease.kube.resources import LEASES


@pytest.mark.parametrize("name", ["a/status", "?watch=true", "a#b", "a%2Fb", "a b"])
def test_a_name_stays_one_segment(name: str) -> None:
    path = LEASES.path("lab", name)
    collection = LEASES.path("lab")
    segment = path.removeprefix(f"{collection}/")
    assert path != segment
    assert not set("/?# ") & set(segment)
    assert "%2F" not in name or "%252F" in segment


def test_a_plain_name_is_not_changed() -> None:
    assert LEASES.path("lab", "board-1.x", "status").endswith("/namespaces/lab/leases/board-1.x/status")
