"""The front end's gRPC server: services, options, start and drain.

The stubs of grpcio lack the asyncio half of health and reflection:
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Self

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from lablease.errors import Unavailable
from lablease.grpc_frontend.bells import Bells
from lablease.grpc_frontend.services import client, controller

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"

OPTIONS: Sequence[tuple[str, int]] = (
    # jmp 0.9.0 pings every 20 s on idle streams; a server with default options hangs up on it after a minute.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    # Our own pings notice an exporter that lost its power.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_metadata_size", 32 * 1024),
    # A successor on the same host binds before this process stops to listen.
    ("grpc.so_reuseport", 1),
)

log = structlog.get_logger(__name__)


class FrontendServer:
    """One gRPC server: started by ``start``, ended by ``drain``."""

    def __init__(self, server: grpc.aio.Server, servicer: Any, port: int) -> None:
        self.port = port
        self._server = server
        self._health = servicer

    @classmethod
    async def start(
        cls,
        address: str,
        credentials: grpc.ServerCredentials,
        services: Sequence["grpc.GenericRpcHandler[Any, Any]"],
    ) -> Self:
        """Bind and serve; port 0 lets the system choose, ``port`` of the result tells which.

        Raises:
            Unavailable: the address cannot be bound.
        """
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers([*services, *_reflection()])
        servicer: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        for service in ("", controller.NAME, client.NAME):
            await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        try:
            port = server.add_secure_port(address, credentials)
        except RuntimeError:
            raise Unavailable(f"cannot listen on {address}") from None
        await server.start()
        log.info("frontend.listening", address=address, port=port)
        return cls(server, servicer, port)

    async def drain(self, draining: asyncio.Event, bells: Bells, patience: timedelta) -> None:
        """Stop listening, then end Status and Listen with OK, so that exporters reopen them elsewhere at once.

        Other calls may go on for ``patience``. Draining again does nothing.
        """
        if draining.is_set():
            return
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.create_task(self._server.stop(patience.total_seconds()))
        await asyncio.sleep(0)  # the listening socket is closed before the first stream ends
        draining.set()
        bells.ring_all()
        await stopping
        log.info("frontend.stopped")


def _reflection() -> "list[grpc.GenericRpcHandler[Any, Any]]":
    """Serve both versions: their messages are the same, only the name of the package differs."""
    names = (controller.NAME, client.NAME, health.SERVICE_NAME, reflection.SERVICE_NAME, REFLECTION_V1)
    servicer: Any = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [
        grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": handler})
        for service in (reflection.SERVICE_NAME, REFLECTION_V1)
    ]
