"""Leases as resources, and RotateToken, through raw stubs against the real processes."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from lablease import clock
from lablease.testing.raw import (
    CODE,
    LEASE_READY,
    LIST,
    Online,
    Peer,
    acquire,
    create,
    dial,
    get,
    peer,
    plain,
    ready,
    refused,
    release,
    wanted,
)
from lablease.testing.stack import Stack
from lablease.wire.jumpstarter.client.v1 import client_pb2


async def test_a_created_lease_says_what_was_asked(alice: Peer, stack: Stack) -> None:
    name = stack.name("named")
    lease = wanted("board==none,site in (b,a)", tags={"team": "x"}, context={"build": "1"}, exporter_name="")
    made = await create(alice, lease, name)
    assert made.name == alice.path("leases", name)
    assert made.client == alice.path("clients", alice.name)
    assert made.selector == "board=none,site in (a,b)"
    assert made.duration.ToTimedelta() == timedelta(minutes=10)
    assert dict(made.tags) == {"team": "x"}
    assert not made.HasField("exporter")
    assert not made.HasField("exporter_name")
    stored = stack.kube.get("leases", name)
    assert stored["metadata"]["labels"] == {
        "board": "none",
        "metadata.jumpstarter.dev/team": "x",
        "lablease.dev/origin": "frontend",
    }
    assert stored["spec"]["ttlSecondsAfterEnded"] == 7 * 24 * 3600
    assert "annotations" not in stored["metadata"]
    async with refused(CODE.ALREADY_EXISTS, name):
        await create(alice, lease, name)


async def test_two_times_give_the_third(alice: Peer) -> None:
    begin = datetime(2031, 1, 1, tzinfo=UTC)
    lease = client_pb2.Lease(selector="board=none")
    lease.begin_time.FromDatetime(begin)
    lease.end_time.FromDatetime(begin + timedelta(hours=2))
    assert (await create(alice, lease)).duration.ToTimedelta() == timedelta(hours=2)
    lease.ClearField("begin_time")
    lease.duration.FromTimedelta(timedelta(hours=1))
    assert (await create(alice, lease)).begin_time.ToDatetime(UTC) == begin + timedelta(hours=1)


BAD_LEASES: list[tuple[str, client_pb2.Lease]] = [
    ("lease.selector", client_pb2.Lease(duration=Duration(seconds=60))),
    ("lease.selector", wanted("board=a,board=b")),
    ("lease.selector", wanted("board > 3")),
    ("lease.selector", wanted("board in a")),
    ("duration", client_pb2.Lease(selector="a=b")),
    ("duration", wanted("a=b", 0)),
    ("duration", wanted("a=b", -5)),
    ("lease.tags", wanted("a=b", tags={"jumpstarter.dev/x": "y"})),
    ("lease.tags", wanted("a=b", tags={"a/b": "y"})),
    ("lease.tags", wanted("a=b", tags={"a": "not a value"})),
    ("lease.tags", wanted("a=b", tags={f"t{number}": "x" for number in range(11)})),
    ("context", wanted("a=b", context={f"k{number}": "x" for number in range(9)})),
    ("context", wanted("a=b", context={"k": "x" * 65})),
]


@pytest.mark.parametrize(("word", "lease"), BAD_LEASES, ids=[f"{n}-{w}" for n, (w, _) in enumerate(BAD_LEASES)])
async def test_a_bad_lease_is_refused_by_field(alice: Peer, word: str, lease: client_pb2.Lease) -> None:
    async with refused(CODE.INVALID_ARGUMENT, word):
        await create(alice, lease)


async def test_create_lease_checks_the_rest_of_the_request(alice: Peer) -> None:
    async with refused(CODE.INVALID_ARGUMENT, "lease"):
        await alice.call("CreateLease", client_pb2.CreateLeaseRequest(parent=alice.parent))
    async with refused(CODE.INVALID_ARGUMENT, "parent"):
        await alice.call("CreateLease", client_pb2.CreateLeaseRequest(parent="lab", lease=wanted("a=b")))
    async with refused(CODE.INVALID_ARGUMENT, "lease_id"):
        await create(alice, wanted("a=b"), "Not_A_Name")
    async with refused(CODE.PERMISSION_DENIED, "namespace mismatch"):
        request = client_pb2.CreateLeaseRequest(parent="namespaces/other", lease=wanted("a=b"))
        await alice.call("CreateLease", request)


async def test_get_lease_holds_the_answer_until_there_is_a_decision(online: Online, alice: Peer) -> None:
    made = await create(alice, wanted(f"board={online.name}"))
    begun = time.monotonic()
    assert ready(await get(alice, made.name))
    assert time.monotonic() - begun < 2


async def test_get_lease_waits_as_long_as_it_is_asked(online: Online, alice: Peer, bob: Peer) -> None:
    first = await acquire(alice, online)
    waiting = await create(bob, wanted(f"board={online.name}"))
    begun = time.monotonic()
    assert not ready(await get(bob.plus("x-lablease-wait", "0"), waiting.name))
    assert time.monotonic() - begun < 1
    held = asyncio.ensure_future(get(bob.plus("x-lablease-wait", "20"), waiting.name))
    await asyncio.sleep(2.5)
    assert not held.done()
    await release(alice, first)
    assert ready(await held)
    async with refused(CODE.INVALID_ARGUMENT, "x-lablease-wait"):
        await get(bob.plus("x-lablease-wait", "soon"), waiting.name)


async def test_any_client_of_the_namespace_may_look_at_a_lease(alice: Peer, bob: Peer) -> None:
    made = await create(alice, wanted("board=none"))
    assert (await get(bob.plus("x-lablease-wait", "0"), made.name)).client == alice.path("clients", alice.name)
    async with refused(CODE.NOT_FOUND, "no-such"):
        await get(alice, alice.path("leases", "no-such"))
    async with refused(CODE.INVALID_ARGUMENT, "name"):
        await get(alice, "no-such")
    async with refused(CODE.PERMISSION_DENIED, "namespace mismatch"):
        await get(alice, "namespaces/other/leases/x")


async def test_list_leases_filters_by_label_tag_and_activity(alice: Peer, stack: Stack) -> None:
    group = stack.name("g")
    kept = await create(alice, wanted(f"board={group}", tags={"job": group}))
    over = await create(alice, wanted(f"board={group}", tags={"job": group}))
    await release(alice, over)

    async def names(**query: Any) -> set[str]:
        page = await alice.call("ListLeases", client_pb2.ListLeasesRequest(parent=alice.parent, **query))
        return {item.name for item in page.leases}

    assert await names(filter=f"board={group}") == {kept.name}
    assert await names(tag_filter=f"job={group}") == {kept.name}
    assert await names(tag_filter=f"job={group}", only_active=False) == {kept.name, over.name}
    assert await names(filter=f"board={group}", tag_filter="job=another") == set()
    async with refused(CODE.INVALID_ARGUMENT, "filter"):
        await names(filter="a in b")
    async with refused(CODE.INVALID_ARGUMENT, "tag_filter"):
        await names(tag_filter="a in b")


async def update(who: Peer, lease: client_pb2.Lease, *mask: str) -> client_pb2.Lease:
    request = client_pb2.UpdateLeaseRequest(lease=lease, update_mask=FieldMask(paths=mask))
    changed: client_pb2.Lease = await who.call("UpdateLease", request)
    return changed


async def test_update_lease_changes_what_the_mask_names(alice: Peer) -> None:
    made = await create(alice, wanted("board=none"))
    longer = client_pb2.Lease(name=made.name, duration=Duration(seconds=1200), client="namespaces/lab/clients/x")
    changed = await update(alice, longer, "duration")
    assert changed.duration.seconds == 1200
    assert changed.client == made.client


async def test_update_lease_names_what_is_wrong(online: Online, alice: Peer, bob: Peer) -> None:
    lease = await acquire(alice, online)
    named = client_pb2.Lease(name=lease.name)
    async with refused(CODE.INVALID_ARGUMENT, "lease"):
        await alice.call("UpdateLease", client_pb2.UpdateLeaseRequest())
    async with refused(CODE.NOT_FOUND, "no-such"):
        await update(alice, client_pb2.Lease(name=alice.path("leases", "no-such")))
    async with refused(CODE.PERMISSION_DENIED, "permission denied"):
        await update(bob, client_pb2.Lease(name=lease.name, duration=Duration(seconds=60)))
    async with refused(CODE.INVALID_ARGUMENT, "update_mask"):
        await update(alice, named, "selector")
    async with refused(CODE.INVALID_ARGUMENT, "duration"):
        await update(alice, client_pb2.Lease(name=lease.name, duration=Duration(seconds=-1)))
    later = client_pb2.Lease(name=lease.name, duration=Duration(seconds=600))
    later.begin_time.FromDatetime(datetime(2031, 1, 1, tzinfo=UTC))
    async with refused(CODE.INVALID_ARGUMENT, "begin_time"):
        await update(alice, later)
    async with refused(CODE.NOT_FOUND, "nobody"):
        await update(alice, client_pb2.Lease(name=lease.name, client=alice.path("clients", "nobody")))
    async with refused(CODE.INVALID_ARGUMENT, "namespace"):
        await update(alice, client_pb2.Lease(name=lease.name, client="namespaces/other/clients/x"))
    await release(alice, lease)
    async with refused(CODE.FAILED_PRECONDITION, "ended"):
        await update(alice, client_pb2.Lease(name=lease.name, duration=Duration(seconds=60)))


async def test_a_lease_without_an_exporter_cannot_go_to_another_client(alice: Peer, bob: Peer, online: Online) -> None:
    await acquire(bob, online)
    waiting = await create(alice, wanted(f"board={online.name}"))
    async with refused(CODE.FAILED_PRECONDITION, "no exporter"):
        await update(alice, client_pb2.Lease(name=waiting.name, client=bob.path("clients", bob.name)))


async def test_a_transfer_takes_the_lease_away_from_its_old_owner(online: Online, alice: Peer, bob: Peer) -> None:
    lease = await acquire(alice, online)
    await online.report(LEASE_READY)
    moved = await update(alice, client_pb2.Lease(name=lease.name, client=bob.path("clients", bob.name)), "client")
    assert moved.client == bob.path("clients", bob.name)
    async with refused(CODE.PERMISSION_DENIED, "permission denied"):
        await dial(alice, lease)
    assert (await dial(bob, lease)).router_token
    async with refused(CODE.PERMISSION_DENIED, "permission denied"):
        await release(alice, lease)
    await release(bob, lease)


async def test_delete_lease_is_one_write_that_names_the_end(alice: Peer, bob: Peer, stack: Stack) -> None:
    made = await create(alice, wanted("board=none"))
    async with refused(CODE.PERMISSION_DENIED, "permission denied"):
        await release(bob, made)
    await release(alice, made)
    stored = stack.kube.get("leases", plain(made))
    assert stored["spec"]["release"] is True
    assert stored["metadata"]["labels"]["jumpstarter.dev/lease-ended"] == "true"
    async with refused(CODE.FAILED_PRECONDITION, "released before"):
        await release(alice, made)
    async with refused(CODE.NOT_FOUND, "no-such"):
        await alice.call("DeleteLease", client_pb2.DeleteLeaseRequest(name=alice.path("leases", "no-such")))


async def test_rotation_gives_a_new_token_and_ends_the_old_one(channel: grpc.aio.Channel, stack: Stack) -> None:
    who = await asyncio.to_thread(stack.make_client, "carol")
    old = peer(channel, stack, who)
    async with refused(CODE.PERMISSION_DENIED, "namespace mismatch"):
        await old.call("RotateToken", client_pb2.RotateTokenRequest(parent="namespaces/other"))
    answer = await old.call("RotateToken", client_pb2.RotateTokenRequest(parent=old.parent))
    assert answer.expiry.ToDatetime(UTC) > clock.utc_now()
    async with refused(CODE.UNAUTHENTICATED, "replaced"):
        await old.call("ListLeases", LIST)
    await old.with_("authorization", f"Bearer {answer.token}").call("ListLeases", LIST)


async def test_no_token_is_in_the_log_of_the_front_end(stack: Stack, alice: Peer) -> None:
    await alice.call("ListLeases", LIST)
    text = stack.running["frontend"].text()
    assert "frontend.listening" in text
    assert "eyJ" not in text
    assert all(json.loads(line) for line in text.splitlines() if line.startswith("{"))
