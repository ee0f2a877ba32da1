"""`lablease shell` and `lablease call` as real processes against a lab of stubs."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lablease.client.config import write_client
from lablease.testing.stublab import PENDING, StubLab, condition, stub_lab

LABLEASE = f"{sys.executable} -m lablease.cli.main"


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Bench:
    """A lab, and commands of its client."""

    lab: StubLab
    directory: Path

    async def start(self, *arguments: str, **env: str) -> Process:
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("JMP_", "JUMPSTARTER_"))}
        variables |= {
            "JMP_CLIENT_CONFIG_HOME": str(self.directory / "config"),
            "XDG_RUNTIME_DIR": str(self.directory),
            "LABLEASE": LABLEASE,
        }
        command = (sys.executable, "-m", "lablease.cli.main", *arguments)
        return await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env={**variables, **env}
        )

    async def run(self, *arguments: str, **env: str) -> Done:
        return await finish(await self.start(*arguments, **env))

    async def shell(self, script: str) -> Done:
        return await self.run("shell", "-l", "board=stub", "--", "sh", "-ec", script)


@pytest.fixture
async def bench() -> AsyncGenerator[Bench]:
    with TemporaryDirectory(prefix="lab-") as directory:
        home = Path(directory)
        async with stub_lab(home) as lab:
            write_client(home / "config" / "clients" / "me.yaml", lab.config)
            (home / "config" / "config.yaml").write_text(
                "apiVersion: jumpstarter.dev/v1alpha1\nkind: UserConfig\nconfig: {current-client: me}\n"
            )
            yield Bench(lab, home)


async def finish(process: Process) -> Done:
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not look():
            await asyncio.sleep(0.02)


async def test_a_shell_leases_calls_releases_and_has_the_status_of_its_command(bench: Bench) -> None:
    done = await bench.shell("$LABLEASE call power on; $LABLEASE call power off; exit 7")
    assert done.code == 7, done.err
    assert bench.lab.exporter.log == ["report", "on", "off", "end"]
    assert bench.lab.controller.leases == {}
    assert "has exporter board-1 until" in done.err
    assert "Traceback" not in done.err


async def test_calls_in_a_shell_share_its_tunnel(bench: Bench) -> None:
    await bench.shell("$LABLEASE call power on; $LABLEASE call power on")
    assert bench.lab.controller.dials == 1


async def test_the_environment_is_that_of_jmp_shell(bench: Bench) -> None:
    done = await bench.shell("env")
    env = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
    assert env["JUMPSTARTER_HOST"].startswith(str(bench.directory))
    assert (env["JMP_EXPORTER"], env["JMP_EXPORTER_LABELS"]) == ("board-1", "board=stub")
    assert env["JMP_LEASE"]
    assert env["JMP_DRIVERS_ALLOW"] == ""
    assert not Path(env["JUMPSTARTER_HOST"]).parent.exists()


async def test_files_flow_through_a_shared_connection_too(bench: Bench) -> None:
    image = bench.directory / "image"
    image.write_bytes(os.urandom((2 << 20) + 1))
    done = await bench.shell(f"$LABLEASE call storage flash {image}")
    assert done.code == 0, done.err
    assert bench.lab.exporter.flashed == image.read_bytes()


async def test_errors_of_a_driver_are_one_line_and_a_status(bench: Bench) -> None:
    done = await bench.shell("$LABLEASE call odd picky; echo not reached")
    assert done.code == 1
    assert "Error: picky: too picky (INVALID_ARGUMENT)" in done.err.splitlines()
    assert done.out == ""


async def test_a_method_of_an_unknown_driver_is_called_by_name(bench: Bench) -> None:
    done = await bench.shell("$LABLEASE call odd add 1 2; $LABLEASE call odd --help")
    assert done.out.splitlines()[0] == "3"
    assert "Add two numbers." in done.out


async def test_a_driver_that_is_not_there_is_answered_with_those_that_are(bench: Bench) -> None:
    done = await bench.shell("$LABLEASE call; $LABLEASE call powr on")
    assert done.out.splitlines()[0] == "power  (PowerClient)"
    assert "no driver 'powr'; the exporter offers echo, odd, power, storage" in done.err


async def test_a_command_that_does_not_exist_is_told_and_the_lease_released(bench: Bench) -> None:
    done = await bench.run("shell", "-l", "board=stub", "--", "no-such-command")
    assert done.code == 1
    assert "Error: no-such-command: no such command" in done.err
    assert bench.lab.controller.leases == {}


async def test_a_refused_lease_is_one_line(bench: Bench) -> None:
    bench.lab.controller.conditions = [[condition("Unsatisfiable", "True", "NoAccess", "no policy admits you")]]
    done = await bench.shell("true")
    assert done.code == 1
    assert done.err.splitlines()[-1].endswith("no policy admits you (NoAccess)")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_while_waiting_gives_the_lease_back(bench: Bench, number: signal.Signals, code: int) -> None:
    bench.lab.controller.conditions = [[PENDING]]
    process = await bench.start("shell", "-l", "board=stub", "--", "true")
    await until(lambda: [m for m, _ in bench.lab.controller.calls if m == "GetLease"])
    process.send_signal(number)
    done = await finish(process)
    assert done.code == code
    assert "both exporters are leased (NotAvailable)" in done.err
    assert bench.lab.controller.leases == {}
    assert "Traceback" not in done.err


async def test_a_signal_goes_to_the_command_and_the_lease_is_released(bench: Bench) -> None:
    process = await bench.start(
        "shell",
        "-l",
        "board=stub",
        "--",
        "sh",
        "-c",
        "trap 'echo caught; exit 3' TERM; echo up; while :; do sleep 0.1; done",
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    done = await finish(process)
    assert (done.code, done.out) == (3, "caught\n")
    assert bench.lab.controller.leases == {}


async def test_the_end_of_the_lease_ends_the_command(bench: Bench) -> None:
    def grant() -> None:
        for lease in bench.lab.controller.leases.values():
            lease.effective_begin_time.GetCurrentTime()
            lease.duration.seconds = 1

    process = await bench.start("shell", "-l", "board=stub", "--duration", "2s", "--", "sleep", "60")
    await until(lambda: bench.lab.exporter.log)
    grant()
    bench.lab.controller.conditions = [[condition("Ready", "False", "Expired", "the time is over")]]
    done = await finish(process)
    assert done.code == 128 + signal.SIGHUP
    assert "the lease has ended: the time is over" in done.err


async def test_hook_output_is_shown_and_the_rest_only_when_asked(bench: Bench) -> None:
    bench.lab.exporter.lines = [("BEFORE_LEASE_HOOK", "preparing"), ("DRIVER", "power on")]
    quiet = await bench.shell("sleep 0.5")
    assert "before_lease_hook: preparing" in quiet.err
    assert "driver: power on" not in quiet.err
    bench.lab.exporter.states = [("LEASE_READY", "")]
    loud = await bench.run("shell", "-l", "board=stub", "--exporter-logs", "--", "sleep", "0.5")
    assert "driver: power on" in loud.err


async def test_call_with_the_name_of_a_lease_needs_no_shell(bench: Bench) -> None:
    created = await bench.run("lease", "create", "-l", "board=stub", "--wait", "-o", "name")
    name = created.out.strip()
    done = await bench.run("call", "--lease", name, "power", "on")
    assert done.code == 0, done.err
    assert bench.lab.exporter.log == ["report", "on"]
    assert list(bench.lab.controller.leases) == [name]
    again = await bench.run("call", "power", "off", JMP_LEASE=name)
    assert again.code == 0, again.err


async def test_call_without_any_lease_says_how_to_get_one(bench: Bench) -> None:
    done = await bench.run("call", "power", "on")
    assert done.code == 1
    assert "lablease shell" in done.err


async def test_leases_are_listed_extended_transferred_and_released(bench: Bench) -> None:
    name = (await bench.run("lease", "create", "-l", "board=stub", "--duration", "1h", "-o", "name")).out.strip()
    assert (await bench.run("lease", "list", "-o", "name")).out.split() == [name]
    assert '"duration": 5400.0' in (await bench.run("lease", "extend", name, "30m", "-o", "json")).out
    assert "client: you" in (await bench.run("lease", "transfer", name, "you", "-o", "yaml")).out
    assert (await bench.run("lease", "list")).out.split() == [
        "NAME",
        "SELECTOR",
        "EXPIRES",
        "AT",
        "REMAINING",
        "CLIENT",
        "EXPORTER",
        "TAGS",
    ]
    assert (await bench.run("lease", "release", name)).out == f'lease "{name}" released\n'
    assert bench.lab.controller.leases == {}
