"""One control stream to each router: announcements of waiting halves come up, the fence goes down."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from uuid import uuid4

import grpc
import grpc.aio
import structlog

from lablease import clock
from lablease.grpc_frontend.fencing import Fencing, Moved, Over, Runs, Statement
from lablease.grpc_frontend.routers import Router
from lablease.grpc_frontend.tunnels import Half, WaitingHalves
from lablease.model.grant import Grant
from lablease.model.keys import Key
from lablease.tokens.router import issue_control_token
from lablease.wire.internal.v1 import router_control_pb2 as pb
from lablease.wire.internal.v1.router_control_pb2_grpc import RouterControlStub

_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts to reach a router; the last repeats."""
_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
)

log = structlog.get_logger(__name__)

ControlCall = grpc.aio.StreamStreamCall[pb.ControlRequest, pb.ControlEvent]


class RouterLink:
    """Keeps the control stream to one router. ``healthy``: it answered and takes new tunnels."""

    def __init__(
        self,
        router: Router,
        *,
        frontend: str,
        key: bytes,
        authority: bytes | None,
        fencing: Fencing,
        waiting: WaitingHalves,
    ) -> None:
        self.router = router
        self.healthy = False
        self._frontend = frontend
        self._key = key
        self._credentials = grpc.ssl_channel_credentials(authority)
        self._fencing = fencing
        self._waiting = waiting
        self._news: OrderedDict[Key, None] = OrderedDict()
        self._said: dict[Key, tuple[Statement, ...]] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Connect, and again whenever the stream ends, until cancelled."""
        failures = 0
        async with grpc.aio.secure_channel(self.router.endpoint, self._credentials, options=_OPTIONS) as channel:
            while True:
                try:
                    await self._once(channel)
                    failures = 0
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                    if self.healthy or failures % 20 == 0:
                        reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
                        log.warning("router.away", router=self.router.endpoint, reason=reason)
                    failures = 0 if self.healthy else failures + 1
                finally:
                    self.healthy = False
                    self._waiting.router_lost(self.router.endpoint)
                await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])

    async def _once(self, channel: grpc.aio.Channel) -> None:
        token = issue_control_token(
            self._key,
            frontend=self._frontend,
            router=self.router.endpoint,
            now=clock.utc_now(),
            jti=uuid4().hex,
        )
        bearer = (("authorization", f"Bearer {token}"),)
        call: ControlCall = RouterControlStub(channel).Control(metadata=bearer)  # type: ignore[call-arg] # stub is wrong
        self._said.clear()
        self._news = OrderedDict.fromkeys(self._fencing.exporters())
        self._wake.set()
        stop = self._fencing.subscribe(self._changed)
        await call.write(pb.ControlRequest(hello=pb.Hello(frontend=self._frontend)))
        speaking = asyncio.create_task(self._speak(call))
        try:
            async for event in call:
                self._hear(event)
        finally:
            stop()
            speaking.cancel()
            call.cancel()
            await asyncio.gather(speaking, return_exceptions=True)

    def _changed(self, key: Key) -> None:
        self._news[key] = None
        self._wake.set()

    async def _speak(self, call: ControlCall) -> None:
        """Say what is new, one exporter after the other; what changes again meanwhile is said once."""
        while True:
            while self._news:
                key, _ = self._news.popitem(last=False)
                statements = self._fencing.statements(key)
                if statements != self._said.get(key, ()):
                    self._said[key] = statements
                    for statement in statements:
                        await call.write(to_request(statement))
            self._wake.clear()
            await self._wake.wait()

    def _hear(self, event: pb.ControlEvent) -> None:
        match event.WhichOneof("body"):
            case "ready":
                if not self.healthy:
                    log.info("router.ready", router=self.router.endpoint, draining=event.ready.draining)
                self.healthy = not event.ready.draining
            case "waiting":
                half = Half(
                    event.waiting.stream,
                    self.router.endpoint,
                    from_grant(event.waiting.grant),
                    clock.monotonic(),
                )
                self._waiting.announce(half)
            case "paired":
                self._waiting.gone(event.paired.stream)
            case "gone":
                self._waiting.gone(event.gone.stream)
            case None:
                log.warning("router.unknown_event", router=self.router.endpoint)


class RouterLinks:
    """The links to all routers."""

    def __init__(self, links: Sequence[RouterLink]) -> None:
        self._links = tuple(links)

    async def run(self) -> None:
        """Keep all links until cancelled."""
        async with asyncio.TaskGroup() as group:
            for link in self._links:
                group.create_task(link.run())

    def healthy(self) -> tuple[Router, ...]:
        """Return the routers that take new tunnels."""
        return tuple(link.router for link in self._links if link.healthy)


def to_request(statement: Statement) -> pb.ControlRequest:
    """Return a statement as a message."""
    grant = _to_grant(statement.grant)
    match statement:
        case Over():
            return pb.ControlRequest(revocation=pb.Revocation(grant=grant))
        case Moved():
            return pb.ControlRequest(revocation=pb.Revocation(grant=grant, client_only=True))
        case Runs():
            planned = pb.PlannedEnd(grant=grant)
            if statement.grant.end is not None:
                planned.end.FromDatetime(statement.grant.end)
            return pb.ControlRequest(planned_end=planned)


def _to_grant(grant: Grant) -> pb.Grant:
    return pb.Grant(
        namespace=grant.namespace,
        exporter=grant.exporter,
        lease=grant.lease,
        grant=grant.number,
        client=grant.client,
    )


def from_grant(message: pb.Grant) -> Grant:
    """Read a grant as a router announces it, without its end."""
    return Grant(message.namespace, message.exporter, message.lease, message.grant, message.client)
