"""A lease that has ended in the API has ended on the wire: a second later no byte of it is carried, either way.

The user's command ignores that its shell tells it to stop, and goes on for as long as its connection bears bytes.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import grpc
import grpc.aio
import pytest

from lablease.testing.boards import native_drivers, stock_drivers
from lablease.testing.fakes import FakeExporter, Speaker, channel, fake_client
from lablease.testing.kube import Json, ended
from lablease.testing.peers import Conversation, Ticker
from lablease.testing.processes import Process
from lablease.testing.stack import LABLEASE, SCRIPTS, Identity, Stack
from lablease.testing.waiting import eventually
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2, router_pb2
from lablease.wire.jumpstarter.v1.jumpstarter_pb2_grpc import ControllerServiceStub
from lablease.wire.jumpstarter.v1.router_pb2_grpc import RouterServiceStub

BareTunnel: TypeAlias = "grpc.aio.StreamStreamCall[router_pb2.StreamRequest, router_pb2.StreamResponse]"
STUBBORN_SECONDS = 25
GRACE_SECONDS = 1.0
EXPIRES_AFTER = "6s"


@dataclass(frozen=True, slots=True)
class Traffic:
    """What flowed, as both ends noted it (``time.time``)."""

    to_device: list[float]
    to_client: list[float]


@pytest.fixture(params=["stock exporter", "our agent"])
def board(request: pytest.FixtureRequest, stack: Stack, tmp_path: Path) -> Iterator[tuple[Identity, Ticker]]:
    with Ticker() as peer:
        exporter = stack.make_exporter()
        if request.param == "stock exporter":
            stack.start_stock_exporter(exporter, stock_drivers(exporter.name, stack.device_log, peer.port))
        else:
            stack.start_agent(exporter, native_drivers(stack.device_log, tmp_path / "images", peer.port))
        yield exporter, peer


def stock_command(stack: Stack, client: Identity, lease: str, log: Path) -> Process:
    script = ["python", str(SCRIPTS / "stubborn.py"), "net", str(log), str(STUBBORN_SECONDS)]
    argv = [stack.upstream.jmp, "shell", "--client-config", str(client.config), "--lease", lease, "--", *script]
    return stack.processes.start(f"stubborn-{client}", argv, stack.stock_environment())


def our_command(stack: Stack, client: Identity, lease: str, log: Path) -> Process:
    script = ["python", str(SCRIPTS / "own_stubborn.py"), "net", str(log), str(STUBBORN_SECONDS)]
    argv = [*LABLEASE, "shell", "--client-config", str(client.config), "--lease", lease, "--", *script]
    return stack.processes.start(f"stubborn-{client}", argv, stack.our_environment())


def expire(stack: Stack, lease: str) -> float:
    """Wait for the end of a lease; return its planned time."""
    over = stack.until_ended(lease, within_seconds=20)
    return planned_end(over)


def release(stack: Stack, lease: str) -> float:
    """Release a lease while it is used; return when the API said that it has ended."""
    with stack.kube.watching("leases") as watch:
        stack.release(lease)
        return watch.first(lease, ended, "ended").wall


def planned_end(item: Json) -> float:
    begin = datetime.fromisoformat(item["status"]["beginTime"])
    return (begin + timedelta(seconds=float(EXPIRES_AFTER[:-1]))).timestamp()


@pytest.mark.parametrize("command", [stock_command, our_command])
@pytest.mark.parametrize("end", [expire, release])
def test_nothing_is_carried_a_second_after_the_end(
    stack: Stack,
    board: tuple[Identity, Ticker],
    command: Callable[[Stack, Identity, str, Path], Process],
    end: Callable[[Stack, str], float],
    tmp_path: Path,
) -> None:
    exporter, peer = board
    client = stack.make_client()
    log = tmp_path / "traffic"
    lease = stack.create_lease(client, {"board": exporter.name}, duration=EXPIRES_AFTER if end is expire else "1h")
    stack.until_ready(lease)
    process = command(stack, client, lease, log)
    eventually(lambda: flows(peer, log), "bytes flow both ways", within_seconds=20)

    over = end(stack, lease)

    # Cut it is: the device sees its connection end. Nobody had to stop for that.
    eventually(lambda: peer.conversations[-1].closed_at, "the device's connection ends", within_seconds=10)
    traffic = noted(peer.conversations[-1], log)
    assert traffic.to_device
    assert traffic.to_client
    assert max(traffic.to_device) - over <= GRACE_SECONDS
    assert max(traffic.to_client) - over <= GRACE_SECONDS
    # It flowed to the end: what ended it was the end of the lease, nothing earlier.
    assert max(traffic.to_device) - over > -1.5
    process.stop()
    stack.until_free(exporter.name)


def test_a_transfer_cuts_the_old_client_and_serves_the_new_one(
    stack: Stack, board: tuple[Identity, Ticker], tmp_path: Path
) -> None:
    exporter, peer = board
    old, new = stack.make_client(), stack.make_client()
    log = tmp_path / "traffic"
    lease = stack.create_lease(old, {"board": exporter.name}, duration="1h")
    grant = stack.until_ready(lease)["status"]["grant"]
    process = stock_command(stack, old, lease, log)
    eventually(lambda: flows(peer, log), "bytes flow both ways", within_seconds=20)
    first = peer.conversations[-1]

    with stack.kube.watching("leases") as watch:
        done = stack.jmp("update", "lease", lease, "--to-client", new.name, "--client-config", str(old.config))
        done.ok()
        over = watch.first(lease, lambda item: item["spec"]["clientRef"]["name"] == new.name, "transferred").wall
    eventually(lambda: first.closed_at, "the old connection ends", within_seconds=10)
    traffic = noted(first, log)
    assert max(traffic.to_device) - over <= GRACE_SECONDS
    assert max(traffic.to_client) - over <= GRACE_SECONDS
    process.stop()

    stack.shell(new, "--lease", lease, "--", "j", "power", "on").ok()
    assert stack.kube.get("leases", lease)["status"]["grant"] == grant
    stack.release(lease)
    stack.until_free(exporter.name)


@dataclass(slots=True)
class Half:
    """One side of a bare tunnel: when frames came (``time.time``), and how its stream ended."""

    arrivals: list[float] = field(default_factory=list[float])
    ended_at: float | None = None
    code: grpc.StatusCode | None = None
    goaway: bool = False


async def carry(
    stack: Stack, ticket: jumpstarter_pb2.DialResponse | jumpstarter_pb2.ListenResponse, half: Half
) -> None:
    """Send and receive on one side of a tunnel for as long as the router lets it."""
    async with channel(ticket.router_endpoint, stack.ca) as wire:
        call = RouterServiceStub(wire).Stream(None, metadata=(("authorization", f"Bearer {ticket.router_token}"),))
        sending = asyncio.create_task(send_forever(call))
        try:
            async for frame in call:
                if frame.frame_type == router_pb2.FRAME_TYPE_GOAWAY:
                    half.goaway = True
                else:
                    half.arrivals.append(time.time())
        except grpc.aio.AioRpcError as error:
            half.code = error.code()
        else:
            half.code = grpc.StatusCode.OK
        finally:
            half.ended_at = time.time()
            sending.cancel()


async def send_forever(call: "BareTunnel") -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            await call.write(router_pb2.StreamRequest(payload=b"x" * 64))
            await asyncio.sleep(0.02)


async def listen(stack: Stack, exporter: Speaker, lease: str) -> jumpstarter_pb2.ListenResponse:
    """Return the exporter's ticket for the next tunnel."""
    async with channel(stack.endpoint, stack.ca) as wire:
        request = jumpstarter_pb2.ListenRequest(lease_name=lease)
        async for ticket in ControllerServiceStub(wire).Listen(request, metadata=exporter.metadata()):
            return ticket
    raise AssertionError("Listen ended without a ticket")


async def join(stack: Stack, exporter: Speaker, lease: str, half: Half) -> None:
    """Be the exporter's side of the next tunnel."""
    await carry(stack, await listen(stack, exporter, lease), half)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("end", [expire, release])
async def test_peers_that_do_not_care_are_cut_all_the_same(stack: Stack, end: Callable[[Stack, str], float]) -> None:
    """Neither side is asked to help: both go on to send, and the router ends them, as a loss of the other side ends."""
    board, client = stack.make_exporter(), stack.make_client()
    speakers = [Speaker(who.kind, stack.namespace, who.name, who.token) for who in (board, client)]
    halves = Half(), Half()
    async with (
        FakeExporter(speakers[0], stack.endpoint, stack.ca) as exporter,
        fake_client(speakers[1], stack.endpoint, stack.ca) as caller,
    ):
        duration = EXPIRES_AFTER if end is expire else "1h"
        lease = stack.create_lease(client, {"board": board.name}, duration=duration)
        await exporter.until_taken(lease)
        # The exporter is asked to come when the client's half is there, so its ticket is awaited beside it.
        theirs = asyncio.create_task(join(stack, speakers[0], lease, halves[0]))
        ours = asyncio.create_task(carry(stack, await caller.dial(lease), halves[1]))
        await asyncio.to_thread(
            eventually, lambda: all(len(half.arrivals) > 20 for half in halves), "frames flow both ways"
        )
        over = await asyncio.to_thread(end, stack, lease)
        async with asyncio.timeout(10):
            await asyncio.gather(theirs, ours)
    for half in halves:
        assert half.ended_at is not None
        assert half.ended_at - over <= GRACE_SECONDS
        assert max(half.arrivals) - over > -0.5
        # A stock peer closes its local socket on this, and only on this.
        assert half.goaway
        assert half.code is grpc.StatusCode.OK


@pytest.mark.timeout(60)
async def test_an_ended_lease_opens_no_tunnel(stack: Stack) -> None:
    board, client = stack.make_exporter(), stack.make_client()
    speakers = [Speaker(who.kind, stack.namespace, who.name, who.token) for who in (board, client)]
    async with (
        FakeExporter(speakers[0], stack.endpoint, stack.ca) as exporter,
        fake_client(speakers[1], stack.endpoint, stack.ca) as caller,
    ):
        lease = stack.create_lease(client, {"board": board.name}, duration="1h")
        await exporter.until_taken(lease)
        ticket = await caller.dial(lease)
        await asyncio.to_thread(release, stack, lease)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.dial(lease)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        # Nor does a ticket from before the end.
        half = Half()
        async with asyncio.timeout(10):
            await carry(stack, ticket, half)
    assert half.arrivals == []


def flows(peer: Ticker, log: Path) -> bool:
    if not peer.conversations or not log.exists():
        return False
    return len(peer.conversations[-1].arrivals) > 20 and log.read_text().count("in ") > 20


def noted(conversation: Conversation, log: Path) -> Traffic:
    arrived = [float(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("in ")]
    return Traffic([at for at, _ in conversation.arrivals], arrived)
