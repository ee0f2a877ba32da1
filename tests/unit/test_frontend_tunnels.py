import asyncio

import pytest

from lablease.grpc_frontend.bells import About, Bells, Topic
from lablease.grpc_frontend.telling import Held
from lablease.grpc_frontend.tunnels import (
    AGAIN_SECONDS,
    PER_EXPORTER,
    SILENT_SECONDS,
    Half,
    Listeners,
    WaitingHalves,
    to_invite,
)
from lablease.model.exporter import ExporterStatus
from lablease.model.grant import Grant
from lablease.model.keys import Key

BOARD = Key("lab", "board")
HELD = Held("lease", 7, "alice")
READY = ExporterStatus.LEASE_READY
HOOK = ExporterStatus.BEFORE_LEASE_HOOK


def half(stream: str = "s", *, grant: int = 7, client: str = "alice", exporter: str = "board", seen: float = 0) -> Half:
    return Half(stream, "router:1", Grant("lab", exporter, "lease", grant, client), seen)


@pytest.mark.parametrize(
    ("halves", "held", "lease", "status", "invited", "now", "expected"),
    [
        ([half()], HELD, "lease", READY, {}, 0, ["s"]),
        ([half()], HELD, "lease", HOOK, {}, 0, ["s"]),
        ([half()], None, "lease", READY, {}, 0, []),
        ([half()], HELD, "other", READY, {}, 0, []),
        ([half(grant=6)], HELD, "lease", READY, {}, 0, []),
        ([half(grant=8)], HELD, "lease", READY, {}, 0, []),
        ([half(client="bob")], HELD, "lease", READY, {}, 0, []),
        ([half()], HELD, "lease", READY, {"s": 0.0}, AGAIN_SECONDS - 0.1, []),
        ([half()], HELD, "lease", READY, {"s": 0.0}, AGAIN_SECONDS, ["s"]),
        ([half()], HELD, "lease", HOOK, {"s": 0.0}, 1000, []),
        ([half("x"), half("y")], HELD, "lease", READY, {"x": 0.0}, 0, ["y"]),
    ],
    ids=[
        "ready",
        "during the hook",
        "nobody holds the exporter",
        "stream of another lease",
        "older grant",
        "newer grant than known",
        "client that holds it no longer",
        "invited lately",
        "invited long ago and still waiting",
        "once only during the hook",
        "each once",
    ],
)
def test_who_is_invited(
    halves: list[Half],
    held: Held | None,
    lease: str,
    status: ExporterStatus,
    invited: dict[str, float],
    now: float,
    expected: list[str],
) -> None:
    assert [item.stream for item in to_invite(halves, held, lease, status, invited, now)] == expected


def test_a_new_half_rings_and_a_repeated_announcement_does_not() -> None:
    bells = Bells()
    waiting = WaitingHalves(bells)
    with bells.listen(Topic(About.EXPORTER, BOARD)) as bell:
        waiting.announce(half())
        assert bell.is_set()
        bell.clear()
        waiting.announce(half(seen=2))
        assert not bell.is_set()
    assert [item.seen for item in waiting.of(BOARD, 2)] == [2]


def test_a_half_that_left_or_is_silent_for_long_is_gone() -> None:
    waiting = WaitingHalves(Bells())
    waiting.announce(half("a"))
    waiting.announce(half("b"))
    waiting.gone("a")
    waiting.gone("never announced")
    assert [item.stream for item in waiting.of(BOARD, SILENT_SECONDS)] == ["b"]
    assert waiting.of(BOARD, SILENT_SECONDS + 0.1) == ()


def test_a_lost_router_takes_its_own_halves_along() -> None:
    waiting = WaitingHalves(Bells())
    waiting.announce(half("a"))
    waiting.router_lost("another:1")
    assert len(waiting.of(BOARD, 0)) == 1
    waiting.router_lost("router:1")
    assert waiting.of(BOARD, 0) == ()


def test_the_table_is_bounded_per_exporter_and_silent_halves_make_room() -> None:
    waiting = WaitingHalves(Bells())
    for number in range(PER_EXPORTER + 5):
        waiting.announce(half(f"s{number}"))
    assert len(waiting.of(BOARD, 0)) == PER_EXPORTER
    waiting.announce(half("other", exporter="board-2"))
    assert len(waiting.of(Key("lab", "board-2"), 0)) == 1
    late = SILENT_SECONDS + 1
    waiting.announce(half("late", seen=late))
    assert [item.stream for item in waiting.of(BOARD, late)] == ["late"]


def test_the_newest_listen_is_current_and_the_older_one_again_after_it() -> None:
    bells = Bells()
    listeners = Listeners(bells)
    with listeners.open(BOARD, "lease") as older:
        assert listeners.current(BOARD, "lease", older)
        with bells.listen(Topic(About.EXPORTER, BOARD)) as bell:
            with listeners.open(BOARD, "lease") as newer:
                assert listeners.current(BOARD, "lease", newer)
                assert not listeners.current(BOARD, "lease", older)
            assert bell.is_set()
        assert listeners.current(BOARD, "lease", older)
    assert not listeners.current(BOARD, "lease", older)


def test_streams_of_two_leases_do_not_displace_each_other() -> None:
    listeners = Listeners(Bells())
    with listeners.open(BOARD, "a") as first, listeners.open(BOARD, "b") as second:
        assert listeners.current(BOARD, "a", first)
        assert listeners.current(BOARD, "b", second)


async def test_ringing_all_wakes_everybody() -> None:
    bells = Bells()
    with bells.listen(Topic(About.LEASE, BOARD), Topic(About.CLIENT, BOARD)) as bell:
        bells.ring(Topic(About.EXPORTER, BOARD))
        assert not bell.is_set()
        bells.ring_all()
        await asyncio.wait_for(bell.wait(), 1)
