"""What exporters call, and what Status tells them, through raw stubs against the real processes."""

from datetime import UTC, timedelta

from google.protobuf.duration_pb2 import Duration

from lablease.testing.kube import Json
from lablease.testing.raw import (
    AVAILABLE,
    CODE,
    DEVICES,
    LEASE_READY,
    Online,
    Peer,
    acquire,
    create,
    eventually,
    get,
    plain,
    refused,
    release,
    wanted,
)
from lablease.testing.stack import Stack
from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.v1 import common_pb2, jumpstarter_pb2


async def test_register_stores_devices_and_answers_with_the_uid(online: Online) -> None:
    stored = online.stored()
    assert stored["status"]["devices"] == [
        {"uuid": "root", "labels": {"jumpstarter.dev/client": "x.Client"}},
        {"uuid": "leaf", "parent_uuid": "root", "labels": {"a": "b"}},
    ]
    answer = await online.peer.call("Register", jumpstarter_pb2.RegisterRequest(reports=DEVICES))
    assert answer.uuid == stored["metadata"]["uid"]


async def test_registering_the_same_again_writes_nothing(online: Online) -> None:
    before = (await settled(online))["metadata"]["resourceVersion"]
    await online.peer.call("Register", jumpstarter_pb2.RegisterRequest(reports=DEVICES))
    await online.report(AVAILABLE, "here")
    assert online.stored()["metadata"]["resourceVersion"] == before


async def settled(online: Online) -> Json:
    """Return the exporter once the operator has said that it is online."""

    async def look() -> Json:
        return online.stored()

    return await eventually(
        look,
        lambda item: any(c["type"] == "Online" and c["status"] == "True" for c in item["status"].get("conditions", [])),
    )


async def test_register_owns_its_labels_and_leaves_those_of_manifests(online: Online, stack: Stack) -> None:
    stack.kube.patch("exporters", online.name, {"metadata": {"labels": {"jumpstarter.dev/from": "manifest"}}})

    async def register(**labels: str) -> dict[str, str]:
        given = {f"jumpstarter.dev/{key}": value for key, value in labels.items()}
        request = jumpstarter_pb2.RegisterRequest(labels={**given, "ignored": "x"}, reports=DEVICES)
        await online.peer.call("Register", request)
        return {
            key.removeprefix("jumpstarter.dev/"): value
            for key, value in online.stored()["metadata"]["labels"].items()
            if key != "board"
        }

    assert await register(a="1", b="2") == {"from": "manifest", "a": "1", "b": "2"}
    assert await register(a="3") == {"from": "manifest", "a": "3"}
    assert await register(**{"from": "exporter"}) == {"from": "manifest"}
    assert await register() == {"from": "manifest"}


async def test_register_refuses_what_is_no_label(online: Online) -> None:
    async with refused(CODE.INVALID_ARGUMENT, "labels"):
        await online.peer.call("Register", jumpstarter_pb2.RegisterRequest(labels={"jumpstarter.dev/a b": "c"}))


async def test_unregister_goes_offline_and_keeps_the_reason(online: Online) -> None:
    await online.peer.call("Unregister", jumpstarter_pb2.UnregisterRequest(reason="cable gone"))
    status = online.stored()["status"]
    assert (status["exporterStatus"], status["statusMessage"]) == ("Offline", "cable gone")
    assert "devices" not in status


async def test_a_report_is_stored_and_an_unknown_status_reads_as_unspecified(online: Online) -> None:
    await online.report(common_pb2.EXPORTER_STATUS_AFTER_LEASE_HOOK_FAILED, "[HOOK_WARNING] x")
    status = online.stored()["status"]
    assert (status["exporterStatus"], status["statusMessage"]) == ("AfterLeaseHookFailed", "[HOOK_WARNING] x")
    await online.report(99)
    assert online.stored()["status"]["exporterStatus"] == "Unspecified"
    assert "statusMessage" not in online.stored()["status"]
    await online.report(AVAILABLE)


async def test_a_report_of_a_grant_that_is_over_is_ignored(online: Online, alice: Peer) -> None:
    lease = await acquire(alice, online)
    await online.report(LEASE_READY, "current", grant=lease.grant)
    await online.report(common_pb2.EXPORTER_STATUS_AFTER_LEASE_HOOK, "stale", grant=lease.grant - 1)
    assert online.stored()["status"]["statusMessage"] == "current"


async def test_the_old_way_to_end_a_lease_ends_the_one_that_is_held(online: Online, alice: Peer) -> None:
    lease = await acquire(alice, online)
    await online.report(LEASE_READY)
    await online.report(common_pb2.EXPORTER_STATUS_AFTER_LEASE_HOOK, "", release_lease=True)
    assert not (await online.told()).leased
    assert online.stack.kube.get("leases", plain(lease))["spec"]["release"] is True
    await online.report(AVAILABLE, "", release_lease=True)


async def test_status_tells_lease_client_grant_and_planned_end(online: Online, alice: Peer) -> None:
    made = await create(alice, wanted(f"board={online.name}", context={"build": "7"}))
    said = await online.told()
    lease = await get(alice, made.name)
    assert said.leased
    assert (said.lease_name, said.client_name, said.grant) == (plain(lease), alice.name, lease.grant)
    assert dict(said.context) == {"build": "7"}
    begun = lease.effective_begin_time.ToDatetime(UTC)
    assert said.planned_end.ToDatetime(UTC) == begun + timedelta(seconds=600)
    await release(alice, lease)
    over = await online.told()
    assert not over.leased
    assert not over.HasField("lease_name")
    assert over.released_grant == lease.grant


async def test_between_two_leases_there_is_always_a_free_word(online: Online, alice: Peer, bob: Peer) -> None:
    first = await acquire(alice, online)
    waiting = await create(bob, wanted(f"board={online.name}"))
    await release(alice, first)
    words = [await online.told(), await online.told()]
    assert [word.leased for word in words] == [False, True]
    assert words[1].lease_name == plain(waiting)
    assert words[1].grant > words[0].released_grant


async def test_a_new_stream_of_an_available_exporter_begins_with_a_free_word(online: Online, alice: Peer) -> None:
    lease = await acquire(alice, online)
    await online.open_status()
    words = [await online.told(), await online.told()]
    assert [word.leased for word in words] == [False, True]
    assert words[1].grant == lease.grant


async def test_a_new_stream_of_a_busy_exporter_goes_on_with_its_lease(online: Online, alice: Peer) -> None:
    lease = await acquire(alice, online)
    await online.report(LEASE_READY)
    await online.open_status()
    said = await online.told()
    assert said.leased
    assert said.lease_name == plain(lease)


async def test_a_transfer_and_an_extension_are_told_without_a_gap(online: Online, alice: Peer, bob: Peer) -> None:
    lease = await acquire(alice, online)
    moved = client_pb2.Lease(name=lease.name, client=bob.path("clients", bob.name))
    await alice.call("UpdateLease", client_pb2.UpdateLeaseRequest(lease=moved))
    said = await online.told()
    assert (said.leased, said.client_name, said.grant) == (True, bob.name, lease.grant)
    longer = client_pb2.Lease(name=lease.name, duration=Duration(seconds=1200))
    await bob.call("UpdateLease", client_pb2.UpdateLeaseRequest(lease=longer))
    later = await online.told()
    assert later.planned_end.ToDatetime() - said.planned_end.ToDatetime() == timedelta(seconds=600)


async def test_connecting_removes_offline_and_nothing_else(online: Online) -> None:
    await online.peer.call("Unregister", jumpstarter_pb2.UnregisterRequest(reason="gone"))
    await online.open_status()
    await online.told()
    status = online.stored()["status"]
    assert "exporterStatus" not in status
    assert "statusMessage" not in status
    await online.report(LEASE_READY, "busy")
    await online.open_status()
    await online.told()
    assert online.stored()["status"]["exporterStatus"] == "LeaseReady"
    await online.report(AVAILABLE)


async def test_status_ends_when_the_exporter_is_deleted(online: Online, stack: Stack) -> None:
    stack.kube.delete("exporters", online.name)
    async with refused(CODE.NOT_FOUND, online.name):
        await online.told()
    stack.kube.create(
        "exporters",
        {"apiVersion": "jumpstarter.dev/v1alpha1", "kind": "Exporter", "metadata": {"name": online.name}, "spec": {}},
    )
    async with refused(CODE.UNAUTHENTICATED):
        await online.report(AVAILABLE)
    online.peer = peer_again(online)


def peer_again(online: Online) -> Peer:
    token = online.stack.await_token("exporters", online.name)
    return online.peer.with_("authorization", f"Bearer {token}")
