"""Stuck exporters that are made to begin anew, and places in the queue at a bounded cost."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from lablease.errors import Unavailable
from lablease.grpc_frontend.nudges import AGAIN_SECONDS, LASTS_SECONDS, Nudges
from lablease.grpc_frontend.places import Places
from lablease.grpc_frontend.store import Store
from lablease.kube.api import KubeApi
from lablease.model.exporter import Exporter
from lablease.model.keys import Key
from lablease.model.lease import Lease
from lablease.model.meta import Condition, Meta, Truth
from lablease.wire.codec_client import Queued

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BOARD = Key("lab", "board")


def board(stuck: bool) -> Exporter:
    truth = Truth.TRUE if stuck else Truth.FALSE
    return Exporter(Meta(BOARD, "u", "1", 1, NOON), conditions=(Condition("Stuck", truth, "Because", "", NOON),))


def served(nudges: Nudges, exporter: Exporter) -> bool:
    try:
        nudges.check(exporter)
    except Unavailable:
        return False
    return True


def test_an_exporter_that_is_not_stuck_is_never_refused() -> None:
    assert served(Nudges(lambda: 0.0), board(stuck=False))


def test_a_stuck_exporter_is_refused_until_it_registers() -> None:
    nudges = Nudges(lambda: 0.0)
    assert not served(nudges, board(stuck=True))
    assert not served(nudges, board(stuck=True))
    nudges.registered(BOARD)
    assert served(nudges, board(stuck=True))


def test_one_that_never_registers_is_served_again_after_a_minute() -> None:
    now = [0.0]
    nudges = Nudges(lambda: now[0])
    assert not served(nudges, board(stuck=True))
    now[0] = LASTS_SECONDS
    assert served(nudges, board(stuck=True))


def test_it_is_tried_at_most_once_an_hour() -> None:
    now = [0.0]
    nudges = Nudges(lambda: now[0])
    assert not served(nudges, board(stuck=True))
    nudges.registered(BOARD)
    now[0] = AGAIN_SECONDS - 1
    assert served(nudges, board(stuck=True))
    now[0] = AGAIN_SECONDS
    assert not served(nudges, board(stuck=True))


class Queue:
    """One board, held, and leases that wait for it in the order of their names."""

    def __init__(self, *waiting: str) -> None:
        self.now = [0.0]
        self.store = Store(cast("KubeApi", None), "lab", "lablease-system")
        self.places = Places(self.store, lambda: self._tick())
        self._version = 0
        self.store.clients.insert({"metadata": self._meta("alice")})
        session = {"frontend": "f", "id": "s", "since": "2026-03-01T11:00:00Z"}
        status = {"leaseRef": {"name": "holder"}, "grant": 7, "session": session}
        labels = {"kind": "demo"}
        self.store.exporters.insert({"metadata": {**self._meta("board"), "labels": labels}, "status": status})
        self.lease("holder", {"exporterRef": {"name": "board"}, "grant": 7, "beginTime": "2026-03-01T11:30:00Z"})
        for name in waiting:
            self.lease(name)

    def _tick(self) -> float:
        """Each look at the clock finds it a millisecond later."""
        self.now[0] += 0.001
        return self.now[0]

    def _meta(self, name: str) -> dict[str, Any]:
        self._version += 1
        return {
            "name": name,
            "namespace": "lab",
            "uid": name,
            "resourceVersion": str(self._version),
            "creationTimestamp": f"2026-03-01T11:00:{self._version:02}Z",
        }

    def lease(self, name: str, status: dict[str, Any] | None = None) -> Lease:
        spec = {"clientRef": {"name": "alice"}, "selector": {"matchLabels": {"kind": "demo"}}, "duration": "1h"}
        return self.store.leases.insert(
            {"metadata": self._meta(name), "spec": spec, "status": {"ended": False} | (status or {})}
        )

    def place(self, name: str) -> Queued | None:
        lease = self.store.leases.get(Key("lab", name))
        assert lease is not None
        return self.places.of(lease, NOON)


def test_a_waiting_lease_has_a_place_and_an_estimate() -> None:
    queue = Queue("first", "second")
    assert queue.place("second") == Queued(2, None)
    queue.now[0] += 1
    assert queue.place("first") == Queued(1, NOON + timedelta(minutes=30))
    assert queue.place("holder") is None


def test_without_time_for_a_new_look_the_last_answer_is_given() -> None:
    queue = Queue("first", "second")
    assert queue.place("first") == Queued(1, NOON + timedelta(minutes=30))
    assert queue.place("second") is None
    assert queue.place("first") == Queued(1, NOON + timedelta(minutes=30))
    queue.now[0] += 1
    assert queue.place("second") == Queued(2, None)


@pytest.mark.parametrize("ending", ["ended", "deleted"])
def test_who_left_the_queue_is_not_counted(ending: str) -> None:
    queue = Queue("first", "second")
    if ending == "ended":
        queue.lease("first", {"ended": True})
    else:
        queue.store.leases._forget(Key("lab", "first"), 1000)  # pyright: ignore[reportPrivateUsage]
    assert queue.place("second") == Queued(1, NOON + timedelta(minutes=30))
