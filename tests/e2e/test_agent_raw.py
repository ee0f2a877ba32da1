"""Each RPC of ExporterService, and the byte streams, against real host processes: native drivers and upstream's own."""

import asyncio
import gzip
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Value

from lablease.driver import control
from lablease.driver.config import Entry
from lablease.driver.frames import GOAWAY, RST_STREAM, FrameType, data_frame, read_frame
from lablease.driver.session import Status
from lablease.exporter_agent.hosts import DriverHost, HostKind, native_kind, upstream_kind
from lablease.testing.upstream import Upstream
from lablease.wire.jumpstarter.v1 import common_pb2
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2 as pb
from lablease.wire.jumpstarter.v1.jumpstarter_pb2_grpc import ExporterServiceStub

PATIENCE_SECONDS = 30.0

NATIVE = {
    "power": {"type": "lablease.driver.power.MockPower"},
    "echo": {"type": "lablease.driver.network.EchoNetwork"},
    "flash": {"type": "lablease.driver.storage.FileFlasher", "config": {"root": "ROOT"}},
    "alias": {"ref": "power"},
}
UPSTREAM = {
    "power": {"type": "jumpstarter_driver_power.driver.SyncMockPower"},
    "echo": {"type": "jumpstarter_driver_network.driver.EchoNetwork"},
    "flash": {"type": "jumpstarter_driver_opendal.driver.MockFlasher"},
    "alias": {"ref": "power"},
}


@dataclass
class Served:
    """A session that is served, and what its clients need."""

    host: DriverHost
    folder: Path
    main: grpc.aio.Channel
    hooks: grpc.aio.Channel
    version: int = 0
    events: list[control.EndSession | control.StatusRead] = field(default_factory=list[Any])

    @property
    def stub(self) -> Any:
        return ExporterServiceStub(self.main)

    def show(self, status: Status, message: str = "") -> None:
        self.version += 1
        self.host.send(control.SetStatus(status=int(status), message=message, version=self.version, previous=2))

    async def until(self, status: Status) -> pb.GetStatusResponse:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (answer := await self.stub.GetStatus(pb.GetStatusRequest())).status != status:
                await asyncio.sleep(0.01)
        return cast("pb.GetStatusResponse", answer)

    async def ready(self) -> None:
        self.show(Status.LEASE_READY, "Ready for commands")
        await self.until(Status.LEASE_READY)

    async def ids(self) -> dict[str, str]:
        report = await self.stub.GetReport(Empty())
        return {r.labels["jumpstarter.dev/name"]: r.uuid for r in report.reports if r.parent_uuid}

    async def call(self, name: str, method: str, *args: Value, via_hook: bool = False) -> pb.DriverCallResponse:
        stub = cast("Any", ExporterServiceStub(self.hooks if via_hook else self.main))
        request = pb.DriverCallRequest(uuid=(await self.ids()).get(name, name), method=method, args=args)
        return cast("pb.DriverCallResponse", await stub.DriverCall(request, timeout=PATIENCE_SECONDS))

    def stream(self, request: object) -> Any:
        method = cast("Any", self.main).stream_stream("/jumpstarter.v1.RouterService/Stream")
        text = request if isinstance(request, str) else json.dumps(request)
        return method(metadata=(("request", text),))


@asynccontextmanager
async def serve(kind: HostKind, export: dict[str, Any]) -> AsyncGenerator[Served]:
    """Start a host and let it serve ``export``."""
    with tempfile.TemporaryDirectory(prefix="raw-", dir="/tmp") as name:
        folder = Path(name)
        entries = json.loads(json.dumps(export).replace("ROOT", str(folder / "images")))
        host = await DriverHost.start(kind)
        served = None
        try:
            order = control.Build(
                exporter="raw",
                exporter_uuid="4d3c7a52-0000-4000-8000-000000000000",
                labels={"room": "1"},
                export=cast("dict[str, Entry]", entries),
                main_socket=str(folder / "main"),
                hook_socket=str(folder / "hooks"),
                identity=control.Identity(lease="lease-1", client="alice", grant=7),
            )
            host.send(order)
            built = await host.answer(control.Built, PATIENCE_SECONDS)
            assert not built.error
            main = grpc.aio.insecure_channel(f"unix://{folder / 'main'}")
            hooks = grpc.aio.insecure_channel(f"unix://{folder / 'hooks'}")
            served = Served(host, folder, main, hooks)
            host.on_event = served.events.append
            yield served
            await main.close(None)
            await hooks.close(None)
        finally:
            await host.shut_down()


@pytest.fixture(params=["native", "upstream"])
async def session(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    """The same tree of either kind."""
    if request.param == "native":
        kind, export = native_kind(), cast("dict[str, Any]", NATIVE)
    else:
        upstream: Upstream = request.getfixturevalue("upstream")
        kind, export = upstream_kind(upstream.python), UPSTREAM
    async with serve(kind, export) as served:
        yield served


@pytest.fixture
async def native() -> AsyncIterator[Served]:
    """A tree of native drivers."""
    async with serve(native_kind(), NATIVE) as served:
        yield served


def code_of(caught: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> tuple[grpc.StatusCode, str]:
    return caught.value.code(), caught.value.details() or ""


async def frames(call: Any) -> AsyncIterator[tuple[FrameType, bytes]]:
    eof = getattr(grpc.aio, "EOF")  # noqa: B009 - the type stubs lack it
    while (frame := await asyncio.wait_for(call.read(), PATIENCE_SECONDS)) is not eof:
        yield read_frame(frame)


async def test_get_report_lists_parents_first_and_a_reference_with_the_id_of_its_target(session: Served) -> None:
    report = await session.stub.GetReport(Empty())
    assert report.uuid == "4d3c7a52-0000-4000-8000-000000000000"
    assert dict(report.labels) == {"room": "1"}
    seen: set[str] = set()
    roots = 0
    for entry in report.reports:
        assert entry.labels["jumpstarter.dev/client"]
        if entry.HasField("parent_uuid"):
            assert entry.parent_uuid in seen
            assert entry.labels["jumpstarter.dev/name"]
        else:
            roots += 1
        seen.add(entry.uuid)
    ids = await session.ids()
    assert roots == 1
    assert ids["alias"] == ids["power"]


async def test_driver_ids_are_the_same_in_the_next_session_of_the_exporter(native: Served) -> None:
    first = await native.ids()
    async with serve(native_kind(), NATIVE) as second:
        assert await second.ids() == first


async def test_get_status_shows_what_the_agent_set(session: Served) -> None:
    fresh = await session.stub.GetStatus(pb.GetStatusRequest())
    assert (fresh.status, fresh.status_version, fresh.HasField("previous_status")) == (Status.AVAILABLE, 0, False)
    session.show(Status.LEASE_READY, "Ready for commands")
    answer = await session.until(Status.LEASE_READY)
    assert (answer.message, answer.status_version, answer.previous_status) == ("Ready for commands", 1, 2)


@pytest.mark.parametrize("status", [s for s in Status if s not in (Status.LEASE_READY, Status.UNSPECIFIED)])
async def test_driver_calls_are_refused_outside_lease_ready_and_name_the_status(native: Served, status: Status) -> None:
    native.show(status)
    await native.until(status)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await native.call("power", "on")
    code, text = code_of(caught)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert status.name in text


async def test_hooks_may_call_drivers_while_they_run_and_clients_may_not(session: Served) -> None:
    session.show(Status.BEFORE_LEASE_HOOK)
    await session.until(Status.BEFORE_LEASE_HOOK)
    assert (await session.call("power", "on", via_hook=True)).result.WhichOneof("kind") == "null_value"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await session.call("power", "on")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    call = session.stream({"kind": "driver", "uuid": (await session.ids())["echo"], "method": "connect"})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_driver_call_returns_null_and_an_id_of_its_own(session: Served) -> None:
    await session.ready()
    answers = [await session.call("power", "on") for _ in range(2)]
    assert all(answer.result.WhichOneof("kind") == "null_value" for answer in answers)
    assert answers[0].uuid != answers[1].uuid


async def test_streaming_call_yields_every_item(session: Served) -> None:
    await session.ready()
    request = pb.StreamingDriverCallRequest(uuid=(await session.ids())["power"], method="read")
    items = [item.result.struct_value.fields async for item in session.stub.StreamingDriverCall(request)]
    assert [(item["voltage"].number_value, item["current"].number_value) for item in items] == [(0, 0), (5, 2)]


@pytest.mark.parametrize(
    ("driver", "method", "code"),
    [
        ("no-such-driver", "on", grpc.StatusCode.NOT_FOUND),
        ("power", "explode", grpc.StatusCode.NOT_FOUND),
        ("power", "close", grpc.StatusCode.NOT_FOUND),
        ("power", "read", grpc.StatusCode.NOT_FOUND),
        ("echo", "connect", grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_what_is_not_exported_for_the_call_is_not_found(
    session: Served, driver: str, method: str, code: grpc.StatusCode
) -> None:
    await session.ready()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await session.call(driver, method)
    assert caught.value.code() is code


async def test_arguments_that_do_not_fit_are_invalid(session: Served) -> None:
    await session.ready()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await session.call("power", "on", Value(number_value=1))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_log_stream_gives_every_line_to_every_reader(session: Served) -> None:
    await session.ready()
    for number in range(300):
        session.host.send(control.AddLog(severity="INFO", source=2, message=f"line {number}"))
    await session.call("power", "on")

    async def read() -> list[tuple[str, int]]:
        lines: list[tuple[str, int]] = []
        async for line in session.stub.LogStream(Empty(), timeout=PATIENCE_SECONDS):
            lines.append((line.message, line.source))
            if line.message == "power on":
                break
        return lines

    first, second = await asyncio.gather(read(), read())
    assert first == second
    hook = common_pb2.LOG_SOURCE_BEFORE_LEASE_HOOK
    assert [line for line in first if line[1] == hook] == [(f"line {n}", hook) for n in range(300)]
    assert first[-1] == ("power on", common_pb2.LOG_SOURCE_DRIVER)


async def test_end_session_asks_the_agent_and_answers_what_it_says(session: Served) -> None:
    await session.ready()
    waiting = asyncio.ensure_future(session.stub.EndSession(pb.EndSessionRequest()))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not session.events:
            await asyncio.sleep(0.01)
    assert isinstance(session.events[0], control.EndSession)
    session.host.send(control.SessionEnded(success=True, message="hook is done"))
    answer = await waiting
    assert (answer.success, answer.message) == (True, "hook is done")


async def test_end_session_answers_before_a_client_gives_up(native: Served) -> None:
    began = asyncio.get_running_loop().time()
    answer = await native.stub.EndSession(pb.EndSessionRequest(), timeout=5)
    assert answer.success
    assert "still running" in answer.message
    assert asyncio.get_running_loop().time() - began > 3.5


async def test_reset_ends_open_streams(session: Served) -> None:
    await session.ready()
    call = session.stream({"kind": "driver", "uuid": (await session.ids())["echo"], "method": "connect"})
    await call.write(data_frame(b"x"))
    assert read_frame(await call.read()) == (FrameType.DATA, b"x")
    await session.stub.Reset(pb.ResetRequest())
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call.read()
    assert (await session.call("power", "on")).uuid


@pytest.mark.parametrize("request_text", ["", "nonsense", '{"kind":"other"}', '{"kind":"driver","uuid":"x"}'])
async def test_a_stream_needs_a_request_that_can_be_read(native: Served, request_text: str) -> None:
    await native.ready()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await native.stream(request_text).read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_driver_stream_carries_10_mb_both_ways_and_ends_by_itself(session: Served) -> None:
    await session.ready()
    call = session.stream({"kind": "driver", "uuid": (await session.ids())["echo"], "method": "connect"})
    await call.initial_metadata()
    block = bytes(range(256)) * 256
    total = 160

    async def send() -> None:
        for _ in range(total):
            await call.write(data_frame(block))
        await call.write(GOAWAY)
        await call.done_writing()

    sending = asyncio.ensure_future(send())
    received = bytearray()
    kinds: list[FrameType] = []
    async for kind, payload in frames(call):
        kinds.append(kind)
        received += payload
    await sending
    assert bytes(received) == block * total
    assert kinds[-1] is FrameType.GOAWAY
    assert await call.code() is grpc.StatusCode.OK


async def resource(session: Served, encoding: str | None) -> tuple[Any, Value, dict[str, str]]:
    request = {"kind": "resource", "uuid": (await session.ids())["flash"], "x_jmp_content_encoding": encoding}
    call = session.stream(request)
    metadata = {key: str(value) for key, value in await call.initial_metadata()}
    handle = Value()
    handle.struct_value.update(json.loads(metadata["resource"]))
    return call, handle, metadata


@pytest.mark.parametrize("encoding", [None, "gzip"])
async def test_an_image_is_flashed_and_read_back(session: Served, encoding: str | None) -> None:
    await session.ready()
    image = bytes(range(256)) * 8192
    sent = image if encoding is None else gzip.compress(image)
    call, handle, metadata = await resource(session, encoding)
    assert metadata["x_jmp_accept_encoding"] == (encoding or "")
    flashing = asyncio.ensure_future(session.call("flash", "flash", handle))
    for start in range(0, len(sent), 65536):
        await call.write(data_frame(sent[start : start + 65536]))
    await call.write(GOAWAY)
    await call.done_writing()
    await flashing
    down, handle, _ = await resource(session, None)
    dumping = asyncio.ensure_future(session.call("flash", "dump", handle))
    received = bytearray()
    async for kind, payload in frames(down):
        received += payload
        if kind is FrameType.GOAWAY:
            break
    await dumping
    assert bytes(received) == image


@pytest.mark.parametrize("how", ["cancel", "reset"])
async def test_a_broken_upload_is_no_short_image(session: Served, how: str) -> None:
    await session.ready()
    call, handle, _ = await resource(session, None)
    flashing = asyncio.ensure_future(session.call("flash", "flash", handle))
    for _ in range(200):  # more than what waits on the way, so that the driver is reading when the rest stays away
        await call.write(data_frame(bytes(65536)))
    if how == "cancel":
        call.cancel()
    else:
        await call.write(RST_STREAM)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await flashing
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)
    assert not (session.folder / "images" / "default").exists()


async def test_a_handle_that_is_not_open_is_invalid(native: Served) -> None:
    await native.ready()
    handle = Value()
    handle.struct_value.update({"kind": "client_stream", "uuid": "4d3c7a52-0000-4000-8000-00000000dead"})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await native.call("flash", "flash", handle)
    code, text = code_of(caught)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "not open" in text


@pytest.mark.parametrize("url", ["http://lab/image", "file:///etc/passwd"])
async def test_the_exporter_fetches_only_https(native: Served, url: str) -> None:
    await native.ready()
    handle = Value()
    handle.struct_value.update({"kind": "presigned_request", "method": "GET", "url": f"{url}?secret=1"})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await native.call("flash", "flash", handle)
    code, text = code_of(caught)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "https" in text
    assert "secret" not in text
