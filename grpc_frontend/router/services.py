"""Puts the router's four services on a gRPC server. The only place that knows how gRPC wants handlers.

The stubs of grpcio leave handlers untyped and lack the asyncio half of health and reflection:
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from typing import Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from lablease.grpc_frontend.router.control import Control
from lablease.grpc_frontend.router.rendezvous import Rendezvous
from lablease.wire.internal.v1 import router_control_pb2 as control_pb

ROUTER_SERVICE = "jumpstarter.v1.RouterService"
CONTROL_SERVICE = "lablease.internal.v1.RouterControl"
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class Health(Protocol):
    """What the router needs of the health service."""

    async def enter_graceful_shutdown(self) -> None:
        """Answer NOT_SERVING from now on."""
        ...


def new_server(options: Sequence[tuple[str, int]]) -> grpc.aio.Server:
    """Return a server with these channel options and nothing on it."""
    return grpc.aio.server(options=options)


async def add_services(server: grpc.aio.Server, rendezvous: Rendezvous, control: Control) -> Health:
    """Register RouterService, RouterControl, health (SERVING) and reflection (v1 and v1alpha)."""
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                ROUTER_SERVICE, {"Stream": grpc.stream_stream_rpc_method_handler(rendezvous.stream)}
            ),
            grpc.method_handlers_generic_handler(
                CONTROL_SERVICE,
                {
                    "Control": grpc.stream_stream_rpc_method_handler(
                        control.control,
                        request_deserializer=control_pb.ControlRequest.FromString,
                        response_serializer=control_pb.ControlEvent.SerializeToString,
                    )
                },
            ),
            *_reflection(),
        ]
    )
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for service in ("", ROUTER_SERVICE, CONTROL_SERVICE):
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    return servicer  # type: ignore[no-any-return]


def _reflection() -> "list[grpc.GenericRpcHandler[object, object]]":
    """Serve both versions: their messages are the same, only the name of the package differs."""
    names = (ROUTER_SERVICE, CONTROL_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME, REFLECTION_V1)
    servicer = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [
        grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": handler})
        for service in (reflection.SERVICE_NAME, REFLECTION_V1)
    ]
