"""What an error of ours means as a gRPC status: the only table of its kind in the front end."""

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self
from uuid import uuid4

import grpc
import grpc.aio
import structlog

from lablease.errors import (
    AlreadyExists,
    Gone,
    InvalidField,
    LableaseError,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotNow,
    Stale,
    Unavailable,
)

CODES: tuple[tuple[type[LableaseError], grpc.StatusCode], ...] = (
    (InvalidField, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
    (NotAllowed, grpc.StatusCode.PERMISSION_DENIED),
    (NotAuthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (NotNow, grpc.StatusCode.FAILED_PRECONDITION),
    (Stale, grpc.StatusCode.ABORTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (Gone, grpc.StatusCode.UNAVAILABLE),
)
"""The first row whose class fits decides."""

EXPIRED = "token is expired"

log = structlog.get_logger(__name__)


def refusal(error: LableaseError) -> tuple[grpc.StatusCode, str]:
    """Return code and details.

    The details are one line, because jmp 0.9.0 prints only that; the word ``expired``, which may come from a hook's
    message, appears only in the one sentence about which jmp 0.9.0 knows what to do: on any other it breaks.
    """
    text = " ".join(str(error).split())
    if EXPIRED not in text:
        text = text.replace("expired", "ended")
    return next((code for kind, code in CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL), text


class Aborts(Protocol):
    """The part of a servicer context that ends a call."""

    async def abort(self, code: grpc.StatusCode, details: str) -> object: ...


class Boundary:
    """Encloses one call: errors of ours end it as the table says, any other as INTERNAL.

    What nobody expected is logged with an id, and the peer gets only that id: its text may quote anything.

    Args:
        context: of the call.
        method: its name, for the log.
        ended: told the name of the status with which the call ends.
    """

    def __init__(self, context: Aborts, method: str, ended: Callable[[str], None]) -> None:
        self._context = context
        self._method = method
        self._ended = ended

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, LableaseError):
            code, details = refusal(error)
            self._ended(code.name)
            await self._context.abort(code, details)
        elif isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            self._ended(grpc.StatusCode.INTERNAL.name)
            request = uuid4().hex[:12]
            log.error("rpc.failed", method=self._method, request_id=request, exc_info=(kind, error, trace))
            await self._context.abort(grpc.StatusCode.INTERNAL, f"internal error, request {request}")
        else:
            self._ended((grpc.StatusCode.OK if error is None else grpc.StatusCode.CANCELLED).name)
