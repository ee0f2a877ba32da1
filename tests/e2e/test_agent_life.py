"""The agent as a real process, against a stub controller and router: leases, outages, crashes, hooks, signals."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml
from google.protobuf.empty_pb2 import Empty

from lablease.driver.session import Status
from lablease.testing.stubcontroller import PATIENCE_SECONDS, Seen, World, leased, world
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2 as pb
from lablease.wire.jumpstarter.v1.jumpstarter_pb2_grpc import ExporterServiceStub

DAEMON = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(3600)\n"


class Bench:
    """An agent process and its world."""

    def __init__(self, the_world: World) -> None:
        self.world = the_world
        self.controller = the_world.controller
        self.device_log = the_world.folder / "device.log"
        self.config = the_world.folder / "exporter.yaml"
        self.process: asyncio.subprocess.Process | None = None

    def write(self, **more: Any) -> None:
        power = {"type": "lablease.driver.power.MockPower", "config": {"log": str(self.device_log)}}
        config = {
            "apiVersion": "jumpstarter.dev/v1alpha1",
            "kind": "ExporterConfig",
            "metadata": {"name": "bench", "namespace": "lab"},
            "endpoint": f"localhost:{self.world.port}",
            "token": "first-token",
            "tls": {"ca": self.world.ca},
            "export": {"power": power, "echo": {"type": "lablease.driver.network.EchoNetwork"}},
            **more,
        }
        self.config.write_text(yaml.safe_dump(config))

    async def start(self, **more: Any) -> None:
        """Start the agent and wait until it has registered."""
        self.write(**more)
        await self.launch()
        await self.controller.until_report(Status.AVAILABLE, 0)

    async def launch(self, *options: str) -> None:
        command = [sys.executable, "-m", "lablease.cli.main", "exporter", "run", "--exporter-config", str(self.config)]
        self.process = await asyncio.create_subprocess_exec(
            *command,
            *options,
            env={**os.environ, "XDG_RUNTIME_DIR": str(self.world.folder)},
            stderr=asyncio.subprocess.PIPE if "--log-level" in options else None,
        )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def exit_status(self) -> int:
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)

    async def lease(self, name: str, grant: int, **more: Any) -> None:
        """Grant a lease and wait until it is ready."""
        await self.controller.tell(leased(name, grant, **more))
        await self.controller.until_report(Status.LEASE_READY, grant)
        await self.controller.until(f"Listen {name}")

    async def free(self, grant: int) -> None:
        """End a lease and wait until the exporter is available again."""
        await self.controller.tell(pb.StatusResponse(released_grant=grant))
        await self.controller.until_report(Status.AVAILABLE, grant)

    async def call(self, channel: grpc.aio.Channel, method: str = "on") -> None:
        stub: Any = ExporterServiceStub(channel)
        report = await stub.GetReport(Empty(), timeout=PATIENCE_SECONDS)
        uuid = next(r.uuid for r in report.reports if r.labels.get("jumpstarter.dev/name") == "power")
        await stub.DriverCall(pb.DriverCallRequest(uuid=uuid, method=method), timeout=PATIENCE_SECONDS)

    def device_calls(self) -> list[tuple[str, str, int]]:
        lines = self.device_log.read_text().splitlines() if self.device_log.exists() else []
        return [(line["method"], line["client"], line["grant"]) for line in map(json.loads, lines)]

    def below(self, root: int) -> list[int]:
        """Return the pids of all descendants that live."""
        found: list[int] = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == root and fields[0] not in "ZX":
                found += [int(stat.parent.name), *self.below(int(stat.parent.name))]
        return found

    def alive(self, pid: int) -> bool:
        return Path(f"/proc/{pid}").exists()

    def command(self, pid: int) -> bytes:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return b""

    def hosts(self) -> list[int]:
        """Return the pids of driver hosts of this agent."""
        return [pid for pid in self.below(self.pid) if self._is_host(pid)]

    def serving(self) -> int:
        """Return the pid of the host that serves the first lease: the spare was started after it."""
        return min(self.hosts())

    def _is_host(self, pid: int) -> bool:
        command = self.command(pid).split(b"\0")
        return b"lablease.driver.host" in command and b"--grace" not in command


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with world() as made:
        bench = Bench(made)
        yield bench
        if bench.process is not None and bench.process.returncode is None:
            bench.process.kill()
            await bench.process.wait()


async def gone(channel: grpc.aio.Channel) -> None:
    """Wait until the channel's session serves nobody."""
    stub: Any = ExporterServiceStub(channel)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await stub.GetStatus(pb.GetStatusRequest(), timeout=2)
            except grpc.aio.AioRpcError:
                return
            await asyncio.sleep(0.02)


async def test_a_lease_is_served_through_the_tunnel_and_reported_in_order(bench: Bench) -> None:
    await bench.start()
    await bench.lease("a", 11)
    async with bench.world.dial("a") as channel:
        await bench.call(channel)
        await bench.free(11)
        await gone(channel)
    assert [(r.status, r.grant) for r in bench.controller.reports] == [(2, 0), (4, 11), (2, 11)]
    assert bench.device_calls() == [("on", "alice", 11)]


async def test_a_controller_that_is_away_at_start_is_waited_for(bench: Bench) -> None:
    await bench.world.stop()
    bench.write()
    await bench.launch()
    await asyncio.sleep(1.0)  # several attempts
    assert bench.process is not None
    assert bench.process.returncode is None
    await bench.world.start()
    await bench.controller.until_report(Status.AVAILABLE, 0)


async def test_a_new_lease_without_a_gap_ends_the_old_one_first(bench: Bench) -> None:
    await bench.start()
    await bench.lease("a", 11)
    first = bench.serving()
    async with bench.world.dial("a") as channel:
        await bench.call(channel)
        await bench.lease("b", 12)
        assert not bench.alive(first)
        await gone(channel)
    async with bench.world.dial("b") as channel:
        await bench.call(channel)
    assert [(r.status, r.grant) for r in bench.controller.reports] == [(2, 0), (4, 11), (2, 11), (4, 12)]
    assert bench.device_calls() == [("on", "alice", 11), ("on", "alice", 12)]


async def test_the_end_of_an_older_grant_does_not_end_this_one(bench: Bench) -> None:
    await bench.start()
    await bench.lease("a", 11)
    await bench.controller.tell(pb.StatusResponse(released_grant=10))
    await bench.controller.tell(leased("ghost", 9))
    async with bench.world.dial("a") as channel:
        await bench.call(channel)
    assert [r.status for r in bench.controller.reports] == [2, 4]


async def test_a_lease_survives_an_outage_of_the_controller_and_reports_arrive_later_in_order(bench: Bench) -> None:
    await bench.start()
    await bench.lease("a", 11, seconds=60)
    host = bench.serving()
    await bench.world.stop()
    await asyncio.sleep(3.0)  # stock exporters have ended the lease by then
    bench.controller.refuse_reports = 2
    await bench.world.start()
    await bench.controller.until("Listen a", 2)
    assert bench.serving() == host
    async with bench.world.dial("a") as channel:
        await bench.call(channel)
    await bench.free(11)
    assert [(r.status, r.grant) for r in bench.controller.reports] == [(2, 0), (4, 11), (2, 11)]
    assert bench.controller.calls.count("Register") == 1


async def test_a_lease_ends_at_its_planned_end_although_the_controller_is_away(bench: Bench) -> None:
    await bench.start()
    await bench.lease("a", 11, seconds=2.5)
    host = bench.serving()
    await bench.world.stop()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while bench.alive(host):
            await asyncio.sleep(0.02)
    await bench.world.start()
    await bench.controller.until_report(Status.AVAILABLE, 11)
    assert [(r.status, r.grant) for r in bench.controller.reports] == [(2, 0), (4, 11), (2, 11)]


async def test_a_moved_end_is_obeyed(bench: Bench) -> None:
    await bench.start()
    await bench.lease("a", 11, seconds=1.5)
    await bench.controller.tell(leased("a", 11, seconds=60))
    await asyncio.sleep(2.0)  # past the first end
    async with bench.world.dial("a") as channel:
        await bench.call(channel)
    await bench.controller.tell(leased("a", 11, seconds=0.2))
    await bench.controller.until_report(Status.AVAILABLE, 11)


async def test_a_transfer_cuts_the_old_client_and_keeps_the_session(bench: Bench) -> None:
    await bench.start()
    await bench.lease("a", 11)
    host = bench.serving()
    async with bench.world.dial("a") as channel:
        stub: Any = ExporterServiceStub(channel)
        logs = stub.LogStream(Empty())
        await bench.call(channel)
        await logs.read()
        await bench.controller.tell(leased("a", 11, client="bob"))
        with pytest.raises(grpc.aio.AioRpcError):
            await asyncio.wait_for(logs.read(), PATIENCE_SECONDS)
    async with bench.world.dial("a") as channel:
        await bench.call(channel, "off")
    assert bench.serving() == host
    assert bench.device_calls() == [("on", "alice", 11), ("off", "bob", 11)]


async def test_a_crashed_host_costs_one_restart_and_keeps_the_ids(bench: Bench) -> None:
    await bench.start()
    await bench.lease("a", 11)
    async with bench.world.dial("a") as channel:
        stub: Any = ExporterServiceStub(channel)
        before = await stub.GetReport(Empty())
        os.kill(bench.serving(), signal.SIGSEGV)
        await gone(channel)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    await bench.call(channel)
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
        after = await stub.GetReport(Empty())
    assert [r.uuid for r in after.reports] == [r.uuid for r in before.reports]
    assert [r.status for r in bench.controller.reports] == [2, 4]


async def test_nothing_that_a_hook_left_behind_lives_when_the_exporter_is_available(bench: Bench) -> None:
    await bench.start(hooks={"beforeLease": {"script": DAEMON, "exec": sys.executable}})
    await bench.lease("a", 11)
    left = [pid for pid in bench.below(bench.pid) if b"os.setsid" in bench.command(pid)]
    assert left
    await bench.free(11)
    assert not [pid for pid in left if bench.alive(pid)]


async def test_nothing_lives_after_the_agent_was_killed(bench: Bench) -> None:
    await bench.start(hooks={"beforeLease": {"script": DAEMON, "exec": sys.executable}})
    await bench.lease("a", 11)
    left = bench.below(bench.pid)
    assert len(left) >= 4
    os.kill(bench.pid, signal.SIGKILL)
    await bench.exit_status()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while any(bench.alive(pid) for pid in left):
            await asyncio.sleep(0.05)


async def test_clients_read_status_and_hook_output_while_the_before_hook_runs(bench: Bench) -> None:
    go = bench.world.folder / "go"
    script = f"echo preparing; while [ ! -e {go} ]; do sleep 0.05; done"
    await bench.start(hooks={"beforeLease": {"script": script}})
    await bench.controller.tell(leased("a", 11))
    await bench.controller.until("Listen a")
    async with bench.world.dial("a") as channel:
        stub: Any = ExporterServiceStub(channel)
        assert (await stub.GetStatus(pb.GetStatusRequest())).status == Status.BEFORE_LEASE_HOOK
        line = await anext(aiter(stub.LogStream(Empty(), timeout=PATIENCE_SECONDS)))
        assert (line.message, line.source) == ("preparing", 2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await bench.call(channel)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        go.touch()
        await bench.controller.until_report(Status.LEASE_READY, 11)
        await bench.call(channel)
    assert [r.status for r in bench.controller.reports] == [2, 3, 4]


async def test_a_failed_before_hook_is_read_by_the_client_before_the_lease_is_given_back(bench: Bench) -> None:
    hook = {"script": "echo no board; exit 3", "onFailure": "endLease"}
    await bench.start(hooks={"beforeLease": hook})
    await bench.controller.tell(leased("a", 11))
    await bench.controller.until("Listen a")
    async with bench.world.dial("a") as channel:
        stub: Any = ExporterServiceStub(channel)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (answer := await stub.GetStatus(pb.GetStatusRequest())).status != Status.BEFORE_LEASE_HOOK_FAILED:
                await asyncio.sleep(0.02)
        assert "ReleaseLease" not in bench.controller.calls
        assert "status 3" in answer.message
    await bench.controller.until_report(Status.AVAILABLE, 11)
    assert [r.status for r in bench.controller.reports] == [2, 3, 6, 2]
    await bench.controller.until("ReleaseLease")


async def test_a_hook_that_takes_too_long_is_ended_with_all_it_started(bench: Bench) -> None:
    hook = {"script": "sleep 3599 & sleep 3598", "timeout": 1}
    await bench.start(hooks={"beforeLease": hook})
    await bench.lease("a", 11)
    assert bench.controller.reports[-1].message.startswith("[HOOK_WARNING] ")
    assert not [pid for pid in bench.below(bench.pid) if b"359" in bench.command(pid)]


async def test_end_session_runs_the_after_hook_gives_the_lease_back_and_shows_available(bench: Bench) -> None:
    mark = bench.world.folder / "after"
    await bench.start(hooks={"afterLease": {"script": f"echo $LEASE_NAME $CLIENT_NAME > {mark}"}})
    await bench.lease("a", 11)
    async with bench.world.dial("a") as channel:
        stub: Any = ExporterServiceStub(channel)
        answer = await stub.EndSession(pb.EndSessionRequest(), timeout=5)
        assert answer.success
        assert mark.read_text() == "a alice\n"
        assert (await stub.GetStatus(pb.GetStatusRequest())).status == Status.AVAILABLE
    await bench.controller.until_report(Status.AVAILABLE, 11)
    assert [r.status for r in bench.controller.reports] == [2, 4, 5, 2]
    assert bench.controller.calls.count("ReleaseLease") == 1


async def test_end_session_without_a_hook_keeps_the_tunnel_and_leaves_the_release_to_the_client(bench: Bench) -> None:
    await bench.start()
    await bench.lease("a", 11)
    async with bench.world.dial("a") as channel:
        stub: Any = ExporterServiceStub(channel)
        assert (await stub.EndSession(pb.EndSessionRequest(), timeout=5)).success
        assert (await stub.GetStatus(pb.GetStatusRequest())).status == Status.AVAILABLE
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await bench.call(channel)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        await bench.free(11)
    assert "ReleaseLease" not in bench.controller.calls


async def test_term_runs_the_after_hook_says_goodbye_and_exits_0(bench: Bench) -> None:
    mark = bench.world.folder / "after"
    await bench.start(hooks={"afterLease": {"script": f"touch {mark}"}})
    await bench.lease("a", 11)
    os.kill(bench.pid, signal.SIGTERM)
    assert await bench.exit_status() == 0
    assert mark.exists()
    assert bench.controller.reports[-1] == Seen(Status.OFFLINE, "Exporter shutting down", 11)
    assert bench.controller.calls[-1] == "Unregister"


async def test_hup_stops_an_idle_agent_at_once_and_a_leased_one_after_the_lease(bench: Bench) -> None:
    await bench.start()
    await bench.lease("a", 11)
    os.kill(bench.pid, signal.SIGHUP)
    async with bench.world.dial("a") as channel:
        await bench.call(channel)
    assert bench.process is not None
    assert bench.process.returncode is None
    await bench.controller.tell(pb.StatusResponse(released_grant=11))
    assert await bench.exit_status() == 0
    assert bench.controller.calls[-1] == "Unregister"


async def test_a_failed_hook_with_on_failure_exit_makes_the_exit_status_1(bench: Bench) -> None:
    await bench.start(hooks={"afterLease": {"script": "exit 1", "onFailure": "exit"}})
    await bench.lease("a", 11)
    await bench.controller.tell(pb.StatusResponse(released_grant=11))
    assert await bench.exit_status() == 1
    assert bench.controller.reports[-1].status == Status.OFFLINE


async def test_a_renewed_token_is_used_and_stored(bench: Bench) -> None:
    bench.controller.renewed_token = "second-token"
    await bench.start()
    await bench.lease("a", 11)
    assert bench.controller.tokens[-1] == "second-token"
    assert yaml.safe_load(bench.config.read_text())["token"] == "second-token"
    assert bench.config.stat().st_mode & 0o777 == 0o600


async def test_drivers_of_both_kinds_in_one_tree_are_refused(bench: Bench) -> None:
    bench.write(
        export={
            "power": {"type": "lablease.driver.power.MockPower"},
            "other": {"type": "jumpstarter_driver_power.driver.MockPower"},
        }
    )
    await bench.launch("--log-level", "INFO")
    assert bench.process is not None
    _, errors = await bench.process.communicate()
    assert bench.process.returncode == 2
    assert b"export.other" in errors
    assert b"one kind" in errors


async def test_a_driver_that_cannot_be_built_stops_the_start_and_names_the_field(bench: Bench) -> None:
    bench.write(export={"power": {"type": "lablease.driver.power.MockPower", "config": {"colour": "red"}}})
    await bench.launch("--log-level", "INFO")
    assert bench.process is not None
    _, errors = await bench.process.communicate()
    assert bench.process.returncode == 2
    assert b"export.power.config.colour" in errors
