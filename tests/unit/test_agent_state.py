"""What the agent may do next, what a Status message asks of it, and in which order reports leave."""

from datetime import UTC, datetime, timedelta

import pytest

from lablease.driver.session import Status
from lablease.exporter_agent.backoff import delay_seconds
from lablease.exporter_agent.reports import Report, enqueue
from lablease.exporter_agent.state import NEXT, Event, Held, ImpossibleEvent, Move, Phase, Told, react, step

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOON = NOW + timedelta(minutes=5)
A = Held("a", "alice", 10, SOON)


@pytest.mark.parametrize(("phase", "event"), [(p, e) for p in Phase for e in Event if (p, e) not in NEXT])
def test_what_the_table_does_not_list_raises(phase: Phase, event: Event) -> None:
    with pytest.raises(ImpossibleEvent):
        step(phase, event)


def test_every_phase_leads_back_to_idle() -> None:
    reached = {Phase.IDLE}
    for _ in Phase:
        reached |= {phase for (phase, _), following in NEXT.items() if following in reached}
    assert reached == set(Phase)


def told(lease: str = "a", client: str = "alice", grant: int = 10, end: datetime | None = SOON) -> Told:
    return Told(Held(lease, client, grant, end))


@pytest.mark.parametrize(
    ("current", "closed", "message", "move"),
    [
        (None, None, Told(None), Move.NOTHING),
        (None, None, told(), Move.START),
        (None, None, told(lease=""), Move.NOTHING),
        (None, None, told(grant=9), Move.NOTHING),
        (None, None, told(end=NOW), Move.NOTHING),
        (None, None, told(grant=0, end=None), Move.START),
        (None, A, told(), Move.NOTHING),
        (None, A, told(end=SOON + timedelta(minutes=1)), Move.START),
        (None, A, told(grant=11), Move.START),
        (A, None, told(), Move.NOTHING),
        (A, None, told(client="bob"), Move.TRANSFER),
        (A, None, told(end=SOON + timedelta(minutes=1)), Move.RETIME),
        (A, None, told(end=NOW), Move.RETIME),
        (A, None, told(grant=11), Move.REPLACE),
        (A, None, told(lease="b", grant=11), Move.REPLACE),
        (A, None, told(lease="b", grant=9), Move.NOTHING),
        (A, None, Told(None), Move.END),
        (A, None, Told(None, 9), Move.NOTHING),
        (A, None, Told(None, 10), Move.END),
        (A, None, Told(None, 11), Move.END),
    ],
)
def test_a_status_message_asks_for(current: Held | None, closed: Held | None, message: Told, move: Move) -> None:
    assert react(current, closed, 10, message, NOW) is move


def test_reports_keep_their_order_and_a_repetition_adds_nothing() -> None:
    ready, after = Report(Status.LEASE_READY, "", 1), Report(Status.AFTER_LEASE_HOOK, "", 1)
    assert enqueue(enqueue(enqueue((), ready), ready), after) == (ready, after)


def test_at_the_limit_the_oldest_report_of_an_older_grant_goes() -> None:
    old, new = Report(Status.AVAILABLE, "", 1), Report(Status.LEASE_READY, "", 2)
    first = Report(Status.BEFORE_LEASE_HOOK, "", 2)
    assert enqueue((first, old), new, limit=2) == (first, new)
    assert enqueue((first, new), Report(Status.AVAILABLE, "", 2), limit=2) == (new, Report(Status.AVAILABLE, "", 2))


@pytest.mark.parametrize(
    ("failures", "chance", "seconds"), [(1, 0, 0.1), (2, 0, 0.2), (8, 0, 10), (99, 0, 10), (1, 1, 0.05)]
)
def test_pauses_double_up_to_the_limit_and_chance_takes_up_to_half(
    failures: int, chance: float, seconds: float
) -> None:
    assert delay_seconds(failures, chance) == pytest.approx(seconds)
