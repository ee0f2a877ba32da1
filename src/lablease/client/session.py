"""A gRPC session with an exporter: status, driver tree, calls, streams, files, logs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty

from lablease.client.errors import (
    ClientError,
    DriverError,
    DriverInvalidArgument,
    DriverMethodNotImplemented,
    ExporterNotReady,
    ExporterUnreachable,
)
from lablease.client.frames import FrameStream, StreamBroken
from lablease.client.tree import DriverNode, build_tree
from lablease.client.values import Json, from_value, to_value
from lablease.wire.jumpstarter.v1 import common_pb2, jumpstarter_pb2
from lablease.wire.jumpstarter.v1.jumpstarter_pb2_grpc import ExporterServiceStub
from lablease.wire.jumpstarter.v1.router_pb2_grpc import RouterServiceStub

READY_LIMIT = timedelta(seconds=300)
"""How long a beforeLease hook may take; stock clients wait as long."""

_POLL_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25
_END_SECONDS = 5.0
_OPTIONS = (
    # gRPC gives a new connection 20 s to show HTTP/2 settings, unless this is longer. A stock exporter is silent
    # on its tunnels until its beforeLease hook is done.
    ("grpc.min_reconnect_backoff_ms", int(READY_LIMIT.total_seconds() + 10) * 1000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.enable_http_proxy", 0),
)
_PASSPHRASE_KEY = "x-jumpstarter-passphrase"
_STATUS_PREFIX = "EXPORTER_STATUS_"
_SOURCE_PREFIX = "LOG_SOURCE_"

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ExporterState:
    """What GetStatus says; ``status`` without its prefix, such as ``LEASE_READY``. Versions grow within a session."""

    status: str
    message: str
    version: int


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the exporter's log; ``source`` is DRIVER, BEFORE_LEASE_HOOK, AFTER_LEASE_HOOK or SYSTEM."""

    source: str
    severity: str
    message: str


class Session:
    """One connection to an exporter. ``root`` is empty until ``load`` was awaited; ``report`` is what it came from."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata = ()) -> None:
        self.channel = channel
        self._exporter = ExporterServiceStub(channel)
        self._router = RouterServiceStub(channel)
        self._metadata = metadata
        self.report = b""
        self.root = DriverNode("", (), "", {})

    async def load(self) -> DriverNode:
        """Fetch the driver tree and keep it as ``root``.

        Raises:
            ExporterUnreachable, ClientError: no answer, or a report that makes no tree.
        """
        try:
            report = await self._exporter.GetReport(
                Empty(), metadata=self._metadata, wait_for_ready=True, timeout=READY_LIMIT.total_seconds()
            )
        except grpc.aio.AioRpcError as error:
            raise ExporterUnreachable(f"exporter gives no report: {_details(error)}") from None
        self.report = report.SerializeToString()
        self.root = build_tree(report)
        return self.root

    def adopt(self, report: bytes) -> DriverNode:
        """Take the tree from the ``report`` of another connection to the same exporter under the same lease."""
        self.report = report
        self.root = build_tree(jumpstarter_pb2.GetReportResponse.FromString(report))
        return self.root

    async def state(self, within_seconds: float = _POLL_SECONDS) -> ExporterState:
        """Ask once how the exporter is; one that cannot tell counts as LEASE_READY.

        Raises:
            ExporterUnreachable: no answer within the time.
        """
        try:
            answer = await self._exporter.GetStatus(
                jumpstarter_pb2.GetStatusRequest(), metadata=self._metadata, wait_for_ready=True, timeout=within_seconds
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return ExporterState("LEASE_READY", "", 0)
            raise ExporterUnreachable(f"exporter does not tell its status: {_details(error)}") from None
        name = _name(common_pb2.ExporterStatus.items(), answer.status, _STATUS_PREFIX)
        return ExporterState(name, answer.message, answer.status_version)

    async def wait_ready(
        self, limit: timedelta = READY_LIMIT, on_state: Callable[[ExporterState], None] | None = None
    ) -> ExporterState:
        """Wait until the exporter serves this lease. AVAILABLE before LEASE_READY is normal, so is silence.

        Raises:
            ExporterNotReady: its beforeLease hook failed, it went offline, or ``limit`` is over.
            ExporterUnreachable: it never answered.
        """
        clock = asyncio.get_running_loop().time
        give_up = clock() + limit.total_seconds()
        pause = _FIRST_PAUSE
        state: ExporterState | None = None
        while (left := give_up - clock()) > 0:
            try:
                seen = await self.state(left if state is None else min(_POLL_SECONDS, left))
            except ExporterUnreachable:
                if state is None:
                    raise
                seen = state  # the connection is being made again
            if seen != state and on_state:
                on_state(seen)
            state = seen
            if state.status == "LEASE_READY":
                return state
            if state.status in {"BEFORE_LEASE_HOOK_FAILED", "OFFLINE"}:
                raise ExporterNotReady(f"exporter is {state.status}: {state.message or 'no reason given'}")
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE)
        told = f"still {state.status} ({state.message})" if state else "silent"
        raise ExporterNotReady(f"exporter is {told} after {limit.total_seconds():g} s")

    async def call(self, uuid: str, method: str, *args: object) -> Json:
        """Call a unary method of a driver; runs as long as it runs.

        Raises:
            DriverError: or one of its kinds; ExporterNotReady: the exporter serves no drivers now.
        """
        request = jumpstarter_pb2.DriverCallRequest(uuid=uuid, method=method, args=[to_value(a) for a in args])
        try:
            answer = await self._exporter.DriverCall(request, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise driver_error(method, error.code().name, error.details() or "") from None
        return from_value(answer.result)

    async def streaming_call(self, uuid: str, method: str, *args: object) -> AsyncGenerator[Json]:
        """Call a streaming method; leaving the iteration early cancels it at the driver.

        Raises: as ``call``.
        """
        request = jumpstarter_pb2.StreamingDriverCallRequest(uuid=uuid, method=method, args=[to_value(a) for a in args])
        call = self._exporter.StreamingDriverCall(request, metadata=self._metadata)
        try:
            async for answer in call:
                yield from_value(answer.result)
        except grpc.aio.AioRpcError as error:
            raise driver_error(method, error.code().name, error.details() or "") from None
        finally:
            call.cancel()

    @asynccontextmanager
    async def stream(self, uuid: str, method: str = "connect") -> AsyncGenerator[FrameStream]:
        """Open a byte stream of a driver; the end of the context closes it at the device too.

        Raises:
            DriverError: the driver refused it.
        """
        async with self._open({"kind": "driver", "uuid": uuid, "method": method}, method) as (stream, _):
            yield stream

    @asynccontextmanager
    async def resource(
        self, uuid: str, encoding: str | None = None
    ) -> AsyncGenerator[tuple[FrameStream, Mapping[str, Json], bool]]:
        """Open a stream for a file that a driver reads or writes.

        ``encoding`` names the compression of the file on this side. Yields the stream, the handle to pass as an
        argument of the driver's method, and whether the exporter translates ``encoding`` itself.
        """
        request = {"kind": "resource", "uuid": uuid, "x_jmp_content_encoding": encoding}
        async with self._open(request, "resource") as (stream, metadata):
            handle = json.loads(metadata.get("resource", "null"))
            if not isinstance(handle, dict):
                raise ClientError("the exporter opened a resource stream without naming the resource")
            accepted = metadata.get("x_jmp_accept_encoding") == encoding
            yield stream, cast("Mapping[str, Json]", handle), accepted

    async def logs(self) -> AsyncGenerator[LogLine]:
        """Yield log lines until the connection ends; a lost stream is opened again."""
        pause = 0.1
        while pause < _POLL_SECONDS:
            call = self._exporter.LogStream(Empty(), metadata=self._metadata, wait_for_ready=True)
            try:
                async for line in call:
                    pause = 0.1
                    source = _name(common_pb2.LogSource.items(), line.source, _SOURCE_PREFIX)
                    yield LogLine(source, line.severity, line.message)
            except grpc.aio.AioRpcError as error:
                if error.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.CANCELLED}:
                    return
            finally:
                call.cancel()
            await asyncio.sleep(pause)
            pause *= 2

    async def end(
        self, limit: timedelta = READY_LIMIT, on_state: Callable[[ExporterState], None] | None = None
    ) -> ExporterState | None:
        """Run the afterLease hook and wait for it, so that its output is seen; the lease is not released by this.

        Returns the last state, None if the exporter was gone or had nothing to end.

        Raises:
            ExporterNotReady: the hook failed, or took longer than ``limit``.
        """
        clock = asyncio.get_running_loop().time
        give_up = clock() + limit.total_seconds()
        try:
            before = await self.state(_END_SECONDS)
            if before.status not in {"LEASE_READY", "AFTER_LEASE_HOOK"}:
                return before
            answer = await self._exporter.EndSession(
                jumpstarter_pb2.EndSessionRequest(), metadata=self._metadata, timeout=_END_SECONDS
            )
            if not answer.success:
                return before
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
        except ExporterUnreachable:
            return None
        state: ExporterState | None = None
        pause = _FIRST_PAUSE
        while clock() < give_up:
            try:
                seen = await self.state(_END_SECONDS)
            except ExporterUnreachable:
                return state
            if seen != state and on_state:
                on_state(seen)
            state = seen
            if state.status == "AFTER_LEASE_HOOK_FAILED":
                raise ExporterNotReady(f"the afterLease hook failed: {state.message or 'no reason given'}")
            if state.status not in {"LEASE_READY", "AFTER_LEASE_HOOK"}:
                return state
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE)
        raise ExporterNotReady(f"the afterLease hook did not end within {limit.total_seconds():g} s")

    @asynccontextmanager
    async def _open(
        self, request: Mapping[str, str | None], what: str
    ) -> AsyncGenerator[tuple[FrameStream, dict[str, str]]]:
        call = self._router.Stream(None, metadata=(*self._metadata, ("request", json.dumps(request))))
        stream = FrameStream(call)
        try:
            try:
                metadata = await stream.opened()
            except StreamBroken as error:
                raise driver_error(what, error.code, error.details) from None
            yield stream, metadata
        finally:
            stream.close()


@asynccontextmanager
async def open_session(target: str, env: Mapping[str, str] = os.environ) -> AsyncGenerator[Session]:
    """Open a session with what JUMPSTARTER_HOST names: the path of a unix socket, or ``host:port`` of an exporter
    without a controller.

    The latter is TLS judged by the system's roots, plain text if JMP_GRPC_INSECURE is 1; JMP_GRPC_PASSPHRASE is its
    passphrase.
    """
    passphrase = env.get("JMP_GRPC_PASSPHRASE")
    metadata: Metadata = ((_PASSPHRASE_KEY, passphrase),) if passphrase else ()
    if "/" in target:
        channel = grpc.aio.insecure_channel(f"unix:{target}", options=_OPTIONS)
    elif env.get("JMP_GRPC_INSECURE") == "1":
        channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
    else:
        channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=_OPTIONS)
    async with channel:
        yield Session(channel, metadata)


def driver_error(method: str, code: str, details: str) -> ClientError:
    """Return what a failed call of a driver method means to its caller."""
    match code:
        case "FAILED_PRECONDITION":
            return ExporterNotReady(details)
        case "UNIMPLEMENTED" | "NOT_FOUND":
            return DriverMethodNotImplemented(method, code, details)
        case "INVALID_ARGUMENT":
            return DriverInvalidArgument(method, code, details)
        case _:
            return DriverError(method, code, details)


def _name(items: Sequence[tuple[str, int]], value: int, prefix: str) -> str:
    return next((name.removeprefix(prefix) for name, number in items if number == value), "UNSPECIFIED")


def _details(error: grpc.aio.AioRpcError) -> str:
    return f"{error.details() or 'no details'} ({error.code().name})"
