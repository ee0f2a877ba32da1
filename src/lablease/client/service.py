"""ClientService and Dial as typed methods that behave well: deadlines, retries where a repeat is harmless."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import grpc
import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from lablease.client.channel import Metadata, Trust, caller_metadata, open_channel
from lablease.client.config import ClientConfig
from lablease.client.errors import ServiceError
from lablease.client.resources import (
    ExporterInfo,
    LeaseInfo,
    LeaseRequest,
    parse_exporter,
    parse_lease,
    to_lease_message,
)
from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.client.v1.client_pb2_grpc import ClientServiceStub
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2
from lablease.wire.jumpstarter.v1.jumpstarter_pb2_grpc import ControllerServiceStub

_CALL_SECONDS = 45.0  # a controller may hold Dial for 30 s until the exporter is ready
_PAGE = 100
_WAIT_KEY = "x-lablease-wait"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0

Request = TypeVar("Request")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tunnelling:
    """Where to open the client's half of a tunnel, and with which token."""

    endpoint: str
    token: str


class Controller:
    """The controller as one Client object sees it.

    ``patience`` is how long UNAVAILABLE is taken for a restart and the call repeated. ``reload_token`` is asked
    once when the token is refused; if it gives another one, the call is repeated with that.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        config: ClientConfig,
        *,
        patience: timedelta = timedelta(seconds=5),
        reload_token: Callable[[], str] | None = None,
    ) -> None:
        self.namespace = config.metadata.namespace
        self.client = config.metadata.name
        self.config = config
        self.trust = trust_of(config)
        self._clients = ClientServiceStub(channel)
        self._control = ControllerServiceStub(channel)
        self._token = config.token
        self._reload_token = reload_token
        self._patience = patience.total_seconds()

    async def create_lease(self, request: LeaseRequest) -> LeaseInfo:
        """Ask for an exporter; returns at once, usually before one is assigned.

        The lease gets its name here if the request has none, so that a repeat after a lost answer finds it.
        """
        lease_id = request.lease_id or str(time_ordered_uuid(time.time_ns(), os.urandom(10)))
        message = client_pb2.CreateLeaseRequest(
            parent=f"namespaces/{self.namespace}", lease_id=lease_id, lease=to_lease_message(request)
        )
        attempts = 0

        async def create(metadata: Metadata) -> client_pb2.Lease:
            nonlocal attempts
            attempts += 1
            try:
                return await self._clients.CreateLease(message, metadata=metadata, timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if attempts == 1 or "already exists" not in (error.details() or ""):
                    raise
            name = client_pb2.GetLeaseRequest(name=self._lease(lease_id))
            return await self._clients.GetLease(name, metadata=metadata, timeout=_CALL_SECONDS)

        return parse_lease(await self._call("create lease", create))

    async def get_lease(self, name: str, wait: timedelta = timedelta(0)) -> LeaseInfo:
        """Look at a lease; ``wait`` lets a server that can hold the answer until there is news."""
        request = client_pb2.GetLeaseRequest(name=self._lease(name))
        seconds = int(wait.total_seconds())
        extra: Metadata = ((_WAIT_KEY, str(seconds)),) if seconds else ()
        return parse_lease(
            await self._call(
                f"get lease {name}",
                lambda m: self._clients.GetLease(request, metadata=m + extra, timeout=_CALL_SECONDS + seconds),
            )
        )

    async def list_leases(self, filter: str = "", tag_filter: str = "", *, only_active: bool = True) -> list[LeaseInfo]:
        """List the leases of the namespace, everybody's. ``filter`` is about labels of the lease object."""
        found: list[LeaseInfo] = []
        token = ""
        while True:
            request = client_pb2.ListLeasesRequest(
                parent=f"namespaces/{self.namespace}",
                page_size=_PAGE,
                page_token=token,
                filter=filter,
                tag_filter=tag_filter,
                only_active=only_active,
            )
            page = await self._call("list leases", _unary(self._clients.ListLeases, request))
            found += map(parse_lease, page.leases)
            if not (token := page.next_page_token):
                return found

    async def update_lease(
        self,
        name: str,
        *,
        duration: timedelta | None = None,
        begin_time: datetime | None = None,
        client: str | None = None,
    ) -> LeaseInfo:
        """Change times or hand the lease to another client; None leaves a field alone."""
        lease = client_pb2.Lease(name=self._lease(name))
        mask: list[str] = []
        if duration is not None:
            lease.duration.FromTimedelta(duration)
            mask.append("duration")
        if begin_time is not None:
            lease.begin_time.FromDatetime(begin_time)
            mask.append("begin_time")
        if client is not None:
            lease.client = f"namespaces/{self.namespace}/clients/{client}"
            mask.append("client")
        request = client_pb2.UpdateLeaseRequest(lease=lease, update_mask=FieldMask(paths=mask))
        return parse_lease(await self._call(f"update lease {name}", _unary(self._clients.UpdateLease, request)))

    async def delete_lease(self, name: str) -> None:
        """End a lease; the record of it stays."""
        request = client_pb2.DeleteLeaseRequest(name=self._lease(name))
        await self._call(f"release lease {name}", _unary(self._clients.DeleteLease, request))

    async def get_exporter(self, name: str) -> ExporterInfo:
        """Look at one exporter."""
        request = client_pb2.GetExporterRequest(name=f"namespaces/{self.namespace}/exporters/{name}")
        return parse_exporter(await self._call(f"get exporter {name}", _unary(self._clients.GetExporter, request)))

    async def list_exporters(self, filter: str = "", *, show_hidden_labels: bool = False) -> list[ExporterInfo]:
        """List the exporters of the namespace whose labels match ``filter``."""
        found: list[ExporterInfo] = []
        token = ""
        while True:
            request = client_pb2.ListExportersRequest(
                parent=f"namespaces/{self.namespace}",
                page_size=_PAGE,
                page_token=token,
                filter=filter,
                show_hidden_labels=show_hidden_labels,
            )
            page = await self._call("list exporters", _unary(self._clients.ListExporters, request))
            found += map(parse_exporter, page.exporters)
            if not (token := page.next_page_token):
                return found

    async def dial(self, lease: str, within: timedelta) -> Tunnelling:
        """Ask for a tunnel; "not ready" and UNAVAILABLE are repeated for ``within``.

        Raises:
            ServiceError: the last refusal.
        """
        request = jumpstarter_pb2.DialRequest(lease_name=lease)
        answer = await self._call(
            f"dial lease {lease}",
            _unary(self._control.Dial, request),
            patience=within.total_seconds(),
            again=lambda error: _is_unavailable(error) or _is_not_ready(error),
            pause=0.3,
        )
        return Tunnelling(answer.router_endpoint, answer.router_token)

    def _lease(self, name: str) -> str:
        return f"namespaces/{self.namespace}/leases/{name}"

    async def _call(
        self,
        operation: str,
        attempt: Callable[[Metadata], Awaitable[T]],
        *,
        patience: float | None = None,
        again: Callable[[grpc.aio.AioRpcError], bool] | None = None,
        pause: float = _FIRST_PAUSE,
    ) -> T:
        give_up = asyncio.get_running_loop().time() + (self._patience if patience is None else patience)
        repeatable = again or _is_unavailable
        while True:
            try:
                return await attempt(caller_metadata(self.namespace, self.client, self._token))
            except grpc.aio.AioRpcError as error:
                if self._has_other_token(error):
                    continue
                if not repeatable(error) or asyncio.get_running_loop().time() + pause > give_up:
                    raise ServiceError(operation, error.code().name, _one_line(error.details())) from None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _has_other_token(self, error: grpc.aio.AioRpcError) -> bool:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED or self._reload_token is None:
            return False
        fresh = self._reload_token()
        changed = fresh != self._token
        self._token = fresh
        return changed


@asynccontextmanager
async def connect(
    config: ClientConfig,
    *,
    patience: timedelta = timedelta(seconds=5),
    reload_token: Callable[[], str] | None = None,
) -> AsyncGenerator[Controller]:
    """Open a channel to the controller of a configuration for the life of the context."""
    channel = await open_channel(config.endpoint, trust_of(config))
    async with channel:
        yield Controller(channel, config, patience=patience, reload_token=reload_token)


def trust_of(config: ClientConfig) -> Trust:
    """Return how to judge the certificates of this configuration's controller and routers."""
    return Trust.parse(config.tls.ca, config.tls.insecure, config.grpc_options)


def time_ordered_uuid(now_ns: int, random: bytes) -> UUID:
    """Return a version 7 UUID: sorts by creation, in milliseconds. ``random`` must hold 10 bytes."""
    value = (now_ns // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(random[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def _unary(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, T], request: Request
) -> Callable[[Metadata], Awaitable[T]]:
    return lambda metadata: method(request, metadata=metadata, timeout=_CALL_SECONDS)


def _is_unavailable(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.UNAVAILABLE


def _is_not_ready(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.FAILED_PRECONDITION and "not ready" in (error.details() or "")


def _one_line(details: str | None) -> str:
    return " ".join((details or "").split())
