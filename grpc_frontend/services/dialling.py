"""Dial: a client asks for a tunnel to the exporter of its lease."""

import asyncio
from dataclasses import dataclass
from uuid import uuid4

import structlog

from lablease import clock
from lablease.errors import InvalidField, LableaseError, NotNow, Unavailable
from lablease.grpc_frontend.auth import Caller
from lablease.grpc_frontend.bells import About, Topic
from lablease.grpc_frontend.leases import check_owner
from lablease.grpc_frontend.parts import Parts
from lablease.grpc_frontend.routers import choose
from lablease.model.exporter import Exporter, ExporterStatus
from lablease.model.grant import Grant
from lablease.model.keys import Key
from lablease.model.lease import Lease
from lablease.rules.holding import grant_of
from lablease.tokens.router import MAX_LIFETIME, Role, RouterClaims, issue_router_token
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2 as pb

_HOOK_FAILED = {
    ExporterStatus.BEFORE_LEASE_HOOK_FAILED: "its hook before the lease failed",
    ExporterStatus.AFTER_LEASE_HOOK_FAILED: "its hook after the lease failed",
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Open:
    """The tunnel may be opened under this grant."""

    grant: Grant
    exporter: Exporter


@dataclass(frozen=True, slots=True)
class NotYet:
    """Wait; ``error`` is the answer when waiting was in vain."""

    error: LableaseError


def judge(lease: Lease, exporter: Exporter | None) -> Open | NotYet:
    """Decide whether a tunnel may be opened now.

    While an exporter says that it is Available it has not begun this lease, or is done with it. The words ``not ready``
    are what makes jmp 0.9.0 try again.

    Raises:
        NotNow: waiting will not help.
    """
    name = lease.key.name
    if lease.status.ended or lease.release_asked:
        raise NotNow(f"lease {name} has ended")
    if lease.status.exporter is None:
        return NotYet(NotNow(f"not ready: lease {name} has no exporter yet"))
    if exporter is None:
        return NotYet(Unavailable(f"exporter {lease.status.exporter} is not known"))
    grant = grant_of(exporter, lease)
    if grant is None:
        return NotYet(NotNow(f"not ready: exporter {exporter.key.name} is not handed to lease {name} yet"))
    failed = _HOOK_FAILED.get(exporter.status) if exporter.status is not None else None
    if failed is not None:
        raise NotNow(f"exporter {exporter.key.name} cannot be used: {failed}: {exporter.status_message}".rstrip(": "))
    if exporter.session is None or exporter.status is ExporterStatus.OFFLINE:
        return NotYet(Unavailable(f"exporter {exporter.key.name} is not connected"))
    if exporter.status is ExporterStatus.AVAILABLE:
        return NotYet(NotNow(f"not ready: exporter {exporter.key.name} has not begun lease {name} yet"))
    return Open(grant, exporter)


class Dialling:
    """Answers Dial with the client's half of a tunnel; the router then asks for the other half."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store

    async def dial(self, caller: Caller, request: pb.DialRequest) -> pb.DialResponse:
        """Return where and with which token the client joins; waits a while until the exporter is ready.

        Raises:
            InvalidField: no lease is named.
            NotFound: there is no such lease.
            NotAllowed: it is another client's.
            NotNow: the lease has ended, or the exporter did not become ready.
            Unavailable: the exporter is not connected, or no router is.
        """
        if not request.lease_name:
            raise InvalidField("lease_name", "must not be empty")
        lease = await self._parts.leases.owned(caller, request.lease_name)
        found = await self._until_open(caller, lease)
        router = choose(self._parts.routers(), found.exporter.meta.labels, lease.key)
        if router is None:
            raise Unavailable("no router takes tunnels for this exporter now")
        now = clock.utc_now()
        claims = RouterClaims(str(uuid4()), Role.CLIENT, found.grant, router.endpoint, now + MAX_LIFETIME, uuid4().hex)
        token = issue_router_token(self._parts.router_key, claims, now)
        log.info("tunnel.invited", lease=lease.key.name, exporter=found.exporter.key.name, stream=claims.stream)
        return pb.DialResponse(router_endpoint=router.endpoint, router_token=token)

    async def _until_open(self, caller: Caller, lease: Lease) -> Open:
        """Look again with every change, until the tunnel may be opened or the wait is over."""
        last: NotYet | None = None
        try:
            async with asyncio.timeout(self._parts.waits.dial.total_seconds()):
                while True:
                    lease = self._store.leases.get(lease.key) or lease
                    topics = [Topic(About.LEASE, lease.key)]
                    if lease.status.exporter is not None:
                        topics.append(Topic(About.EXPORTER, Key(lease.key.namespace, lease.status.exporter)))
                    with self._store.bells.listen(*topics) as bell:
                        found = self._look(caller, lease.key)
                        if isinstance(found, Open):
                            return found
                        last = found
                        await bell.wait()
        except TimeoutError:
            raise (last.error if last is not None else Unavailable("not looked yet")) from None

    def _look(self, caller: Caller, key: Key) -> Open | NotYet:
        lease = self._store.leases.get(key)
        if lease is None:
            raise NotNow(f"lease {key.name} was deleted")
        check_owner(caller, lease)
        exporter = self._store.exporter(Key(key.namespace, lease.status.exporter)) if lease.status.exporter else None
        return judge(lease, exporter)
