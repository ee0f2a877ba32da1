"""`lablease up`, `down` and `status` where nothing needs to run, and what renews tokens."""

import json
import socket
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from lablease.cli.up import down, status, up
from lablease.embedded import launch
from lablease.embedded.accounts import RENEW_AFTER, RETRY_AFTER, Renewals
from lablease.embedded.control_plane import move
from lablease.embedded.errors import ApiError, EmbeddedError
from lablease.embedded.main import Options
from lablease.embedded.paths import DataDir
from lablease.embedded.process import claim, locked, recall
from lablease.embedded.services import SERVICE_PORTS, HttpOk, PortOpen, Service, ensure_router_key, table
from lablease.embedded.state import PortName, State, claim_port
from lablease.embedded.status import Phase, Shown, Status, read_status, write_status

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@contextmanager
def supervisor(data: DataDir) -> Generator[Status]:
    """Pretend that this process is one."""
    data.make()
    with locked(data.lock) as mine:
        assert mine
        claim(data.lock)
        me = recall(data.lock)
        assert me is not None
        shown = (
            Shown("etcd", me, 2, data.logs / "etcd.log", "started"),
            Shown("operator", None, 0, data.logs / "o", ""),
        )
        running = Status(
            Phase.READY, me, NOW, "https://127.0.0.1:1", data.kubeconfig, "lab", data.audit_log, data.dev_ca, data.logs, Path('/bin/kubectl'),
            {"frontend-grpc": 7}, shown,
        )  # fmt: skip
        write_status(data, running)
        yield running


def test_status_of_nothing_says_so_with_its_own_exit_status(tmp_path: Path) -> None:
    shown = CliRunner().invoke(status, ["--data-dir", str(tmp_path / "none")])
    assert (shown.output, shown.exit_code) == ("stopped\n", 3)
    assert not (tmp_path / "none").exists()


def test_status_for_programs_is_json_also_when_nothing_runs(tmp_path: Path) -> None:
    shown = CliRunner().invoke(status, ["--data-dir", str(tmp_path), "-o", "json"])
    assert json.loads(shown.output) == {"phase": "stopped", "data_dir": str(tmp_path)}


def test_a_supervisor_that_wrote_nothing_yet_is_starting(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"):
        shown = CliRunner().invoke(status, ["--data-dir", str(tmp_path)])
    assert (shown.output, shown.exit_code) == ("starting\n", 1)


def test_status_names_what_is_down_and_fails_then(tmp_path: Path) -> None:
    with supervisor(DataDir(tmp_path)):
        shown = CliRunner().invoke(status, ["--data-dir", str(tmp_path)])
    assert shown.exit_code == 1
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["front", "end", "localhost:7", "(CA", f"{tmp_path}/pki/service-ca.crt)"] in lines
    assert next(line for line in lines if line[:1] == ["operator"])[1] == "down:"
    assert next(line for line in lines if line[:1] == ["etcd"])[1] == "ready"


def test_status_for_programs_says_what_is_wrong(tmp_path: Path) -> None:
    with supervisor(DataDir(tmp_path)):
        shown = CliRunner().invoke(status, ["--data-dir", str(tmp_path), "-o", "json"])
    content = json.loads(shown.output)
    assert content["healthy"] is False
    assert sorted(content["problems"]) == ["kube-apiserver", "operator"]


def test_what_was_written_is_read_back_as_long_as_the_writer_lives(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    with supervisor(data) as running:
        assert read_status(data) == running
    assert read_status(data) is None


def test_a_second_up_says_where_the_first_one_runs_and_succeeds(tmp_path: Path) -> None:
    with supervisor(DataDir(tmp_path)) as running:
        shown = CliRunner().invoke(up, ["--data-dir", str(tmp_path)])
    assert shown.exit_code == 0
    assert f"it runs already, since 2026-03-01 12:00:00 UTC (pid {running.supervisor.pid})" in shown.output
    assert f"kubectl     /bin/kubectl --kubeconfig {tmp_path}/kubeconfig" in shown.output


def test_down_of_nothing_is_no_failure(tmp_path: Path) -> None:
    shown = CliRunner().invoke(down, ["--data-dir", str(tmp_path / "none")])
    assert (shown.output, shown.exit_code) == ("nothing runs\n", 0)


def test_purge_deletes_what_is_ours_only(tmp_path: Path) -> None:
    ours, other = DataDir(tmp_path / "ours"), tmp_path / "other"
    with supervisor(ours):
        pass
    assert CliRunner().invoke(down, ["--purge", "--data-dir", str(ours.root)]).exit_code == 0
    assert not ours.root.exists()
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(EmbeddedError, match="is no data directory of lablease"):
        launch.purge(DataDir(other))
    assert (other / "thesis.tex").exists()


def test_an_existing_cluster_is_asked_for_with_a_kubeconfig_that_exists(tmp_path: Path) -> None:
    arguments = ["--foreground", "--data-dir", str(tmp_path / "d"), "--kubeconfig", str(tmp_path / "none")]
    shown = CliRunner().invoke(up, arguments)
    assert isinstance(shown.exception, EmbeddedError)
    assert str(shown.exception).startswith(f"there is no kubeconfig {tmp_path}/none\n")


def test_options_reach_the_supervisor_as_they_were_given(tmp_path: Path) -> None:
    for options in (Options(tmp_path), Options(tmp_path, tmp_path / "kubeconfig", "bench", 6443, services=False)):
        assert Options.from_json(options.to_json()) == options


def test_the_manifests_follow_the_name_of_the_lab() -> None:
    role = {"kind": "Role", "metadata": {"name": "lab", "namespace": "lab"}}
    system = {"kind": "Role", "metadata": {"name": "r", "namespace": "lablease-system"}}
    assert move(role, "lab", "bench") == {"kind": "Role", "metadata": {"name": "lab", "namespace": "bench"}}
    assert move({"kind": "Namespace", "metadata": {"name": "lab"}}, "lab", "bench")["metadata"] == {"name": "bench"}
    assert move(system, "lab", "bench") == system


def services(tmp_path: Path) -> dict[str, Service]:
    ports = {name: number for number, name in enumerate(SERVICE_PORTS, 1)}
    return {service.name: service for service in table(DataDir(tmp_path), "bench", ports)}


def test_each_service_has_its_own_account_and_the_router_none(tmp_path: Path) -> None:
    accounts = {name: service.account for name, service in services(tmp_path).items()}
    assert accounts == {"operator": "lablease-operator", "router": None, "frontend": "lablease-frontend"}


def test_no_service_gets_a_secret_by_its_environment_or_command_line(tmp_path: Path) -> None:
    key = ensure_router_key(DataDir(tmp_path)).read_bytes()
    for service in services(tmp_path).values():
        assert key.hex() not in str(service)
        assert not [name for name in service.env if "TOKEN" in name or "PASSWORD" in name]


def test_the_router_key_is_made_once(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    assert ensure_router_key(data).read_bytes() == ensure_router_key(data).read_bytes()


def test_a_service_is_not_ready_before_it_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        assert PortOpen(port).problem() is None
    problem = PortOpen(port).problem()
    assert problem is not None
    assert f"port {port}" in problem
    assert HttpOk(f"http://127.0.0.1:{port}/readyz").problem() is not None


def test_two_listeners_never_get_the_same_port() -> None:
    state = State("lab")
    ports = [claim_port(state, PortName(f"p{number}"), None, "--x") for number in range(50)]
    assert len(set(ports)) == 50


def test_a_token_is_renewed_at_half_its_life_and_again_soon_after_a_failure() -> None:
    asked, failing = list[str](), set[str]()

    def renew(account: str) -> Path:
        asked.append(account)
        if account in failing:
            raise ApiError(0, "", "the API server does not answer")
        return Path(account)

    events = list[str]()
    renewals = Renewals(renew, lambda name, event: events.append(f"{name} {event}"))
    renewals.add(["frontend"], NOW)
    renewals.run(NOW + RENEW_AFTER - timedelta(seconds=1))
    assert asked == []
    failing.add("frontend")
    renewals.run(NOW + RENEW_AFTER)
    assert events == ["frontend its token could not be renewed: the API server does not answer"]
    failing.clear()
    renewals.run(NOW + RENEW_AFTER + RETRY_AFTER)
    renewals.run(NOW + RENEW_AFTER + RETRY_AFTER + timedelta(minutes=1))
    assert asked == ["frontend", "frontend"]
