"""The agent's side of ``jumpstarter.v1.ControllerService``."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC
from typing import Final, TypeVar

import grpc
import grpc.aio
import structlog

from lablease.driver.control import ReportEntry
from lablease.exporter_agent.backoff import delay_seconds
from lablease.exporter_agent.channels import Channels
from lablease.exporter_agent.errors import ChannelProblem
from lablease.exporter_agent.reports import Report
from lablease.exporter_agent.state import Held, Told
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2 as pb
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2_grpc

log = structlog.get_logger()

CALL_SECONDS: Final = 30.0
STABLE_SECONDS: Final = 5.0
"""A stream that lived this long was no failed attempt: the next pause is the shortest again."""

TOKEN_KEY: Final = "lablease-token"
"""Initial metadata of Status: a renewed token."""

Answer = TypeVar("Answer")
Metadata = tuple[tuple[str, str], ...]

_HOPELESS: Final = frozenset(
    {
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
"""The same call will be refused again: it is dropped, and what comes after it goes on."""


class Refused(Exception):
    """The controller refuses the call for good."""

    def __init__(self, what: str, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{what}: {details or 'refused'} ({code.name})")
        self.code = code


class Controller:
    """Calls of one exporter to its controller, all over one channel.

    Args:
        token: bearer token; replaced when the controller sends a renewed one, which ``renewed`` is then told.
        tokens: reads the token anew, for when it is refused: somebody may have put a new one into the file.
    """

    def __init__(
        self,
        channels: Channels,
        endpoint: str,
        *,
        name: str,
        namespace: str | None,
        token: str,
        renewed: Callable[[str], Awaitable[None]],
        tokens: Callable[[], Awaitable[str | None]],
    ) -> None:
        self.endpoint = endpoint
        self._channels = channels
        self._name = name
        self._namespace = namespace
        self._token = token
        self._renewed = renewed
        self._tokens = tokens

    async def register(self, labels: dict[str, str], reports: Sequence[ReportEntry]) -> None:
        """Register the device tree. Retries until it succeeds; Refused when the request itself is wrong."""
        request = pb.RegisterRequest(
            labels=labels,
            reports=[
                pb.DriverInstanceReport(
                    uuid=report.uuid,
                    parent_uuid=report.parent_uuid,
                    labels=report.labels,
                    description=report.description,
                    methods_description=report.methods_description,
                )
                for report in reports
            ],
        )
        await self._insist("register", lambda stub, meta: stub.Register(request, metadata=meta, timeout=CALL_SECONDS))

    async def report(self, report: Report) -> None:
        """Report a status. Retries until it succeeds; Refused when the controller will not have it."""
        request = pb.ReportStatusRequest(status=int(report.status), message=report.message, grant=report.grant)  # type: ignore[arg-type]  # the stub wants its own enum type
        await self._insist(
            "report status", lambda stub, meta: stub.ReportStatus(request, metadata=meta, timeout=CALL_SECONDS)
        )

    async def release(self, held: Held) -> None:
        """Ask for the end of the lease. Retries until it succeeds; Refused when that lease is not held (any more)."""
        request = pb.ReleaseLeaseRequest(name=held.lease, grant=held.grant)
        await self._insist(
            "release lease", lambda stub, meta: stub.ReleaseLease(request, metadata=meta, timeout=CALL_SECONDS)
        )

    async def goodbye(self, report: Report, reason: str) -> None:
        """Report a last status and unregister, once each. Raises AioRpcError or ChannelProblem."""
        stub, meta = await self._stub()
        request = pb.ReportStatusRequest(status=int(report.status), message=report.message, grant=report.grant)  # type: ignore[arg-type]
        await stub.ReportStatus(request, metadata=meta, timeout=CALL_SECONDS)
        await stub.Unregister(pb.UnregisterRequest(reason=reason), metadata=meta, timeout=CALL_SECONDS)

    async def status(self) -> AsyncGenerator[Told]:
        """Yield what one Status stream says. Ends when the stream ends; raises AioRpcError or ChannelProblem."""
        stub, meta = await self._stub()
        call = stub.Status(pb.StatusRequest(), metadata=meta)
        try:
            for key, value in await call.initial_metadata():
                if key == TOKEN_KEY:
                    self._token = value if isinstance(value, str) else value.decode()
                    await self._renewed(self._token)
            async for message in call:
                yield _told(message)
        finally:
            call.cancel()

    async def listen(self, lease: str) -> AsyncGenerator[tuple[str, str]]:
        """Yield (router endpoint, router token) of one Listen stream. Ends and raises like ``status``."""
        stub, meta = await self._stub()
        call = stub.Listen(pb.ListenRequest(lease_name=lease), metadata=meta)
        try:
            async for message in call:
                yield message.router_endpoint, message.router_token
        finally:
            call.cancel()

    async def recover(self, error: grpc.aio.AioRpcError | ChannelProblem) -> None:
        """Do what may help before the next attempt: look at the certificate again, read the token again."""
        if isinstance(error, grpc.aio.AioRpcError):
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                await self._channels.forget(self.endpoint)
            elif error.code() is grpc.StatusCode.UNAUTHENTICATED and (token := await self._tokens()) is not None:
                self._token = token

    async def _stub(self) -> tuple["jumpstarter_pb2_grpc.ControllerServiceAsyncStub", Metadata]:
        channel = await self._channels.get(self.endpoint)
        metadata = [
            ("authorization", f"Bearer {self._token}"),
            ("jumpstarter-kind", "Exporter"),
            ("jumpstarter-name", self._name),
        ]
        if self._namespace is not None:
            metadata.append(("jumpstarter-namespace", self._namespace))
        return jumpstarter_pb2_grpc.ControllerServiceStub(channel), tuple(metadata)

    async def _insist(
        self,
        what: str,
        call: Callable[["jumpstarter_pb2_grpc.ControllerServiceAsyncStub", Metadata], Awaitable[Answer]],
    ) -> Answer:
        failures = 0
        while True:
            try:
                stub, meta = await self._stub()
                return await call(stub, meta)
            except (grpc.aio.AioRpcError, ChannelProblem) as error:
                if isinstance(error, grpc.aio.AioRpcError) and error.code() in _HOPELESS:
                    raise Refused(what, error.code(), error.details() or "") from error
                failures += 1
                problem = describe(error)
                log.warning("controller.call_failed", call=what, problem=problem, attempt=failures)
                await self.recover(error)
                await asyncio.sleep(delay_seconds(failures, random.random()))


def describe(error: grpc.aio.AioRpcError | ChannelProblem) -> str:
    """Return one line for a log."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details() or 'no details'}"
    return str(error)


def _told(message: pb.StatusResponse) -> Told:
    if not message.leased:
        return Told(None, message.released_grant)
    end = message.planned_end.ToDatetime(tzinfo=UTC) if message.HasField("planned_end") else None
    return Told(Held(message.lease_name, message.client_name, message.grant, end), message.released_grant)
