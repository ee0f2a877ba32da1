"""``lablease.internal.v1.RouterControl``: front ends say what is over, the router says who waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import grpc
import grpc.aio
import structlog

from lablease.errors import InvalidField, NotAuthenticated
from lablease.grpc_frontend.router.calls import Readable, bearer, undisturbed
from lablease.grpc_frontend.router.hub import Hub, Listener
from lablease.grpc_frontend.router.rendezvous import Rendezvous
from lablease.model.grant import Grant
from lablease.tokens.router import verify_control_token
from lablease.wire.internal.v1 import router_control_pb2 as pb

log = structlog.get_logger()

ControlContext = grpc.aio.ServicerContext[pb.ControlRequest, pb.ControlEvent]


class Control:
    """Serves the control streams of one router."""

    def __init__(
        self, rendezvous: Rendezvous, hub: Hub, *, key: bytes, router: str, clock: Callable[[], datetime]
    ) -> None:
        self._rendezvous = rendezvous
        self._hub = hub
        self._key = key
        self._router = router
        self._clock = clock

    async def control(self, _requests: AsyncIterator[pb.ControlRequest], context: ControlContext) -> None:
        """Serve one front end: its Hello first, then both directions until either side ends."""
        try:
            caller = verify_control_token(
                self._key, bearer(context.invocation_metadata()), router=self._router, now=self._clock()
            )
        except NotAuthenticated as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        first = await undisturbed(_next(context))
        if first is None or not first.HasField("hello"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be hello")
        listener = self._hub.join()
        log.info("router.frontend.connected", frontend=caller.frontend)
        reading = asyncio.create_task(self._read(context, listener))
        try:
            problem = await self._write(context, listener, reading)
        finally:
            self._hub.leave(listener)
            listener.close()
            log.info("router.frontend.disconnected", frontend=caller.frontend)
        if problem is not None:
            await context.abort(*problem)

    async def _write(
        self, context: ControlContext, listener: Listener, reading: "asyncio.Task[InvalidField | None]"
    ) -> tuple[grpc.StatusCode, str] | None:
        self._hub.ready(
            draining=self._rendezvous.table.draining, tunnels=self._rendezvous.open_tunnels(), only=listener
        )
        for half in self._rendezvous.table.waiting():
            self._hub.waiting(half.stream, half.grant, only=listener)
        while (event := await listener.next()) is not None:
            try:
                await undisturbed(context.write(event))
            except grpc.aio.BaseError:
                return None  # the front end is gone
        if reading.done() and (refused := reading.result()) is not None:
            return grpc.StatusCode.INVALID_ARGUMENT, str(refused)
        if listener.overrun:
            return grpc.StatusCode.UNAVAILABLE, "control stream read too slowly: connect again"
        return None

    async def _read(self, context: ControlContext, listener: Listener) -> InvalidField | None:
        """Take messages until the front end ends its direction. A bad one ends the stream, saying which field."""
        try:
            while not listener.closed and (request := await _next(context)) is not None:
                self._take(request)
        except InvalidField as error:
            return error
        finally:
            listener.close()
        return None

    def _take(self, request: pb.ControlRequest) -> None:
        match request.WhichOneof("body"):
            case "revocation":
                revocation = request.revocation
                self._rendezvous.revoke(
                    _grant(revocation.grant, "revocation.grant"), client_only=revocation.client_only
                )
            case "planned_end":
                planned = request.planned_end
                end = planned.end.ToDatetime(UTC) if planned.HasField("end") else None
                self._rendezvous.move_end(_grant(planned.grant, "planned_end.grant"), end)
            case "hello":
                raise InvalidField("hello", "must come once, as the first message")
            case _:
                log.warning("router.control.unknown")


async def _next(context: Readable) -> pb.ControlRequest | None:
    try:
        request = await context.read()
    except grpc.aio.BaseError:
        return None
    return request if isinstance(request, pb.ControlRequest) else None


def _grant(message: pb.Grant, field: str) -> Grant:
    for name in ("namespace", "exporter", "lease", "client"):
        if not getattr(message, name):
            raise InvalidField(f"{field}.{name}", "must not be empty")
    if not message.grant:
        raise InvalidField(f"{field}.grant", "must be the number of the grant")
    return Grant(message.namespace, message.exporter, message.lease, message.grant, message.client)
