"""Which two halves make a tunnel, and when a tunnel must end: a table without clock, network or chance.

Each method takes ``now`` and returns decisions as values; the caller carries them out. Times are judged on the wall
clock, because tokens and leases are. A stream is known by the UUID that both halves have in their tokens.
"""

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from lablease.grpc_frontend.router.fence import Fence, Fences, message_time, problem, take_end
from lablease.model.grant import Grant
from lablease.model.keys import Key
from lablease.tokens.router import LEEWAY, MAX_LIFETIME, Role, RouterClaims

MEMORY = MAX_LIFETIME + 2 * LEEWAY
"""How long what could refuse a token is remembered: no token that exists now can be valid later."""


class Refusal(StrEnum):
    """Why a half may not join."""

    TOKEN = "token"
    LEASE = "lease"
    BUSY = "busy"


class Reason(StrEnum):
    """Why a half or a tunnel ends."""

    CLOSED = "closed"
    CLIENT_LOST = "client-lost"
    EXPORTER_LOST = "exporter-lost"
    UNPAIRED = "unpaired"
    REVOKED = "revoked"
    PLANNED_END = "planned-end"
    SUPERSEDED = "superseded"
    DRAINED = "drained"


@dataclass(frozen=True, slots=True)
class Ending:
    """The halves of this stream that are there are to be ended now, and nothing more is relayed."""

    stream: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Refused:
    """The half may not join; ``problem`` is for its peer."""

    refusal: Refusal
    problem: str


@dataclass(frozen=True, slots=True)
class Waits:
    """The half is alone. A client's half is to be announced."""

    announce: bool


@dataclass(frozen=True, slots=True)
class Pairs:
    """Both halves are there, the first came at ``since``."""

    since: datetime


@dataclass(frozen=True, slots=True)
class Late:
    """The other half has come and gone: end this one with OK."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What to do with a half that came, and what has to end because of what it taught us."""

    outcome: Refused | Waits | Pairs | Late
    endings: tuple[Ending, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitingHalf:
    """A client's half without its other half."""

    stream: str
    grant: Grant


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one router takes; what comes beyond is refused as busy."""

    pending: int = 1024
    pending_per_exporter: int = 64
    tunnels: int = 4096


@dataclass(slots=True)
class _Live:
    grant: Grant
    since: datetime
    deadline: datetime
    roles: set[Role] = field(default_factory=set[Role])

    @property
    def waits(self) -> bool:
        return len(self.roles) == 1


class PairingTable:
    """All halves of one router, and the fence that they are under."""

    def __init__(self, router: str, limits: Limits) -> None:
        """Start empty.

        Args:
            router: the name that tokens for this router carry.
            limits: what to refuse as too much.
        """
        self.draining = False
        self.tunnels = 0
        self._router = router
        self._limits = limits
        self._live: dict[str, _Live] = {}
        self._fences = Fences(MEMORY)
        self._over: dict[str, tuple[datetime, frozenset[Role]]] = {}
        self._over_order: deque[tuple[datetime, str]] = deque()
        self._deadlines: list[tuple[datetime, str, Key | None]] = []

    @property
    def pending(self) -> int:
        """How many halves wait."""
        return len(self._live) - self.tunnels

    def remembered(self) -> int:
        """How many records the table keeps of all kinds: for figures and tests of its bounds."""
        return len(self._live) + len(self._fences) + len(self._over_order) + len(self._deadlines)

    def waiting(self) -> tuple[WaitingHalf, ...]:
        """Return the clients' halves that wait, oldest first."""
        return tuple(
            WaitingHalf(stream, live.grant) for stream, live in self._live.items() if live.roles == {Role.CLIENT}
        )

    def arrive(self, claims: RouterClaims, now: datetime) -> Arrival:
        """Take a half whose token was verified.

        A token is used up by joining, not by being refused as busy. Single use is kept per stream and role, which is
        stricter than per token: a second token for the same half opens nothing either.
        """
        self._forget(now)
        stream, role, grant = claims.stream, claims.role, claims.grant
        if self.draining:
            return Arrival(Refused(Refusal.BUSY, "router is draining"))
        if claims.router != self._router:
            return Arrival(Refused(Refusal.TOKEN, f"token is for router {claims.router}, this is {self._router}"))
        live = self._live.get(stream)
        if role in (live.roles if live else self._joined_once(stream)):
            return Arrival(Refused(Refusal.TOKEN, f"the {role} half of this stream was used already"))
        if live and not _same_lease(live.grant, grant):
            return Arrival(Refused(Refusal.TOKEN, "token is for another lease than the other half of its stream"))
        fence, over = self._fences.learn(grant, now)
        endings = self._end(over, Reason.SUPERSEDED, now)
        if grant.number == fence.number and take_end(fence, grant.end, claims.issued or now):
            endings += self._end_changed(Key(grant.namespace, grant.exporter), now)
        refused = problem(fence, claims, now)
        if refused:
            return Arrival(Refused(Refusal.LEASE, refused), endings)
        return Arrival(self._join(claims, fence, now), endings)

    def _join(self, claims: RouterClaims, fence: Fence, now: datetime) -> Refused | Waits | Pairs | Late:
        stream, role = claims.stream, claims.role
        live = self._live.get(stream)
        if live:
            if self.tunnels >= self._limits.tunnels:
                return Refused(Refusal.BUSY, f"router has {self.tunnels} tunnels already")
            live.roles.add(role)
            self.tunnels += 1
            return Pairs(live.since)
        if joined := self._joined_once(stream):
            self._remember(stream, joined | {role}, now)
            return Late()
        waiting_here = sum(self._live[other].waits for other in fence.live)
        if self.pending >= self._limits.pending or waiting_here >= self._limits.pending_per_exporter:
            return Refused(Refusal.BUSY, "too many halves wait for their other half")
        self._live[stream] = _Live(claims.grant, now, claims.expires, {role})
        fence.live[stream] = claims.grant.client
        self._push(claims.expires, stream, None)
        return Waits(announce=role is Role.CLIENT)

    def leave(self, stream: str, now: datetime) -> bool:
        """Take note that a half left or a tunnel ended; return False if that was known."""
        live = self._live.pop(stream, None)
        if live is None:
            return False
        if not live.waits:
            self.tunnels -= 1
        fence = self._fences.get(Key(live.grant.namespace, live.grant.exporter))
        if fence:
            fence.live.pop(stream, None)
        self._remember(stream, frozenset(live.roles), now)
        return True

    def revoke(self, grant: Grant, *, client_only: bool, now: datetime) -> tuple[Ending, ...]:
        """Refuse this grant and lower ones from now on, or only its client, and end what is live of them.

        A client that gets the lease back is served with tokens that are signed later than this (by more than the
        leeway between clocks).
        """
        fence, over = self._fences.learn(grant, now)
        endings = self._end(over, Reason.SUPERSEDED, now)
        if grant.number < fence.number:
            return endings
        if client_only:
            fence.refused[grant.client] = message_time(now)
            streams = [stream for stream, client in fence.live.items() if client == grant.client]
        else:
            fence.revoked = True
            streams = list(fence.live)
        return endings + self._end(streams, Reason.REVOKED, now)

    def move_end(self, grant: Grant, end: datetime | None, now: datetime) -> tuple[Ending, ...]:
        """Take a planned end for exactly this grant; None means that it has none."""
        fence, over = self._fences.learn(grant, now)
        endings = self._end(over, Reason.SUPERSEDED, now)
        if grant.number == fence.number and take_end(fence, end, message_time(now)):
            endings += self._end_changed(Key(grant.namespace, grant.exporter), now)
        return endings

    def due(self, now: datetime) -> tuple[Ending, ...]:
        """End what has waited as long as its token lives, and what has reached its planned end."""
        endings: tuple[Ending, ...] = ()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, stream, key = heapq.heappop(self._deadlines)
            if key is not None:
                endings += self._end_changed(key, now, push=False)
            elif (live := self._live.get(stream)) and live.waits and live.deadline <= now:
                endings += self._end((stream,), Reason.UNPAIRED, now)
        return endings

    def next_due(self) -> datetime | None:
        """Return when ``due`` should be called next; it may find nothing to do then."""
        return self._deadlines[0][0] if self._deadlines else None

    def planned_end(self, stream: str) -> datetime | None:
        """Return when a live stream ends as far as is known; nothing is relayed from that instant on."""
        live = self._live.get(stream)
        fence = self._fences.get(Key(live.grant.namespace, live.grant.exporter)) if live else None
        return fence.end if fence else None

    def streams_of(self, grant: Grant) -> tuple[str, ...]:
        """Return the live streams of an exporter if this is its newest grant."""
        fence = self._fences.get(Key(grant.namespace, grant.exporter))
        return tuple(fence.live) if fence and fence.number == grant.number else ()

    def drain(self, now: datetime) -> tuple[Ending, ...]:
        """Take nothing new from now on and end the halves that wait: their clients ask for another router."""
        self.draining = True
        return self._end([stream for stream, live in self._live.items() if live.waits], Reason.DRAINED, now)

    def end_all(self, now: datetime) -> tuple[Ending, ...]:
        """End every tunnel: the time to drain is over."""
        return self._end(list(self._live), Reason.DRAINED, now)

    def _end(self, streams: Iterable[str], reason: Reason, now: datetime) -> tuple[Ending, ...]:
        return tuple(Ending(stream, reason) for stream in streams if self.leave(stream, now))

    def _end_changed(self, key: Key, now: datetime, *, push: bool = True) -> tuple[Ending, ...]:
        fence = self._fences.get(key)
        if fence is None or fence.end is None:
            return ()
        if fence.end <= now:
            return self._end(list(fence.live), Reason.PLANNED_END, now)
        if push:
            self._push(fence.end, "", key)
        return ()

    def _push(self, when: datetime, stream: str, key: Key | None) -> None:
        if len(self._deadlines) > 64 + 2 * (len(self._live) + len(self._fences)):
            self._deadlines = [(live.deadline, other, None) for other, live in self._live.items() if live.waits]
            self._deadlines += [(fence.end, "", fkey) for fkey, fence in self._fences if fence.end is not None]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (when, stream, key))

    def _remember(self, stream: str, roles: frozenset[Role], now: datetime) -> None:
        self._over[stream] = (now + MEMORY, roles)
        self._over_order.append((now + MEMORY, stream))

    def _joined_once(self, stream: str) -> frozenset[Role]:
        return self._over[stream][1] if stream in self._over else frozenset()

    def _forget(self, now: datetime) -> None:
        while self._over_order and self._over_order[0][0] <= now:
            when, stream = self._over_order.popleft()
            if stream in self._over and self._over[stream][0] == when:
                del self._over[stream]


def _same_lease(one: Grant, other: Grant) -> bool:
    return (one.namespace, one.exporter, one.lease, one.number, one.client) == (
        other.namespace,
        other.exporter,
        other.lease,
        other.number,
        other.client,
    )
