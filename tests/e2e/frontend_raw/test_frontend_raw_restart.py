"""What exporters and clients see while the front end or the API server is away."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncGenerator

import grpc
import grpc.aio

from lablease.testing.raw import (
    AVAILABLE,
    CODE,
    DEVICES,
    EOF,
    LEASE_READY,
    LIST,
    Online,
    Peer,
    acquire,
    create,
    next_message,
    plain,
    refused,
    release,
    wanted,
)
from lablease.testing.stack import Stack
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2

ROUNDS = 60


async def again(online: Online) -> jumpstarter_pb2.StatusResponse:
    """Open Status anew until a front end answers, as an exporter does; return the first message."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):  # nobody listens yet
                message: jumpstarter_pb2.StatusResponse = await next_message(await online.open_status())
                return message
            await asyncio.sleep(0.05)


async def test_a_drained_front_end_ends_status_with_ok_and_its_successor_knows_the_lease(
    online: Online, alice: Peer, stack: Stack
) -> None:
    lease = await acquire(alice, online)
    await online.report(LEASE_READY)
    listening = await online.listen(plain(lease))
    before = stack.running["frontend"]
    stack.start_service("frontend")
    await asyncio.to_thread(stack.running["frontend"].await_text, "frontend.private_port")
    os.kill(before.pid, signal.SIGTERM)
    async with asyncio.timeout(5):
        assert await online.status.read() is EOF
        assert await listening.read() is EOF
    assert online.status.done()
    assert await online.status.code() is CODE.OK
    said = await again(online)
    assert (said.leased, said.lease_name, said.grant) == (True, plain(lease), lease.grant)
    assert before.popen.wait(10) == 0


async def test_after_kill_9_a_busy_exporter_goes_on_with_its_lease(online: Online, alice: Peer, stack: Stack) -> None:
    lease = await acquire(alice, online)
    await online.report(LEASE_READY)
    os.kill(stack.running["frontend"].pid, signal.SIGKILL)
    stack.start_service("frontend")
    said = await again(online)
    assert (said.leased, said.lease_name, said.grant) == (True, plain(lease), lease.grant)
    await alice.call("ListLeases", LIST)


@contextlib.asynccontextmanager
async def api_server_stopped(stack: Stack) -> AsyncGenerator[None]:
    """The API server hangs: it accepts connections and answers nothing."""
    pid = json.loads((stack.control.data.run / "kube-apiserver.json").read_text())["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_while_the_api_server_hangs_register_and_status_wait_and_reports_are_refused(
    online: Online, alice: Peer, stack: Stack
) -> None:
    async with api_server_stopped(stack):
        changed = jumpstarter_pb2.RegisterRequest(reports=DEVICES[:1])
        registering = asyncio.ensure_future(online.peer.call("Register", changed))
        stream = await online.open_status()
        answer = asyncio.ensure_future(next_message(stream, 40))
        async with refused(CODE.UNAVAILABLE, "API server"):
            await online.report(LEASE_READY)
        await alice.call("ListLeases", LIST)
        assert not registering.done()
        assert not answer.done()
    await registering
    assert not (await answer).leased
    assert len(online.stored()["status"]["devices"]) == 1
    await online.report(AVAILABLE)


async def test_back_to_back_leases_each_get_their_gap(online: Online, alice: Peer, bob: Peer) -> None:
    grants: list[int] = []
    waiting = await acquire(alice, online)
    for number in range(ROUNDS):
        me, other = (alice, bob) if number % 2 == 0 else (bob, alice)
        following = await create(other, wanted(f"board={online.name}"))
        await online.report(LEASE_READY)
        await release(me, waiting)
        over = await online.told()
        assert not over.leased
        await online.report(AVAILABLE)
        said = await online.told()
        assert said.leased
        assert said.lease_name == plain(following)
        assert said.grant > over.released_grant
        grants.append(said.grant)
        waiting = following
    assert grants == sorted(set(grants))
