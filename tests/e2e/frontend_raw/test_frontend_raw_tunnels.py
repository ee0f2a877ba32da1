"""Listen and Dial through raw stubs against the real processes."""

import asyncio

import grpc
import grpc.aio
import pytest

from lablease.testing.raw import (
    CODE,
    EOF,
    LEASE_READY,
    Online,
    Peer,
    acquire,
    assert_silent,
    create,
    dial,
    frame,
    joined,
    next_message,
    plain,
    refused,
    release,
    wanted,
)
from lablease.testing.stack import Stack
from lablease.wire.jumpstarter.v1 import common_pb2, jumpstarter_pb2


async def test_dial_joins_both_sides_through_the_router(online: Online, alice: Peer, stack: Stack) -> None:
    lease = await acquire(alice, online)
    listening = await online.listen(plain(lease))
    await online.report(LEASE_READY)
    invitation = await dial(alice, lease)
    async with joined(stack, invitation) as near:
        await near.write(frame(b"ping"))
        other = await next_message(listening)
        assert other.router_endpoint == invitation.router_endpoint
        assert other.router_token != invitation.router_token
        async with joined(stack, other) as far:
            assert b"ping" in await next_message(far)
            await far.write(frame(b"pong"))
            assert b"pong" in await next_message(near)


async def test_a_listen_that_opens_late_is_invited_at_once(online: Online, alice: Peer, stack: Stack) -> None:
    lease = await acquire(alice, online)
    await online.report(LEASE_READY)
    async with joined(stack, await dial(alice, lease)):
        await asyncio.sleep(0.3)
        listening = await online.listen(plain(lease))
        assert (await next_message(listening, 1.5)).router_token


async def test_of_two_listens_the_newest_is_invited_and_the_older_stays_silent(
    online: Online, alice: Peer, stack: Stack
) -> None:
    lease = await acquire(alice, online)
    await online.report(LEASE_READY)
    older = await online.listen(plain(lease))
    newer = await online.listen(plain(lease))
    waiting = asyncio.ensure_future(next_message(newer))
    await asyncio.sleep(0.3)
    async with joined(stack, await dial(alice, lease)):
        assert (await waiting).router_token
        await assert_silent(older)


async def test_dial_waits_until_the_exporter_is_ready(online: Online, alice: Peer) -> None:
    lease = await acquire(alice, online)
    dialling = asyncio.ensure_future(dial(alice, lease))
    await asyncio.sleep(0.3)
    assert not dialling.done()
    await online.report(common_pb2.EXPORTER_STATUS_BEFORE_LEASE_HOOK)
    async with asyncio.timeout(1):
        assert (await dialling).router_token


async def test_dial_names_what_is_wrong(online: Online, alice: Peer, bob: Peer) -> None:
    async with refused(CODE.INVALID_ARGUMENT, "lease_name"):
        await alice.call("Dial", jumpstarter_pb2.DialRequest())
    async with refused(CODE.NOT_FOUND, "no-such"):
        await alice.call("Dial", jumpstarter_pb2.DialRequest(lease_name="no-such"))
    lease = await acquire(alice, online)
    async with refused(CODE.PERMISSION_DENIED, "permission denied"):
        await dial(bob, lease)
    await online.report(common_pb2.EXPORTER_STATUS_BEFORE_LEASE_HOOK_FAILED, "no cable")
    async with refused(CODE.FAILED_PRECONDITION, "no cable"):
        await dial(alice, lease)
    await release(alice, lease)
    async with refused(CODE.FAILED_PRECONDITION, "ended"):
        await dial(alice, lease)


@pytest.mark.slow
async def test_dial_gives_up_after_half_a_minute_with_the_words_that_stock_clients_try_again_for(
    online: Online, alice: Peer
) -> None:
    lease = await acquire(alice, online)
    unmet = await create(alice, wanted("board=none-such"))
    async with refused(CODE.FAILED_PRECONDITION, "not ready"):
        await dial(alice, lease)
    async with refused(CODE.FAILED_PRECONDITION):
        await dial(alice, unmet)


async def test_the_end_of_a_lease_cuts_its_tunnels_and_its_tokens(online: Online, alice: Peer, stack: Stack) -> None:
    lease = await acquire(alice, online)
    listening = await online.listen(plain(lease))
    await online.report(LEASE_READY)
    unused = await dial(alice, lease)
    async with joined(stack, await dial(alice, lease)) as near, joined(stack, await next_message(listening)) as far:
        await far.write(frame(b"x"))
        await next_message(near)
        await release(alice, lease)
        async with asyncio.timeout(1):
            while await near.read() is not EOF:
                pass
    async with joined(stack, unused) as late:
        with pytest.raises(grpc.aio.AioRpcError):
            await next_message(late)


async def test_listen_names_what_is_wrong(online: Online, board: Peer, alice: Peer) -> None:
    async with refused(CODE.INVALID_ARGUMENT, "lease_name"):
        await (await online.listen("")).read()
    async with refused(CODE.NOT_FOUND, "no-such"):
        await (await online.listen("no-such")).read()
    lease = await acquire(alice, online)
    foreign = board.controller.Listen(jumpstarter_pb2.ListenRequest(lease_name=plain(lease)), metadata=board.metadata)
    async with refused(CODE.PERMISSION_DENIED):
        await foreign.read()


async def test_listen_on_a_lease_that_has_ended_stays_open_and_silent(online: Online, alice: Peer) -> None:
    lease = await acquire(alice, online)
    await release(alice, lease)
    assert not (await online.told()).leased
    await assert_silent(await online.listen(plain(lease)))
