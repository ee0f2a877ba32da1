"""The command table: lazy, complete, and with clear errors."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module

import click
import pytest
from click.testing import CliRunner

from lablease.cli.child import pause_before_look, shell_command, why_over
from lablease.cli.lease import lease as lease_group
from lablease.cli.main import COMMANDS, cli
from lablease.cli.objects import COLUMNS, row
from lablease.cli.output import exporter_columns, exporter_row, lease_data, lease_row
from lablease.cli.verbs import GROUPS
from lablease.client.drivers import CLASSES
from lablease.client.resources import parse_exporter, parse_lease
from lablease.wire.jumpstarter.client.v1 import client_pb2

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HEAVY = ("grpc", "google", "pydantic", "aiohttp", "kopf", "kubernetes", "rich", "yaml", "asyncio")


def test_the_overview_imports_nothing_that_is_slow() -> None:
    script = f"import sys, lablease.cli.main as m\ntry: m.cli(['--help'])\nexcept SystemExit: pass\nprint([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", [n for n in COMMANDS if not COMMANDS[n].target.startswith("lablease.cli.servers")])
def test_each_command_exists_and_has_help(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage: " in result.output


@pytest.mark.parametrize("name", ["operator", "frontend", "router"])
def test_each_server_gets_all_its_arguments_and_decides_the_exit_status(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    class Module:
        @staticmethod
        def main(argv: list[str]) -> int:
            seen.append(argv)
            return 7

    def load(module: str) -> type[Module]:
        return Module

    monkeypatch.setattr("lablease.cli.servers.import_module", load)
    result = CliRunner().invoke(cli, [name, "--help", "--port", "1", "x"])
    assert seen == [["--help", "--port", "1", "x"]]
    assert result.exit_code == 7


def test_completion_offers_commands_without_importing_them() -> None:
    script = "import sys, lablease.cli.main as m\nprint([c.value for c in m.cli.shell_complete(m.click.Context(m.cli), 'sh')], 'lablease.cli.shell' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['shell'] False"


def test_an_unknown_command_is_refused() -> None:
    result = CliRunner().invoke(cli, ["shel"])
    assert result.exit_code == 2
    assert "shel" in result.output


@pytest.mark.parametrize("label", sorted(CLASSES))
def test_each_known_driver_has_a_class_and_commands(label: str) -> None:
    module, _, name = CLASSES[label].partition(":")
    assert name in vars(import_module(module))
    where, _, attribute = GROUPS[name].partition(":")
    assert isinstance(getattr(import_module(where), attribute), click.Group)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["create"], "--selector"),
        (["create", "-l", "a=b", "--duration", "soon"], "is not a duration"),
        (["create", "-l", "a=b", "--tag", "x"], "is not key=value"),
        (["create", "-l", "a=b", "--begin-time", "x"], "is not a time"),
        (["release"], "--all"),
        (["release", "x", "--all"], "--all"),
        (["extend", "x"], "--to"),
        (["extend", "x", "5m", "--to", "1h"], "--to"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(lease_group, arguments)
    assert result.exit_code == 2
    assert problem in result.output


def lease_message() -> client_pb2.Lease:
    message = client_pb2.Lease(
        name="namespaces/lab/leases/one",
        client="namespaces/lab/clients/me",
        exporter="namespaces/lab/exporters/b1",
        selector="board=x",
        tags={"build": "7"},
    )
    message.duration.FromTimedelta(timedelta(hours=1))
    message.effective_begin_time.FromDatetime(NOON)
    message.conditions.add(type="Ready", status="True", reason="Ready")
    return message


def test_a_lease_row_counts_down() -> None:
    info = parse_lease(lease_message())
    shown = lease_row(info, NOON + timedelta(minutes=30))
    assert (shown[0], shown[1], *shown[3:]) == ("one", "board=x", "30m", "me", "b1", "build=7")
    assert lease_row(info, NOON + timedelta(hours=1))[3] == "expired"


def test_lease_data_has_the_keys_of_jmp_with_durations_in_seconds() -> None:
    data = lease_data(parse_lease(lease_message()))
    assert list(data) == [
        "namespace",
        "name",
        "selector",
        "exporter_name",
        "tags",
        "duration",
        "effective_duration",
        "begin_time",
        "client",
        "exporter",
        "conditions",
        "effective_begin_time",
        "effective_end_time",
        "deprecated_labels",
    ]
    assert (data["duration"], data["effective_begin_time"]) == (3600.0, "2026-05-01T12:00:00Z")


def test_an_exporter_row_has_a_cell_for_each_column() -> None:
    exporter = parse_exporter(client_pb2.Exporter(name="namespaces/lab/exporters/b1", labels={"b": "2", "a": "1"}))
    for shown in (frozenset[str](), frozenset({"online"}), frozenset({"leases", "status", "enabled", "online"})):
        for lease in (None, parse_lease(lease_message())):
            assert len(exporter_row(exporter, shown, lease)) == len(exporter_columns(shown))
    assert exporter_row(exporter, frozenset(), None) == ("b1", "a=1,b=2")


@pytest.mark.parametrize("kind", sorted(COLUMNS))
def test_an_object_that_is_brand_new_still_makes_a_row(kind: str) -> None:
    item = {"metadata": {"name": "x", "creationTimestamp": "2026-05-01T11:59:00Z"}}
    cells = row(kind, item, NOON)
    assert len(cells) == len(COLUMNS[kind])
    assert cells[0] == "x"
    assert kind == "client" or cells[-1] == "1m"


@pytest.mark.parametrize(
    ("left", "pause"),
    [(None, 1), (3600, 30), (310, 10), (300, 30), (20, 20), (0.1, 1), (-5, 1)],
)
def test_a_lease_is_looked_at_in_time_for_the_notice_and_the_end(left: float | None, pause: float) -> None:
    remaining = None if left is None else timedelta(seconds=left)
    assert pause_before_look(remaining) == timedelta(seconds=pause)


def test_a_lease_is_over_when_the_controller_says_so_or_it_has_another_owner() -> None:
    message = lease_message()
    assert why_over(parse_lease(message), "me") == ""
    assert why_over(parse_lease(message), "you") == "it was transferred to me"
    message.conditions[0].status, message.conditions[0].reason = "False", "Expired"
    assert why_over(parse_lease(message), "me")


def test_the_prompt_names_the_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/bash")
    argv, env = shell_command("b1", use_profiles=False)
    assert argv == ("/bin/bash", "--norc", "--noprofile")
    assert "b1" in env["PS1"]
    assert shell_command("b1", use_profiles=True)[0] == ("/bin/bash",)
