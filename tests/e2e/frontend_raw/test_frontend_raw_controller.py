"""The lease calls of ControllerService, and GetExporter and ListExporters, through raw stubs."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from lablease.testing.raw import (
    AVAILABLE,
    CODE,
    LIST,
    Online,
    Peer,
    acquire,
    create,
    eventually,
    plain,
    refused,
    wanted,
)
from lablease.testing.stack import Stack
from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2, kubernetes_pb2


async def test_audit_takes_entries_of_the_caller_only(online: Online) -> None:
    uid = online.stored()["metadata"]["uid"]

    async def send(uuid: str) -> None:
        entries = [jumpstarter_pb2.AuditStreamRequest(exporter_uuid=uuid, severity="INFO", message="power on")]
        await online.peer.controller.AuditStream(iter(entries), metadata=online.peer.metadata)

    await send(uid)
    async with refused(CODE.PERMISSION_DENIED, "exporter_uuid"):
        await send("another")


async def test_no_other_service_is_named(board: Peer) -> None:
    answer = await board.call("GetServiceEndpoints", jumpstarter_pb2.GetServiceEndpointsRequest())
    assert list(answer.telemetry_endpoints) == []


def by_label(name: str) -> kubernetes_pb2.LabelSelector:
    return kubernetes_pb2.LabelSelector(match_labels={"board": name})


async def test_request_get_list_and_release_of_controller_service(online: Online, alice: Peer, bob: Peer) -> None:
    request = jumpstarter_pb2.RequestLeaseRequest(duration=Duration(seconds=60), selector=by_label(online.name))
    name = (await alice.call("RequestLease", request)).name

    async def look() -> jumpstarter_pb2.GetLeaseResponse:
        found: jumpstarter_pb2.GetLeaseResponse = await alice.call(
            "GetLease", jumpstarter_pb2.GetLeaseRequest(name=name)
        )
        return found

    lease = await eventually(look, lambda item: item.exporter_uuid != "")
    assert lease.exporter_uuid == online.stored()["metadata"]["uid"]
    assert lease.duration.ToTimedelta() == timedelta(minutes=1)
    assert dict(lease.selector.match_labels) == {"board": online.name}
    assert lease.HasField("begin_time")
    assert not lease.HasField("end_time")
    assert lease.conditions[-1].type == "Ready"
    assert name in (await alice.call("ListLeases", LIST)).names
    assert name not in (await bob.call("ListLeases", LIST)).names
    for call in ("GetLease", "ReleaseLease"):
        message = getattr(jumpstarter_pb2, f"{call}Request")
        async with refused(CODE.PERMISSION_DENIED, "permission denied"):
            await bob.call(call, message(name=name))
        async with refused(CODE.NOT_FOUND, "no-such"):
            await alice.call(call, message(name="no-such"))
        async with refused(CODE.INVALID_ARGUMENT, "name"):
            await alice.call(call, message())
    for _ in range(2):
        await alice.call("ReleaseLease", jumpstarter_pb2.ReleaseLeaseRequest(name=name))
    assert name not in (await alice.call("ListLeases", LIST)).names


async def test_request_lease_needs_a_selector_and_a_positive_duration(alice: Peer) -> None:
    minute = Duration(seconds=60)
    bad = [
        ("selector", jumpstarter_pb2.RequestLeaseRequest(duration=minute)),
        ("duration", jumpstarter_pb2.RequestLeaseRequest(selector=by_label("x"))),
        ("duration", jumpstarter_pb2.RequestLeaseRequest(selector=by_label("x"), duration=Duration())),
        (
            "operator",
            jumpstarter_pb2.RequestLeaseRequest(
                duration=minute,
                selector=kubernetes_pb2.LabelSelector(
                    match_expressions=[kubernetes_pb2.LabelSelectorRequirement(key="a", operator="Is", values=["b"])]
                ),
            ),
        ),
    ]
    for word, request in bad:
        async with refused(CODE.INVALID_ARGUMENT, word):
            await alice.call("RequestLease", request)


async def test_an_exporter_ends_only_the_lease_that_it_holds(online: Online, board: Peer, alice: Peer) -> None:
    lease = await acquire(alice, online)
    request = jumpstarter_pb2.ReleaseLeaseRequest(name=plain(lease))
    async with refused(CODE.FAILED_PRECONDITION, board.name):
        await board.call("ReleaseLease", request)
    async with refused(CODE.NOT_FOUND, "no-such"):
        await online.peer.call("ReleaseLease", jumpstarter_pb2.ReleaseLeaseRequest(name="no-such"))
    stale = jumpstarter_pb2.ReleaseLeaseRequest(name=plain(lease), grant=lease.grant - 1)
    await online.peer.call("ReleaseLease", stale)
    assert "release" not in online.stack.kube.get("leases", plain(lease))["spec"]
    for _ in range(2):
        await online.peer.call("ReleaseLease", request)
    assert not (await online.told()).leased


async def test_get_exporter(online: Online, alice: Peer) -> None:
    name = alice.path("exporters", online.name)

    async def look() -> client_pb2.Exporter:
        found: client_pb2.Exporter = await alice.call("GetExporter", client_pb2.GetExporterRequest(name=name))
        return found

    found = await eventually(look, lambda item: item.online)  # pyright: ignore[reportDeprecated] stock clients show it
    assert found.name == name
    assert dict(found.labels) == {"board": online.name}
    assert (found.status, found.status_message, found.enabled) == (AVAILABLE, "here", True)
    async with refused(CODE.NOT_FOUND, "no-such"):
        await alice.call("GetExporter", client_pb2.GetExporterRequest(name=alice.path("exporters", "no-such")))
    async with refused(CODE.INVALID_ARGUMENT, "name"):
        await alice.call("GetExporter", client_pb2.GetExporterRequest(name=online.name))
    async with refused(CODE.PERMISSION_DENIED, "namespace mismatch"):
        await alice.call("GetExporter", client_pb2.GetExporterRequest(name="namespaces/other/exporters/x"))


async def test_list_exporters_filters_and_pages(stack: Stack, alice: Peer) -> None:
    group = stack.name("group")
    names = sorted([stack.make_exporter("page", {"group": group}).name for _ in range(5)])
    seen: list[str] = []
    token = ""
    while True:
        request = client_pb2.ListExportersRequest(
            parent=alice.parent, page_size=2, page_token=token, filter=f"group in ({group}),!missing"
        )
        page = await alice.call("ListExporters", request)
        assert len(page.exporters) <= 2
        seen += [item.name.rpartition("/")[2] for item in page.exporters]
        token = page.next_page_token
        if not token:
            break
    assert seen == names
    for word, bad in [
        ("parent", client_pb2.ListExportersRequest(parent="x")),
        ("filter", client_pb2.ListExportersRequest(parent=alice.parent, filter="a=")),
        ("page_size", client_pb2.ListExportersRequest(parent=alice.parent, page_size=-1)),
        ("page_token", client_pb2.ListExportersRequest(parent=alice.parent, page_token="§")),
    ]:
        if word == "filter":
            await alice.call("ListExporters", bad)
            bad = client_pb2.ListExportersRequest(parent=alice.parent, filter="a in b")
        async with refused(CODE.INVALID_ARGUMENT, word):
            await alice.call("ListExporters", bad)
    async with refused(CODE.PERMISSION_DENIED, "namespace mismatch"):
        await alice.call("ListExporters", client_pb2.ListExportersRequest(parent="namespaces/other"))


async def test_hidden_and_deprecated_labels_follow_the_labs_settings(online: Online, alice: Peer, stack: Stack) -> None:
    settings = "hiddenLabels: {keys: [secret]}\ndeprecatedLabels: {keys: {board: use model}}\n"
    stack.kube.patch("exporters", online.name, {"metadata": {"labels": {"secret": "1", "shown": "2"}}})
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "jumpstarter-controller"}}
    stack.kube.create("configmaps", {**body, "data": {"config": settings}})
    try:
        name = alice.path("exporters", online.name)

        async def look(hidden: bool = False) -> client_pb2.Exporter:
            request = client_pb2.GetExporterRequest(name=name, show_hidden_labels=hidden)
            found: client_pb2.Exporter = await alice.call("GetExporter", request)
            return found

        found = await eventually(look, lambda item: dict(item.labels) == {"shown": "2"})
        assert dict(found.deprecated_labels) == {"board": "use model"}
        assert dict((await look(hidden=True)).labels) == {"secret": "1", "shown": "2", "board": online.name}
        lease = await create(alice, wanted(f"board={online.name}"))
        assert dict(lease.deprecated_labels) == {"board": "use model"}
    finally:
        stack.kube.delete("configmaps", "jumpstarter-controller")
