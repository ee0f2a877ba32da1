"""The client library against a lab of stubs: real sockets, real TLS, scripted answers."""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest

from lablease.client.config import ClientConfig, Tls
from lablease.client.connect import connect_exporter
from lablease.client.drivers import client_for, driver
from lablease.client.drivers.flasher import FlasherClient
from lablease.client.drivers.generic import GenericClient
from lablease.client.drivers.network import NetworkClient
from lablease.client.drivers.power import PowerClient
from lablease.client.errors import (
    DriverInvalidArgument,
    DriverMethodNotImplemented,
    ExporterNotReady,
    LeaseFailed,
    NoSuchDriver,
    ServiceError,
)
from lablease.client.files import upload
from lablease.client.frames import MAX_FRAME, ByteStream
from lablease.client.lease import borrow, hold
from lablease.client.resources import LeaseInfo, LeaseRequest
from lablease.client.service import connect
from lablease.client.session import ExporterState, Session, open_session
from lablease.client.waiting import Waiting
from lablease.testing.stublab import PENDING, READY, StubLab, condition, stub_lab

REQUEST = LeaseRequest(timedelta(minutes=30), selector="board=stub", tags={"build": "7"})
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "restarting")


@pytest.fixture
async def lab() -> AsyncGenerator[StubLab]:
    with TemporaryDirectory(prefix="lab-") as directory:
        async with stub_lab(Path(directory)) as lab:
            yield lab


@pytest.fixture
async def session(lab: StubLab) -> AsyncGenerator[Session]:
    async with open_session(lab.router.target) as session:
        await session.load()
        yield session


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not look():
            await asyncio.sleep(0.01)


# --- controller


async def test_every_call_says_who_the_caller_is(lab: StubLab) -> None:
    async with connect(lab.config) as controller:
        await controller.list_exporters()
    _, metadata = lab.controller.calls[0]
    assert metadata["authorization"] == "Bearer client-token"
    assert (metadata["jumpstarter-kind"], metadata["jumpstarter-namespace"], metadata["jumpstarter-name"]) == (
        "Client",
        "lab",
        "me",
    )


async def test_a_restart_of_the_controller_is_ridden_out(lab: StubLab) -> None:
    lab.controller.failures["ListExporters"] = [UNAVAILABLE, UNAVAILABLE]
    async with connect(lab.config) as controller:
        assert await controller.list_exporters() == []


async def test_a_create_whose_answer_was_lost_finds_the_lease_it_made(lab: StubLab) -> None:
    lab.controller.failures["CreateLease"] = [UNAVAILABLE]
    async with connect(lab.config) as controller:
        info = await controller.create_lease(REQUEST)
    assert list(lab.controller.leases) == [info.name]


async def test_a_name_that_is_taken_is_an_error_at_the_first_attempt(lab: StubLab) -> None:
    async with connect(lab.config) as controller:
        await controller.create_lease(replace(REQUEST, lease_id="mine"))
        with pytest.raises(ServiceError, match="already exists") as caught:
            await controller.create_lease(replace(REQUEST, lease_id="mine"))
    assert caught.value.code == "ALREADY_EXISTS"


async def test_a_refused_token_is_read_again_once(lab: StubLab) -> None:
    lab.controller.token = "renewed"
    tokens = ["renewed", "renewed"]
    async with connect(lab.config, reload_token=lambda: tokens.pop()) as controller:
        assert await controller.list_exporters() == []
    lab.controller.token = "renewed again"
    async with connect(lab.config, reload_token=lambda: "client-token") as controller:
        with pytest.raises(ServiceError, match="UNAUTHENTICATED"):
            await controller.list_exporters()


async def test_leases_are_listed_over_all_pages(lab: StubLab) -> None:
    async with connect(lab.config) as controller:
        names = {(await controller.create_lease(REQUEST)).name for _ in range(3)}
        assert {lease.name for lease in await controller.list_leases()} == names


async def test_an_update_sends_only_what_is_to_change(lab: StubLab) -> None:
    async with connect(lab.config) as controller:
        name = (await controller.create_lease(REQUEST)).name
        changed = await controller.update_lease(name, duration=timedelta(hours=2))
        assert (changed.duration, changed.client) == (timedelta(hours=2), "me")
        assert (await controller.update_lease(name, client="you")).client == "you"


async def test_trust_on_connect_needs_no_ca(lab: StubLab) -> None:
    config: ClientConfig = lab.config.model_copy(update={"tls": Tls(insecure=True)})
    async with connect(config) as controller:
        assert await controller.list_exporters() == []


async def test_a_controller_with_another_certificate_is_not_trusted(lab: StubLab) -> None:
    config: ClientConfig = lab.config.model_copy(update={"tls": Tls()})
    async with connect(config, patience=timedelta(0)) as controller:
        with pytest.raises(ServiceError, match="UNAVAILABLE"):
            await controller.list_exporters()


# --- lease


async def test_a_lease_is_waited_for_with_its_causes_and_released_at_the_end(lab: StubLab) -> None:
    lab.controller.conditions = [[], [PENDING], [PENDING], [READY]]
    seen: list[str] = []

    def note(info: LeaseInfo, waiting: Waiting) -> None:
        seen.append(waiting.reason)

    async with connect(lab.config) as controller, hold(controller, REQUEST, note) as held:
        assert held.info.exporter == "board-1"
        assert held.mine
        assert list(lab.controller.leases) == [held.info.name]
    assert seen == ["Undecided", "NotAvailable", "NotAvailable"]
    assert lab.controller.leases == {}
    holds = [metadata.get("x-lablease-wait") for method, metadata in lab.controller.calls if method == "GetLease"]
    assert holds == ["1", "10", "10", "10"]


async def test_a_refused_lease_says_why_and_is_not_left_behind(lab: StubLab) -> None:
    lab.controller.conditions = [[condition("Unsatisfiable", "True", "NoAccess", "no policy admits you")]]
    async with connect(lab.config) as controller:
        with pytest.raises(LeaseFailed, match=r"no policy admits you \(NoAccess\)"):
            async with hold(controller, REQUEST):
                pytest.fail("there is no lease to use")
    assert lab.controller.leases == {}


async def test_waiting_ends_at_its_limit(lab: StubLab) -> None:
    lab.controller.conditions = [[PENDING]]
    async with connect(lab.config) as controller:
        with pytest.raises(LeaseFailed, match="AcquisitionTimeout"):
            async with hold(controller, REQUEST, limit=timedelta(milliseconds=300)):
                pytest.fail("there is no lease to use")
    assert lab.controller.leases == {}


async def test_a_wait_that_is_cancelled_releases_the_lease(lab: StubLab) -> None:
    lab.controller.conditions = [[PENDING]]
    async with connect(lab.config) as controller:

        async def wait() -> None:
            async with hold(controller, REQUEST):
                pytest.fail("there is no lease to use")

        task = asyncio.create_task(wait())
        await until(lambda: lab.controller.leases)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert lab.controller.leases == {}


async def test_a_controller_that_is_away_while_one_waits_is_waited_for(lab: StubLab) -> None:
    lab.controller.conditions = [[PENDING], [READY]]
    async with connect(lab.config, patience=timedelta(0)) as controller:
        seen: list[str] = []

        def note(info: LeaseInfo, waiting: Waiting) -> None:
            seen.append(waiting.reason)
            if len(seen) == 1:
                lab.controller.failures["GetLease"] = [UNAVAILABLE]

        async with hold(controller, REQUEST, note):
            assert seen == ["NotAvailable", "ControllerAway"]


async def test_a_borrowed_lease_is_left_alone(lab: StubLab) -> None:
    async with connect(lab.config) as controller:
        name = (await controller.create_lease(REQUEST)).name
        async with borrow(controller, name) as held:
            assert not held.mine
        assert list(lab.controller.leases) == [name]


async def test_the_lease_of_another_client_cannot_be_borrowed(lab: StubLab) -> None:
    async with connect(lab.config) as controller:
        name = (await controller.create_lease(REQUEST)).name
        lab.controller.leases[name].client = "namespaces/lab/clients/you"
        with pytest.raises(LeaseFailed, match="belongs to client you"):
            async with borrow(controller, name):
                pytest.fail("not ours")


async def test_a_release_that_fails_is_a_warning_and_hides_no_result(
    lab: StubLab, caplog: pytest.LogCaptureFixture
) -> None:
    lab.controller.failures["DeleteLease"] = [(grpc.StatusCode.INTERNAL, "no luck")]
    with caplog.at_level(logging.WARNING):
        async with connect(lab.config) as controller, hold(controller, REQUEST):
            pass
    assert "no luck" in caplog.text


# --- tunnel


async def test_a_session_goes_through_the_tunnel_and_its_socket_is_private(lab: StubLab) -> None:
    async with connect(lab.config) as controller, hold(controller, REQUEST) as held:
        async with connect_exporter(held) as (session, tunnel):
            await driver(session, "power", PowerClient).on()
            assert lab.exporter.log == ["report", "on"]
            assert lab.router.tokens == ["Bearer tunnel-1"]
            assert stat.S_IMODE(os.stat(tunnel.path.parent).st_mode) == 0o700
        assert not tunnel.path.parent.exists()


async def test_each_connection_is_one_dial_and_one_tunnel(lab: StubLab) -> None:
    async with (
        connect(lab.config) as controller,
        hold(controller, REQUEST) as held,
        connect_exporter(held) as (_, tunnel),
    ):
        async with open_session(str(tunnel.path)) as other:
            await other.load()
        await until(lambda: "clean" in lab.router.ended)
        assert lab.controller.dials == 2
        assert lab.router.tokens == ["Bearer tunnel-1", "Bearer tunnel-2"]


async def test_an_exporter_that_is_not_ready_is_dialled_again(lab: StubLab) -> None:
    lab.controller.failures["Dial"] = [(grpc.StatusCode.FAILED_PRECONDITION, "exporter not ready"), UNAVAILABLE]
    async with connect(lab.config) as controller, hold(controller, REQUEST) as held, connect_exporter(held):
        assert lab.controller.dials == 1


async def test_a_transferred_lease_ends_the_attempt_at_once(lab: StubLab) -> None:
    lab.controller.failures["Dial"] = [(grpc.StatusCode.PERMISSION_DENIED, "permission denied")] * 50
    async with connect(lab.config) as controller, hold(controller, REQUEST) as held:
        with pytest.raises(LeaseFailed, match="belongs to another client now"):
            async with connect_exporter(held):
                pytest.fail("not ours any more")


async def test_frames_are_never_larger_than_stock_peers_send(lab: StubLab) -> None:
    blob = os.urandom(3 << 20)
    async with (
        connect(lab.config) as controller,
        hold(controller, REQUEST) as held,
        connect_exporter(held) as (session, _),
        driver(session, "echo", NetworkClient).stream() as stream,
    ):
        assert await echo(stream, blob) == blob
    assert max(lab.router.frames) <= MAX_FRAME


async def echo(stream: ByteStream, data: bytes) -> bytes:
    sending = asyncio.create_task(stream.send(data))
    got = b""
    while len(got) < len(data):
        got += await stream.receive()
    await sending
    return got


# --- session


async def test_available_before_ready_is_normal_and_states_are_told_once(lab: StubLab, session: Session) -> None:
    lab.exporter.states = [
        ("AVAILABLE", ""),
        ("AVAILABLE", ""),
        ("BEFORE_LEASE_HOOK", "hook"),
        ("LEASE_READY", ""),
    ]
    seen: list[str] = []

    def note(state: ExporterState) -> None:
        seen.append(state.status)

    await session.wait_ready(on_state=note)
    assert seen == ["AVAILABLE", "BEFORE_LEASE_HOOK", "LEASE_READY"]


@pytest.mark.parametrize("status", ["BEFORE_LEASE_HOOK_FAILED", "OFFLINE"])
async def test_a_failed_hook_or_an_exporter_that_goes_ends_the_wait(
    lab: StubLab, session: Session, status: str
) -> None:
    lab.exporter.states = [("BEFORE_LEASE_HOOK", ""), (status, "disk full")]
    with pytest.raises(ExporterNotReady, match=f"{status}: disk full"):
        await session.wait_ready()


async def test_the_wait_for_ready_has_a_limit(lab: StubLab, session: Session) -> None:
    lab.exporter.states = [("BEFORE_LEASE_HOOK", "long hook")]
    with pytest.raises(ExporterNotReady, match="still BEFORE_LEASE_HOOK"):
        await session.wait_ready(timedelta(milliseconds=200))


async def test_the_end_of_a_session_waits_for_the_hook(lab: StubLab, session: Session) -> None:
    lab.exporter.after_end = [("AFTER_LEASE_HOOK", ""), ("AFTER_LEASE_HOOK", ""), ("AVAILABLE", "")]
    state = await session.end()
    assert state is not None
    assert state.status == "AVAILABLE"
    assert lab.exporter.log.count("end") == 1


async def test_a_failed_after_lease_hook_is_an_error(lab: StubLab, session: Session) -> None:
    lab.exporter.after_end = [("AFTER_LEASE_HOOK_FAILED", "exit 3")]
    with pytest.raises(ExporterNotReady, match="exit 3"):
        await session.end()


async def test_a_session_that_has_ended_is_not_ended_again(lab: StubLab, session: Session) -> None:
    lab.exporter.states = [("AVAILABLE", "")]
    await session.end()
    assert "end" not in lab.exporter.log


async def test_whole_numbers_come_back_whole(session: Session) -> None:
    client = client_for(session, session.root.find("odd"))
    assert isinstance(client, GenericClient)
    assert client.methods == {"add": "Add two numbers."}
    result = await client.call("add", 1, 2)
    assert (result, type(result)) == (3, int)


async def test_refusals_of_a_driver_are_told_apart(session: Session) -> None:
    client = client_for(session, session.root.find("odd"))
    with pytest.raises(DriverMethodNotImplemented, match="nope"):
        await client.call("nope")
    with pytest.raises(DriverInvalidArgument, match="too picky"):
        await client.call("picky")
    with pytest.raises(ExporterNotReady, match="BEFORE_LEASE_HOOK"):
        await client.call("gated")
    with pytest.raises(DriverMethodNotImplemented, match="no such stream"):
        async with client.stream():
            pytest.fail("refused")


async def test_a_driver_of_another_kind_is_named(session: Session) -> None:
    with pytest.raises(NoSuchDriver, match="power is a PowerClient"):
        driver(session, "power", FlasherClient)


async def test_leaving_a_stream_of_results_ends_it_at_the_driver(lab: StubLab, session: Session) -> None:
    readings = driver(session, "power", PowerClient).read()
    async with aclosing(readings):
        async for reading in readings:
            assert (reading.voltage, reading.current) == (0, 0.5)
            break
    await until(lambda: lab.exporter.open_streams == 0)


async def test_a_byte_stream_is_closed_at_the_driver_when_its_context_ends(lab: StubLab, session: Session) -> None:
    async with driver(session, "echo", NetworkClient).stream() as stream:
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        assert lab.exporter.open_streams == 1
    await until(lambda: lab.exporter.open_streams == 0)


async def test_half_close_reaches_the_driver_and_its_end_comes_back(session: Session) -> None:
    async with driver(session, "echo", NetworkClient).stream() as stream:
        await stream.send(b"last")
        await stream.send_eof()
        await stream.send_eof()
        assert await stream.receive() == b"last"
        assert await stream.receive() == b""
        assert await stream.receive() == b""


async def test_a_forwarded_port_carries_bytes_both_ways_and_ends_with_the_connection(
    lab: StubLab, session: Session
) -> None:
    blob = os.urandom(1 << 20)
    async with driver(session, "echo", NetworkClient).forward_tcp() as (host, port):
        reader, writer = await asyncio.open_connection(host, port)

        async def send() -> None:
            writer.write(blob)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert await reader.read(-1) == blob
        await sending
        writer.close()
    await until(lambda: lab.exporter.open_streams == 0)


async def test_a_file_arrives_whole_and_its_progress_adds_up(lab: StubLab, session: Session, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom((3 << 20) + 17))
    sent: list[int] = []
    await driver(session, "storage", FlasherClient).flash(image, progress=sent.append)
    assert lab.exporter.flashed == image.read_bytes()
    assert sum(sent) == image.stat().st_size


async def test_a_compressed_file_is_unpacked_here_where_the_exporter_does_not(
    lab: StubLab, session: Session, tmp_path: Path
) -> None:
    import gzip

    image = tmp_path / "image.gz"
    image.write_bytes(gzip.compress(b"plain" * 1000))
    await driver(session, "storage", FlasherClient).flash(image, encoding="gzip")
    assert lab.exporter.flashed == b"plain" * 1000


async def test_a_source_that_breaks_is_an_error_and_not_a_short_file(lab: StubLab, session: Session) -> None:
    flasher = driver(session, "storage", FlasherClient)

    async def source() -> AsyncGenerator[bytes]:
        yield b"half"
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        await upload(session, flasher.node.uuid, source(), lambda handle: flasher.call("flash", handle, None))
    await until(lambda: lab.exporter.open_streams == 0)


async def test_log_lines_come_with_their_source(lab: StubLab, session: Session) -> None:
    lab.exporter.lines = [("BEFORE_LEASE_HOOK", "preparing"), ("DRIVER", "power on")]
    async with aclosing(session.logs()) as logs:
        lines = [await anext(logs), await anext(logs)]
    assert [(line.source, line.message) for line in lines] == [
        ("BEFORE_LEASE_HOOK", "preparing"),
        ("DRIVER", "power on"),
    ]


async def test_a_report_of_another_connection_saves_asking(lab: StubLab, session: Session) -> None:
    asked = lab.exporter.log.count("report")
    async with open_session(lab.router.target) as other:
        other.adopt(session.report)
        await driver(other, "power", PowerClient).on()
    assert lab.exporter.log.count("report") == asked
