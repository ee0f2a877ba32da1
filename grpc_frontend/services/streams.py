"""The two streams that exporters hold open: Status and Listen."""

import random
from functools import partial
from uuid import uuid4

import structlog

from lablease import clock
from lablease.errors import InvalidField, NotAllowed, NotAuthenticated, NotFound, Unavailable
from lablease.grpc_frontend.auth import Caller
from lablease.grpc_frontend.bells import About, Topic
from lablease.grpc_frontend.gate import Send
from lablease.grpc_frontend.parts import Parts, rung
from lablease.grpc_frontend.records import secret_token
from lablease.grpc_frontend.sessions import OpenSession, last_seen_due
from lablease.grpc_frontend.store import until_back
from lablease.grpc_frontend.telling import Held, Word, next_words, over, settled, word
from lablease.grpc_frontend.tunnels import AGAIN_SECONDS, Half, to_invite
from lablease.model.exporter import Exporter
from lablease.model.grant import Grant
from lablease.model.keys import Key
from lablease.model.lease import Lease
from lablease.tokens.router import MAX_LIFETIME, Role, RouterClaims, issue_router_token
from lablease.wire.codec import timestamp
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2 as pb

TOKEN_KEY = "lablease-token"
"""Initial metadata of Status: the credential that replaces the caller's."""
SHORTEST_WAIT_SECONDS = 10.0
"""Between two looks that no change asked for."""

log = structlog.get_logger(__name__)


class ExporterStreams:
    """Streams of exporters. They end with OK only when the server drains: jmp 0.9.0 reopens at once after OK."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store

    async def status(self, caller: Caller, _request: pb.StatusRequest, send: Send[pb.StatusResponse]) -> None:
        """Tell whether the exporter is leased, at once and on each change; being open is the exporter's heartbeat.

        Raises:
            NotFound: the Exporter object is gone.
            NotAuthenticated: its credential was rotated.
            Unavailable: it is stuck and shall begin anew.
        """
        self._alive(caller)
        await self._greet(caller, send)
        with self._store.bells.listen(Topic(About.EXPORTER, caller.key)) as bell:
            session = self._parts.sessions.begin(caller.key)
            try:
                exporter = await self._parts.sessions.claim(session)
                if not settled(exporter, self._lease_in(exporter)):
                    await self._what_holds(exporter, live=True)
                told: Word | None = None
                while not self._parts.draining.is_set():
                    bell.clear()
                    exporter = self._alive(caller)
                    told = await self._tell(exporter, told, send)
                    await self._keep(session, exporter)
                    await rung(bell, max(self._until_last_seen(exporter), SHORTEST_WAIT_SECONDS))
            finally:
                self._parts.sessions.close(session)

    async def _greet(self, caller: Caller, send: Send[pb.StatusResponse]) -> None:
        """Hand an exporter whose credential grows old the one that the operator has put in its place."""
        now = clock.utc_now()
        exporter = self._store.exporter(caller.key)
        if caller.renew is None or now < caller.renew or exporter is None or exporter.credential is None:
            return
        key = Key(caller.key.namespace, exporter.credential)
        try:
            token = secret_token(await self._store.read_secret(key))
        except (NotFound, Unavailable) as error:
            log.warning("token.not_renewed", exporter=caller.key.name, reason=str(error))
            return
        if token and token != caller.token:
            await send.greet({TOKEN_KEY: token})
            log.info("token.renewed", exporter=caller.key.name)

    async def _tell(self, exporter: Exporter, told: Word | None, send: Send[pb.StatusResponse]) -> Word:
        now = await self._what_holds(exporter)
        for item in next_words(told, now, exporter.status):
            await send(status_response(item))
            told = item
        return now if told is None else told

    async def _keep(self, session: OpenSession, exporter: Exporter) -> None:
        """Write the session again if somebody cleared it, and ``lastSeen`` when it is due. Trouble is for later."""
        try:
            if exporter.session is None:
                await self._parts.sessions.claim(session)
            elif self._until_last_seen(exporter) <= 0:
                await self._parts.sessions.seen(exporter.key)
        except Unavailable as error:
            log.warning("session.not_kept", exporter=exporter.key.name, reason=str(error))

    @staticmethod
    def _until_last_seen(exporter: Exporter) -> float:
        due = last_seen_due(exporter, random.random())
        return 0.0 if due is None else max(0.0, (due - clock.utc_now()).total_seconds())

    async def listen(self, caller: Caller, request: pb.ListenRequest, send: Send[pb.ListenResponse]) -> None:
        """Invite the exporter to each tunnel that a client wants under a lease.

        A lease that has ended is accepted: the stream then stays silent.

        Raises:
            InvalidField: no lease is named.
            NotFound: there is no such lease.
            NotAllowed: it was not given to this exporter.
        """
        lease = await until_back(partial(self._given_lease, caller, request.lease_name))
        topic = Topic(About.EXPORTER, caller.key)
        with (
            self._store.bells.listen(topic) as bell,
            self._parts.listeners.open(caller.key, lease.key.name) as mark,
        ):
            invited: dict[str, float] = {}
            while not self._parts.draining.is_set():
                bell.clear()
                exporter = self._alive(caller)
                waiting = self._parts.waiting.of(caller.key, clock.monotonic())
                streams = {half.stream for half in waiting}
                invited = {stream: when for stream, when in invited.items() if stream in streams}
                if self._parts.listeners.current(caller.key, lease.key.name, mark):
                    now = word(exporter, self._lease_in(exporter))
                    held = now if isinstance(now, Held) else None
                    monotonic = clock.monotonic()
                    for half in to_invite(waiting, held, lease.key.name, exporter.status, invited, monotonic):
                        await send(pb.ListenResponse(router_endpoint=half.router, router_token=self._token(half, held)))
                        invited[half.stream] = monotonic
                await rung(bell, AGAIN_SECONDS if waiting else None)

    def _token(self, half: Half, held: Held | None) -> str:
        """Mint the exporter's token for the tunnel whose other half waits."""
        now = clock.utc_now()
        given = half.grant
        grant = Grant(
            given.namespace, given.exporter, given.lease, given.number, given.client, held.end if held else None
        )
        claims = RouterClaims(half.stream, Role.EXPORTER, grant, half.router, now + MAX_LIFETIME, uuid4().hex)
        return issue_router_token(self._parts.router_key, claims, now)

    async def _given_lease(self, caller: Caller, name: str) -> Lease:
        if not name:
            raise InvalidField("lease_name", "must not be empty")
        key = Key(caller.key.namespace, name)
        lease = await self._parts.leases.find(key, caller.user)
        if lease.status.exporter is None:
            lease = await self._store.read_lease(key)
        if lease.status.exporter != caller.key.name:
            raise NotAllowed(f"permission denied: lease {name} was not given to exporter {caller.key.name}")
        return lease

    def _alive(self, caller: Caller) -> Exporter:
        exporter = self._store.exporter(caller.key)
        if exporter is None or exporter.meta.uid != caller.uid:
            raise NotFound("exporter", caller.key.name)
        if caller.generation < exporter.credential_generation:
            raise NotAuthenticated("this token was replaced by a newer one: fetch the new one")
        self._parts.nudges.check(exporter)
        return exporter

    def _lease_in(self, exporter: Exporter) -> Lease | None:
        return self._store.leases.get(Key(exporter.key.namespace, exporter.lease)) if exporter.lease else None

    async def _what_holds(self, exporter: Exporter, *, live: bool = False) -> Word:
        """Compare the slot with the lease that it names; ``live`` asks the API server and not the cache.

        A lease that the cache does not have is asked for live in any case: a late look and a deletion look alike there,
        and an exporter that is told nothing of a deletion would keep its session for ever.
        """
        lease = self._lease_in(exporter)
        if exporter.lease is None or (lease is not None and not live):
            return word(exporter, lease)
        key = Key(exporter.key.namespace, exporter.lease)
        try:
            return word(exporter, await until_back(partial(self._store.read_lease, key)))
        except NotFound:
            log.info("slot.names_no_lease", exporter=exporter.key.name, lease=exporter.lease)
            return over(exporter)


def status_response(item: Word) -> pb.StatusResponse:
    """Return a word as a message."""
    if not isinstance(item, Held):
        return pb.StatusResponse(leased=False, released_grant=item.over)
    message = pb.StatusResponse(
        leased=True, lease_name=item.lease, client_name=item.client, context=item.context, grant=item.grant
    )
    if item.end is not None:
        message.planned_end.CopyFrom(timestamp(item.end))
    return message
