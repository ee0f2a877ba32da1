"""Where halves meet: carries out what the pairing table decides, on real RPCs and a real clock."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import assert_never

import grpc
import grpc.aio
import structlog

from lablease.errors import NotAuthenticated
from lablease.grpc_frontend.router.calls import bearer
from lablease.grpc_frontend.router.figures import Figures
from lablease.grpc_frontend.router.hub import Hub
from lablease.grpc_frontend.router.pairing import (
    Ending,
    Late,
    PairingTable,
    Pairs,
    Reason,
    Refusal,
    Refused,
    Waits,
)
from lablease.grpc_frontend.router.tunnel import Half, Tunnel
from lablease.model.grant import Grant
from lablease.tokens.router import Role, RouterClaims, RouterTokenVerifier

log = structlog.get_logger()

ANNOUNCE_EVERY = timedelta(seconds=2)
_CODES = {
    Refusal.TOKEN: grpc.StatusCode.UNAUTHENTICATED,
    Refusal.LEASE: grpc.StatusCode.PERMISSION_DENIED,
    Refusal.BUSY: grpc.StatusCode.UNAVAILABLE,
}

RawContext = grpc.aio.ServicerContext[bytes, bytes]


class Rendezvous:
    """Serves ``jumpstarter.v1.RouterService/Stream`` and does what front ends say on the control streams."""

    def __init__(
        self,
        table: PairingTable,
        verifier: RouterTokenVerifier,
        hub: Hub,
        figures: Figures,
        clock: Callable[[], datetime],
    ) -> None:
        self.table = table
        self._verifier = verifier
        self._hub = hub
        self._figures = figures
        self._clock = clock
        self._waiting: dict[str, Half] = {}
        self._tunnels: dict[str, Tunnel] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def stream(self, _requests: AsyncIterator[bytes], context: RawContext) -> None:
        """Serve one half from its arrival until its tunnel is over. Frames are bytes, never messages."""
        try:
            claims = self._verifier.verify(bearer(context.invocation_metadata()), self._clock())
        except NotAuthenticated as error:
            self._figures.refused(Refusal.TOKEN)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        arrival = self.table.arrive(claims, self._clock())
        self._carry_out(arrival.endings)
        half = Half(context, claims)
        match arrival.outcome:
            case Refused(refusal, problem):
                self._figures.refused(refusal)
                log.info("router.refused", reason=refusal, problem=problem, role=claims.role, **_names(claims))
                await context.abort(_CODES[refusal], problem)
            case Late():
                return
            case Waits(announce):
                self._waiting[claims.stream] = half
                if announce:
                    self._hub.waiting(claims.stream, claims.grant)
            case Pairs(since):
                self._pair(half, since)
            case _:
                assert_never(arrival.outcome)
        self._arm()
        await self._stay(half)

    async def _stay(self, half: Half) -> None:
        """Keep the RPC until the table or the tunnel says that it is over, or its peer has gone."""
        try:
            await half.finished.wait()
        except asyncio.CancelledError:
            half.lost = True
            self._gone(half)
            await half.silent.wait()
            raise
        finally:
            half.release()

    def _gone(self, half: Half) -> None:
        stream = half.claims.stream
        if self._waiting.get(stream) is half:
            del self._waiting[stream]
            self.table.leave(stream, self._clock())
            self._hub.gone(stream)
            log.info("router.left", role=half.claims.role, **_names(half.claims))
        elif tunnel := self._tunnels.get(stream):
            tunnel.lose(half)

    def _pair(self, half: Half, since: datetime) -> None:
        claims = half.claims
        other = self._waiting.pop(claims.stream)
        client, exporter = (half, other) if claims.role is Role.CLIENT else (other, half)
        tunnel = Tunnel(
            client,
            exporter,
            end=self.table.planned_end(claims.stream),
            clock=self._clock,
            closed=self._closed,
        )
        self._tunnels[claims.stream] = tunnel
        self._idle.clear()
        waited = (self._clock() - since).total_seconds()
        self._figures.paired(waited)
        self._hub.paired(claims.stream)
        log.info("router.tunnel.opened", waited_seconds=round(waited, 4), **_names(claims))
        tunnel.start()

    def _closed(self, tunnel: Tunnel, reason: Reason) -> None:
        if self._tunnels.pop(tunnel.stream, None) is None:
            return
        self.table.leave(tunnel.stream, self._clock())
        self._figures.closed(tunnel, reason)
        self._hub.gone(tunnel.stream)
        log.info(
            "router.tunnel.closed",
            reason=reason,
            bytes_to_exporter=tunnel.bytes_to_exporter,
            bytes_to_client=tunnel.bytes_to_client,
            **_names(tunnel.client.claims),
        )
        if not self._tunnels:
            self._idle.set()

    def revoke(self, grant: Grant, *, client_only: bool) -> None:
        """End and refuse a grant, or only its client (see ``PairingTable.revoke``)."""
        self._carry_out(self.table.revoke(grant, client_only=client_only, now=self._clock()))

    def move_end(self, grant: Grant, end: datetime | None) -> None:
        """Take a new planned end for a grant (see ``PairingTable.move_end``)."""
        self._carry_out(self.table.move_end(grant, end, self._clock()))
        self._take_ends(grant)
        self._arm()

    def _take_ends(self, grant: Grant) -> None:
        for stream in self.table.streams_of(grant):
            if tunnel := self._tunnels.get(stream):
                tunnel.end = self.table.planned_end(stream)

    def _carry_out(self, endings: tuple[Ending, ...]) -> None:
        for ending in endings:
            if half := self._waiting.pop(ending.stream, None):
                half.finished.set()
                self._hub.gone(ending.stream)
                log.info("router.left", role=half.claims.role, reason=ending.reason, **_names(half.claims))
            elif tunnel := self._tunnels.get(ending.stream):
                tunnel.cut(ending.reason)

    def _arm(self) -> None:
        """Wake for the next deadline. Wall clocks step, so ``run`` looks again every two seconds anyway."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        when = self.table.next_due()
        if when is not None:
            delay = max(0.0, (when - self._clock()).total_seconds())
            self._alarm = asyncio.get_running_loop().call_later(min(delay, 3600.0), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._carry_out(self.table.due(self._clock()))
        self._arm()

    async def run(self) -> None:
        """Announce again what waits, and look at the deadlines, every two seconds until cancelled."""
        while True:
            await asyncio.sleep(ANNOUNCE_EVERY.total_seconds())
            self._ring()
            self.announce()
            self._figures.flow(self._tunnels.values())

    def announce(self) -> None:
        """Tell all front ends who waits and how much is open."""
        self._hub.ready(draining=self.table.draining, tunnels=len(self._tunnels))
        for half in self.table.waiting():
            self._hub.waiting(half.stream, half.grant)

    async def drain(self, patience: timedelta) -> None:
        """Take nothing new, wait at most ``patience`` for the tunnels that are open, then end them."""
        self._carry_out(self.table.drain(self._clock()))
        self.announce()
        log.info("router.draining", tunnels=len(self._tunnels), patience_seconds=patience.total_seconds())
        try:
            await asyncio.wait_for(self._idle.wait(), patience.total_seconds())
        except TimeoutError:
            self.end_all()

    def end_all(self) -> None:
        """End every tunnel now."""
        self._carry_out(self.table.end_all(self._clock()))

    def pending(self) -> int:
        """How many halves wait."""
        return len(self._waiting)

    def open_tunnels(self) -> int:
        """How many tunnels copy bytes."""
        return len(self._tunnels)

    def tunnels(self) -> tuple[Tunnel, ...]:
        """Return the tunnels that copy bytes."""
        return tuple(self._tunnels.values())


def _names(claims: RouterClaims) -> dict[str, object]:
    grant = claims.grant
    return {
        "stream": claims.stream,
        "namespace": grant.namespace,
        "exporter": grant.exporter,
        "lease": grant.lease,
        "grant": grant.number,
        "client": grant.client,
    }
