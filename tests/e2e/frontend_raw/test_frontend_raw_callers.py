"""Who may call, health and reflection, oversize messages: through raw stubs against the real processes."""

from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from lablease.testing.raw import (
    CLIENT,
    CODE,
    CONTROLLER,
    LIST,
    Peer,
    is_controller,
    next_message,
    refused,
)
from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2

EXPORTER_CALLS: list[tuple[str, Any]] = [
    ("Register", jumpstarter_pb2.RegisterRequest()),
    ("Unregister", jumpstarter_pb2.UnregisterRequest()),
    ("ReportStatus", jumpstarter_pb2.ReportStatusRequest()),
    ("GetServiceEndpoints", jumpstarter_pb2.GetServiceEndpointsRequest()),
]
CLIENT_CALLS: list[tuple[str, Any]] = [
    ("Dial", jumpstarter_pb2.DialRequest(lease_name="x")),
    ("GetLease", jumpstarter_pb2.GetLeaseRequest(name="x")),
    ("RequestLease", jumpstarter_pb2.RequestLeaseRequest()),
    ("ListLeases", jumpstarter_pb2.ListLeasesRequest()),
    ("GetExporter", client_pb2.GetExporterRequest(name="namespaces/lab/exporters/x")),
    ("ListExporters", client_pb2.ListExportersRequest(parent="namespaces/lab")),
    ("GetLease", client_pb2.GetLeaseRequest(name="namespaces/lab/leases/x")),
    ("ListLeases", client_pb2.ListLeasesRequest(parent="namespaces/lab")),
    ("CreateLease", client_pb2.CreateLeaseRequest(parent="namespaces/lab", lease=client_pb2.Lease(selector="a=b"))),
    ("UpdateLease", client_pb2.UpdateLeaseRequest(lease=client_pb2.Lease(name="namespaces/lab/leases/x"))),
    ("DeleteLease", client_pb2.DeleteLeaseRequest(name="namespaces/lab/leases/x")),
    ("RotateToken", client_pb2.RotateTokenRequest(parent="namespaces/lab")),
]


def _ids(calls: list[tuple[str, Any]]) -> list[str]:
    return [f"{'controller' if is_controller(request) else 'client'}-{method}" for method, request in calls]


@pytest.mark.parametrize(("method", "request_"), EXPORTER_CALLS, ids=_ids(EXPORTER_CALLS))
async def test_calls_of_exporters_are_for_exporters_with_a_token(
    board: Peer, alice: Peer, method: str, request_: Any
) -> None:
    async with refused(CODE.UNAUTHENTICATED, "no token"):
        await board.without("authorization").call(method, request_)
    async with refused(CODE.PERMISSION_DENIED, "for Exporter"):
        await alice.call(method, request_)


@pytest.mark.parametrize(("method", "request_"), CLIENT_CALLS, ids=_ids(CLIENT_CALLS))
async def test_calls_of_clients_are_for_clients_with_a_token(
    board: Peer, alice: Peer, method: str, request_: Any
) -> None:
    async with refused(CODE.UNAUTHENTICATED, "no token"):
        await alice.without("authorization").call(method, request_)
    async with refused(CODE.PERMISSION_DENIED, "for Client"):
        await board.call(method, request_)


@pytest.mark.parametrize("stream", ["Status", "Listen"])
async def test_streams_are_for_exporters_with_a_token(board: Peer, alice: Peer, stream: str) -> None:
    request = {"Status": jumpstarter_pb2.StatusRequest(), "Listen": jumpstarter_pb2.ListenRequest(lease_name="x")}
    async with refused(CODE.UNAUTHENTICATED):
        await getattr(board.controller, stream)(
            request[stream], metadata=board.without("authorization").metadata
        ).read()
    async with refused(CODE.PERMISSION_DENIED):
        await getattr(alice.controller, stream)(request[stream], metadata=alice.metadata).read()


async def test_a_token_must_be_a_whole_unchanged_token_of_ours(alice: Peer) -> None:
    token = alice.metadata[0][1]
    head, body, signature = token.split(".")
    for changed in ("Bearer nonsense", f"{head}.{body}.{signature[::-1]}", f"{head}.{body}x.{signature}"):
        async with refused(CODE.UNAUTHENTICATED, "token"):
            await alice.with_("authorization", changed).call("ListLeases", LIST)
    for malformed in ("Basic x", "Bearer"):
        async with refused(CODE.INVALID_ARGUMENT, "authorization"):
            await alice.with_("authorization", malformed).call("ListLeases", LIST)
    async with refused(CODE.INVALID_ARGUMENT, "authorization"):
        await alice.plus("authorization", token).call("ListLeases", LIST)


async def test_a_token_speaks_for_its_own_object_only(alice: Peer, bob: Peer, board: Peer) -> None:
    async with refused(CODE.UNAUTHENTICATED, "does not belong"):
        await alice.with_("jumpstarter-name", bob.name).call("ListLeases", LIST)
    for entry in board.metadata[1:]:
        alice = alice.with_(*entry)
    async with refused(CODE.UNAUTHENTICATED, "does not belong"):
        await alice.call("Register", jumpstarter_pb2.RegisterRequest())


async def test_an_unknown_object_or_namespace_is_no_proof(alice: Peer) -> None:
    for key in ("jumpstarter-name", "jumpstarter-namespace"):
        async with refused(CODE.UNAUTHENTICATED, "nobody"):
            await alice.with_(key, "nobody").call("ListLeases", LIST)


async def test_the_three_entries_must_be_there_once(alice: Peer) -> None:
    for key in ("jumpstarter-kind", "jumpstarter-namespace", "jumpstarter-name"):
        for changed in (alice.without(key), alice.plus(key, "x")):
            async with refused(CODE.INVALID_ARGUMENT, key):
                await changed.call("ListLeases", LIST)
    async with refused(CODE.INVALID_ARGUMENT, "jumpstarter-kind"):
        await alice.with_("jumpstarter-kind", "client").call("ListLeases", LIST)


async def test_an_oversize_message_is_refused_and_the_next_one_served(alice: Peer) -> None:
    huge = client_pb2.CreateLeaseRequest(parent=alice.parent, lease_id="x" * (5 << 20))
    async with refused(CODE.RESOURCE_EXHAUSTED):
        await alice.call("CreateLease", huge)
    await alice.call("ListLeases", LIST)


async def test_health_is_told_without_a_token(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", CONTROLLER, CLIENT):
        answer: Any = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_names_both_services(channel: grpc.aio.Channel, version: str) -> None:
    opened: Any = channel
    ask = opened.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answer = await next_message(call)
    assert {CONTROLLER, CLIENT} <= {item.name for item in answer.list_services_response.service}
