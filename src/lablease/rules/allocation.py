"""Who gets which exporter: one answer for all leases that wait and all exporters that are free.

The answer is the stable one: no lease that waits, or that has something it likes less, comes before the lease that got
an exporter which it may have. It is unique, so the order in which things are listed never matters.

An exporter prefers leases that are no spot leases, then by ``priority * AGING_STEP - (begin asked for, else creation)``,
larger first, then by name: one step of priority outweighs a wait of ``AGING_STEP``, so nobody starves and the order of
two leases never changes. A lease prefers exporters that it gets not as spot, then those with the higher priority,
then the one that was leased longest ago, then by name.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lablease.model.exporter import Exporter
from lablease.model.lease import Lease
from lablease.rules.lifecycle import asked_for
from lablease.rules.matching import Choices, Request
from lablease.rules.policy import Approval

AGING_STEP = timedelta(minutes=15)
"""How long a wait outweighs one step of priority."""
_STEP = AGING_STEP // timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Turn = tuple[int, str]
"""Place inside one group: microseconds since 1970 from when the lease counts as waiting, then its name."""
Claim = tuple[bool, int, str]
"""How an exporter sees a lease; smaller is better."""


def turn_of(lease: Lease) -> Turn:
    """Return the place of a lease among those of equal priority."""
    return microseconds(asked_for(lease)), lease.key.name


def microseconds(instant: datetime) -> int:
    """Return whole microseconds since 1970: exact, where a float of seconds is not."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def claim(approval: Approval, turn: Turn) -> Claim:
    """Return how strongly a lease may claim an exporter; smaller is stronger."""
    return approval.spot, turn[0] - approval.priority * _STEP, turn[1]


def taste(approval: Approval, exporter: Exporter) -> tuple[bool, int, int, str]:
    """Return how much a lease likes an exporter; smaller is better."""
    return (*approval.rank, exporter.grant, exporter.key.name)


@dataclass(slots=True)
class Line:
    """The leases of one group that wait, first come first."""

    request: Request
    turns: list[Turn] = field(default_factory=list[Turn])


class Room:
    """All leases of a namespace that wait for an exporter, by group."""

    def __init__(self) -> None:
        self._lines: dict[Request, Line] = {}
        self._places: dict[str, tuple[Line, Turn]] = {}
        self._fresh: dict[Request, None] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, lease: str) -> bool:
        return lease in self._places

    @property
    def lines(self) -> Iterable[Line]:
        """All groups in which somebody waits."""
        return self._lines.values()

    def request_of(self, lease: str) -> Request | None:
        """Return the group in which a lease waits, None if it does not wait."""
        place = self._places.get(lease)
        return None if place is None else place[0].request

    def waiting_in(self, request: Request) -> list[str]:
        """Return the names of those who wait in a group, first come first."""
        line = self._lines.get(request)
        return [] if line is None else [name for _, name in line.turns]

    def put(self, lease: Lease, request: Request) -> None:
        """Let a lease wait; the same again changes nothing."""
        name, turn = lease.key.name, turn_of(lease)
        place = self._places.get(name)
        if place is not None and place[0].request == request and place[1] == turn:
            return
        self.drop(name)
        line = self._lines.get(request)
        if line is None:
            line = self._lines[request] = Line(request)
        insort(line.turns, turn)
        self._places[name] = line, turn
        self._fresh[request] = None

    def drop(self, lease: str) -> None:
        """A lease does not wait any more."""
        place = self._places.pop(lease, None)
        if place is None:
            return
        line, turn = place
        del line.turns[bisect_left(line.turns, turn)]
        if not line.turns:
            del self._lines[line.request]
            self._fresh.pop(line.request, None)

    def take_fresh(self) -> frozenset[Request]:
        """Return the groups that somebody joined since the last call."""
        fresh = frozenset(self._fresh)
        self._fresh.clear()
        return fresh


@dataclass(frozen=True, slots=True)
class Offer:
    """A group and the exporters that it may have now, best liked first."""

    line: Line
    exporters: Sequence[tuple[str, Approval]]


def offer(line: Line, choices: Choices, free: Mapping[str, Exporter]) -> Offer:
    """Return what a group may have of the free exporters."""
    names = (
        [name for name in free if name in choices] if len(free) < len(choices) else [n for n in choices if n in free]
    )
    names.sort(key=lambda name: taste(choices[name], free[name]))
    return Offer(line, tuple((name, choices[name]) for name in names))


Blocked = Callable[[str, str, Approval], bool]
"""True if a lease (by name) must leave an exporter (by name) alone, since it is kept for a booking."""


@dataclass(slots=True)
class _Proposal:
    offer: Offer
    turn: Turn
    position: int
    claim: Claim


@dataclass(frozen=True, slots=True)
class Match:
    """A lease gets an exporter."""

    lease: str
    exporter: str
    approval: Approval


def never_blocked(lease: str, exporter: str, approval: Approval) -> bool:
    """No exporter is kept for anybody."""
    return False


def assign(offers: Iterable[Offer], blocked: Blocked = never_blocked) -> list[Match]:
    """Return the stable answer, by name of the exporter.

    Leases propose in their order of preference and exporters keep the best proposal (deferred acceptance). A group's
    members like the same things and only differ in their turn, so each begins where the one before it was taken.
    """
    taken: dict[str, _Proposal] = {}
    displaced: list[_Proposal] = []
    for item in offers:
        _serve(item, taken, displaced, blocked)
        while displaced:
            left = displaced.pop()
            _propose(left.offer, left.turn, left.position + 1, taken, displaced, blocked)
    return [
        Match(proposal.turn[1], name, proposal.offer.exporters[proposal.position][1])
        for name, proposal in sorted(taken.items())
    ]


def _serve(item: Offer, taken: dict[str, _Proposal], displaced: list[_Proposal], blocked: Blocked) -> None:
    start = 0
    for turn in item.line.turns:
        passed, skipped = _propose(item, turn, start, taken, displaced, blocked)
        start = passed if skipped is None else skipped
        if start >= len(item.exporters):
            return


def _propose(
    item: Offer, turn: Turn, start: int, taken: dict[str, _Proposal], displaced: list[_Proposal], blocked: Blocked
) -> tuple[int, int | None]:
    """Let one lease propose from ``start`` on.

    Returns:
        Where the next member of the group may begin, and the first position that was passed only for a booking.
    """
    skipped: int | None = None
    for position in range(start, len(item.exporters)):
        name, approval = item.exporters[position]
        if blocked(turn[1], name, approval):
            skipped = position if skipped is None else skipped
            continue
        mine = claim(approval, turn)
        holder = taken.get(name)
        if holder is None or mine < holder.claim:
            taken[name] = _Proposal(item, turn, position, mine)
            if holder is not None:
                displaced.append(holder)
            return position + 1, skipped
    return len(item.exporters), skipped
