"""``jumpstarter.v1.ExporterService`` of a session."""

import logging
from collections.abc import AsyncIterator
from typing import Final, NoReturn, Protocol
from uuid import uuid4

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty

from lablease.driver.calls import call, iterate
from lablease.driver.faults import details, status_code
from lablease.driver.messages import jumpstarter_pb2 as pb
from lablease.driver.messages import jumpstarter_pb2_grpc
from lablease.driver.session import FAILED, Session
from lablease.driver.tree import Report
from lablease.driver.values import decode_value, encode_value

logger = logging.getLogger(__name__)

_MAX_DETAILS: Final = 4096
"""gRPC puts details in a header; longer ones would make the peer drop the answer."""


class ExporterService(jumpstarter_pb2_grpc.ExporterServiceServicer):
    """One instance per socket: ``via_hook`` tells the socket of hooks from that of clients."""

    def __init__(self, session: Session, *, via_hook: bool) -> None:
        self._session = session
        self._via_hook = via_hook

    async def GetReport(
        self, request: Empty, context: "grpc.aio.ServicerContext[Empty, pb.GetReportResponse]"
    ) -> pb.GetReportResponse:
        session = self._session
        answer = pb.GetReportResponse(
            uuid=session.exporter_uuid,
            labels=session.labels,
            reports=[report_message(report) for report in session.tree.reports],
        )
        if session.motd and "motd" in pb.GetReportResponse.DESCRIPTOR.fields_by_name:
            answer.motd = session.motd
        return answer

    async def GetStatus(
        self,
        request: pb.GetStatusRequest,
        context: "grpc.aio.ServicerContext[pb.GetStatusRequest, pb.GetStatusResponse]",
    ) -> pb.GetStatusResponse:
        view = self._session.view
        answer = pb.GetStatusResponse(status=int(view.status), message=view.message, status_version=view.version)  # type: ignore[arg-type]  # the stub wants its own enum type, the wire a number
        if view.previous is not None:
            answer.previous_status = int(view.previous)  # type: ignore[assignment]
        if view.status in FAILED and not self._via_hook:
            self._session.status_read(view.status)
        return answer

    async def EndSession(
        self,
        request: pb.EndSessionRequest,
        context: "grpc.aio.ServicerContext[pb.EndSessionRequest, pb.EndSessionResponse]",
    ) -> pb.EndSessionResponse:
        answer = await self._session.end_session()
        return pb.EndSessionResponse(success=answer.success, message=answer.message)

    async def Reset(
        self, request: pb.ResetRequest, context: "grpc.aio.ServicerContext[pb.ResetRequest, pb.ResetResponse]"
    ) -> pb.ResetResponse:
        try:
            self._session.admit(via_hook=self._via_hook)
            await self._session.reset()
        except Exception as error:  # noqa: BLE001 - drivers raise anything: the table says what the peer is told
            await fail(context, error, "reset")
        return pb.ResetResponse()

    async def LogStream(
        self, request: Empty, context: "grpc.aio.ServicerContext[Empty, pb.LogStreamResponse]"
    ) -> AsyncIterator[pb.LogStreamResponse]:
        async for line in self._session.log.follow():
            yield pb.LogStreamResponse(severity=line.severity, message=line.message, source=int(line.source))  # type: ignore[arg-type]

    async def DriverCall(
        self,
        request: pb.DriverCallRequest,
        context: "grpc.aio.ServicerContext[pb.DriverCallRequest, pb.DriverCallResponse]",
    ) -> pb.DriverCallResponse:
        try:
            self._session.admit(via_hook=self._via_hook)
            function = self._session.callee(request.uuid).unary(request.method)
            result = await call(function, [decode_value(arg) for arg in request.args])
            return pb.DriverCallResponse(uuid=str(uuid4()), result=encode_value(result))
        except Exception as error:  # noqa: BLE001 - drivers raise anything: the table says what the peer is told
            await fail(context, error, request.method)

    async def StreamingDriverCall(
        self,
        request: pb.StreamingDriverCallRequest,
        context: "grpc.aio.ServicerContext[pb.StreamingDriverCallRequest, pb.StreamingDriverCallResponse]",
    ) -> AsyncIterator[pb.StreamingDriverCallResponse]:
        try:
            self._session.admit(via_hook=self._via_hook)
            function = self._session.callee(request.uuid).streaming(request.method)
            async for item in iterate(function, [decode_value(arg) for arg in request.args]):
                self._session.admit(via_hook=self._via_hook)
                yield pb.StreamingDriverCallResponse(uuid=str(uuid4()), result=encode_value(item))
        except Exception as error:  # noqa: BLE001 - drivers raise anything: the table says what the peer is told
            await fail(context, error, request.method)


def report_message(report: Report) -> pb.DriverInstanceReport:
    """Return the wire form of one entry."""
    return pb.DriverInstanceReport(
        uuid=report.uuid,
        parent_uuid=report.parent_uuid,
        labels=report.labels,
        description=report.description,
        methods_description=report.methods_description,
    )


class _Abortable(Protocol):
    async def abort(self, code: grpc.StatusCode, details: str = ...) -> NoReturn: ...


async def fail(context: _Abortable, error: Exception, what: str) -> NoReturn:
    """End the call with the code for ``error``. Raises grpc's abort error, always."""
    code = status_code(error)
    if code is grpc.StatusCode.UNKNOWN:
        logger.error("driver call %s failed", what, exc_info=error)
    await context.abort(code, details(error)[:_MAX_DETAILS])
