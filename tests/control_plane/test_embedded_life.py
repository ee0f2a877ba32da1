"""The embedded control plane survives what can be done to it, and says why it does not start."""

import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lablease.embedded import api, kubeconfig, launch
from lablease.embedded.control_plane import AlreadyRunning, ControlPlane
from lablease.embedded.errors import ApiError, ForeignData, PortTaken, StartError
from lablease.embedded.existing import ExistingCluster
from lablease.embedded.main import Options
from lablease.embedded.paths import DataDir
from lablease.embedded.process import is_locked, recall, start_time
from lablease.embedded.runner import Runner
from lablease.embedded.services import PortOpen, Service, python_module
from lablease.embedded.state import API_SERVER, PortName
from lablease.embedded.status import Phase, Status, problems, read_status
from lablease.embedded.tree import elements, text
from lablease.testing.waiting import eventually

PATIENCE_SECONDS = 30.0
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
LAB = "/apis/jumpstarter.dev/v1alpha1/namespaces/lab"


def config_map(name: str, **content: str) -> Mapping[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": content}


# ---- kill -9 --------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane that a test may hurt, with nothing of ours in it."""
    with ControlPlane(DataDir(tmp_path / "cp"), control_plane.binaries) as running:
        yield running


def write_until_taken(server: api.Api, name: str) -> None:
    """Create an object as a client does whose requests fail for a while; a conflict means that an attempt was taken."""

    def taken() -> bool:
        try:
            server.request("POST", CONFIG_MAPS, config_map(name))
        except ApiError as refused:
            return refused.reason == "AlreadyExists"
        return True

    eventually(taken, f"a write of {name}", PATIENCE_SECONDS)


@pytest.mark.parametrize("victim", ["etcd", "kube-apiserver"])
def test_what_was_acknowledged_survives_kill_9_and_writes_go_on(own: ControlPlane, victim: str) -> None:
    stop, acknowledged = threading.Event(), list[str]()

    def write() -> None:
        while not stop.is_set():
            name = f"c{len(acknowledged)}"
            write_until_taken(own.api, name)
            acknowledged.append(name)

    writer = threading.Thread(target=write)
    writer.start()
    eventually(lambda: len(acknowledged) >= 20, "20 writes", PATIENCE_SECONDS)
    pid = own.kill_etcd() if victim == "etcd" else own.kill_apiserver()
    seen = len(acknowledged)
    eventually(lambda: len(acknowledged) >= seen + 20, "20 more writes after the kill", PATIENCE_SECONDS)
    stop.set()
    writer.join()
    own.wait_ready()
    process = next(process for process in own.processes if process.command.name == victim)
    assert (process.restarts, process.last_exit) == (1, -signal.SIGKILL)
    assert process.identity is not None
    assert process.identity.pid != pid
    kept = {text(item, "metadata", "name") for item in elements(own.api.request("GET", CONFIG_MAPS), "items")}
    assert set(acknowledged) <= kept


def test_data_keys_and_port_are_the_same_after_a_restart(tmp_path: Path, control_plane: ControlPlane) -> None:
    data = DataDir(tmp_path / "cp")
    with ControlPlane(data, control_plane.binaries) as first:
        first.api.request("POST", CONFIG_MAPS, config_map("kept"))
        url, admin = first.url, first.kubeconfig.read_text()
    with ControlPlane(data, control_plane.binaries) as second:
        assert (second.url, second.kubeconfig.read_text()) == (url, admin)
        assert second.api.get(f"{CONFIG_MAPS}/kept") is not None


# ---- refusals at the start ------------------------------------------------------------------------------------------


def test_a_second_start_in_the_same_place_is_refused_and_hurts_nothing(own: ControlPlane) -> None:
    with pytest.raises(AlreadyRunning, match=f"runs in {own.data.root} already"):
        ControlPlane(own.data, own.binaries).start()
    assert own.api.ready() == "ok"


def test_a_taken_port_stops_the_start_before_anything_runs(tmp_path: Path, control_plane: ControlPlane) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        refused_port = int(other.getsockname()[1])
        second = ControlPlane(DataDir(tmp_path / "cp"), control_plane.binaries, api_port=refused_port)
        with pytest.raises(PortTaken, match=f"port {refused_port}"):
            second.start()
    assert list(second.data.run.iterdir()) == []
    assert not is_locked(second.data.lock)
    with second:
        assert second.url == f"https://127.0.0.1:{refused_port}"


def test_data_of_another_version_stop_the_start(tmp_path: Path, control_plane: ControlPlane) -> None:
    data = DataDir(tmp_path / "cp")
    data.make()
    data.version.write_text('{"layout": 1, "kubernetes": "1.99.0", "etcd": "3.6.8"}')
    with pytest.raises(ForeignData, match=r"newer than 1\.36"):
        ControlPlane(data, control_plane.binaries).start()
    assert not is_locked(data.lock)


def test_a_program_that_cannot_work_is_shown_with_the_end_of_its_log(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    data = DataDir(tmp_path / "cp")
    data.make()
    data.etcd.write_text("a file where etcd wants a folder")
    data.version.write_text('{"layout": 1, "kubernetes": "1.36.3", "etcd": "3.6.8"}')
    with pytest.raises(StartError) as refused:
        ControlPlane(data, control_plane.binaries).start()
    assert "not a directory" in refused.value.help
    assert list(data.run.iterdir()) == []


# ---- the supervisor -------------------------------------------------------------------------------------------------


@pytest.fixture
def detached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Status, DataDir]]:
    """`lablease up --no-services` of another process."""
    data = DataDir(tmp_path / "up")
    yield launch.start_detached(Options(data.root, services=False), lambda line: None), data
    launch.shut_down(data)


def test_up_leaves_a_supervisor_and_down_ends_everything(detached: tuple[Status, DataDir]) -> None:
    status, data = detached
    assert status.phase is Phase.READY
    assert problems(status) == {}
    pids = [status.supervisor.pid, *(shown.process.pid for shown in status.processes if shown.process)]
    assert len(pids) == 3
    assert launch.shut_down(data)
    assert [pid for pid in pids if start_time(pid) is not None] == []
    assert read_status(data) is None
    assert not launch.shut_down(data), "nothing runs any more"


def test_after_kill_9_of_the_supervisor_the_next_up_ends_the_orphans_and_has_the_data(
    detached: tuple[Status, DataDir],
) -> None:
    status, data = detached
    server = api.Api(kubeconfig.read(status.kubeconfig))
    server.request("POST", CONFIG_MAPS, config_map("before"))
    orphans = [shown.process for shown in status.processes if shown.process is not None]
    os.kill(status.supervisor.pid, signal.SIGKILL)
    eventually(lambda: not is_locked(data.lock), "the end of the supervisor", PATIENCE_SECONDS)
    assert read_status(data) is None
    assert all(orphan.alive for orphan in orphans)
    again = launch.start_detached(Options(data.root, services=False), lambda line: None)
    assert problems(again) == {}
    assert again.url == status.url
    assert not any(orphan.alive for orphan in orphans)
    assert api.Api(kubeconfig.read(again.kubeconfig)).get(f"{CONFIG_MAPS}/before") is not None


def test_a_failed_start_is_told_to_who_started_it(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "up")
    data.make()
    data.version.write_text('{"layout": 99, "kubernetes": "1.36.3", "etcd": "3.6.8"}')
    with pytest.raises(StartError, match="its layout is 99, this lablease reads 1") as refused:
        launch.start_detached(Options(data.root, services=False), lambda line: None)
    assert "down --purge" in refused.value.help


SERVICE = """
import os, socketserver, sys
port, out = int(sys.argv[1]), sys.argv[2]
open(out, "a").write(f"{os.environ.get('KUBECONFIG')}\\n")
socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(("127.0.0.1", port), socketserver.BaseRequestHandler).serve_forever()
"""


def test_services_run_under_their_own_account_and_are_started_again(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    script = tmp_path / "service.py"
    script.write_text(SERVICE)

    def table(data: DataDir, namespace: str, ports: Mapping[PortName, int]) -> tuple[Service, ...]:
        chosen = (("frontend", "frontend-grpc", "lablease-frontend"), ("router", "router-grpc", None))
        return tuple(
            Service(
                name,
                (sys.executable, str(script), str(ports[PortName(port)]), str(tmp_path / name)),
                {},
                PortOpen(ports[PortName(port)]),
                account,
            )
            for name, port, account in chosen
        )

    ready, failed = threading.Event(), list[BaseException]()
    data = DataDir(tmp_path / "cp")
    runner = Runner(ControlPlane(data, control_plane.binaries), table)

    def run() -> None:
        try:
            runner.run(lambda status: ready.set())
        except BaseException as error:
            failed.append(error)
            ready.set()
            raise

    worker = threading.Thread(target=run)
    worker.start()
    assert ready.wait(60)
    assert failed == []
    try:
        shown = {process.name: process for process in runner.status().processes}
        assert list(shown) == ["etcd", "kube-apiserver", "frontend", "router"]
        assert (tmp_path / "router").read_text() == "None\n", "a router has no access to Kubernetes"
        path = Path((tmp_path / "frontend").read_text().strip())
        account = api.Api(kubeconfig.read(path))
        assert account.get(f"{LAB}/leases") is not None
        with pytest.raises(ApiError) as refused:
            account.request("POST", f"{LAB}/exporters", {})
        assert refused.value.status == 403, "these are the rights of a front end"
        victim = shown["frontend"].process
        assert victim is not None
        os.kill(victim.pid, signal.SIGKILL)
        eventually(
            lambda: (tmp_path / "frontend").read_text().count("\n") == 2, "the restart of the service", PATIENCE_SECONDS
        )
        eventually(lambda: problems(runner.status()) == {}, "all processes alive again", PATIENCE_SECONDS)
        assert {process.name: process.restarts for process in runner.status().processes}["frontend"] == 1
        assert (len(data.router_key.read_bytes()), stat.S_IMODE(data.router_key.stat().st_mode)) == (32, 0o600)
    finally:
        runner.stop()
        worker.join(60)
    assert not worker.is_alive()
    assert recall(data.run / "frontend.json") is None


def test_a_service_that_ends_at_once_fails_the_start_with_the_end_of_its_log(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    def table(data: DataDir, namespace: str, ports: Mapping[PortName, int]) -> tuple[Service, ...]:
        return (
            Service("operator", python_module("no.such.module"), {}, PortOpen(ports[PortName("operator-private")])),
        )

    runner = Runner(ControlPlane(DataDir(tmp_path / "cp"), control_plane.binaries), table)
    with pytest.raises(StartError, match="operator did not become ready") as refused:
        runner.run(lambda status: pytest.fail("it is not ready"))
    assert "No module named" in refused.value.help
    assert list(runner.cluster.data.run.iterdir()) == []


def test_a_port_of_the_api_server_is_remembered_under_its_name(own: ControlPlane) -> None:
    assert own.url == f"https://127.0.0.1:{own.state.ports[API_SERVER]}"


# ---- somebody's own cluster -----------------------------------------------------------------------------------------


def test_an_existing_cluster_gets_the_same_objects_under_the_name_of_its_lab(
    tmp_path: Path, control_plane: ControlPlane
) -> None:
    cluster = ExistingCluster(DataDir(tmp_path / "d"), control_plane.kubeconfig, "bench")
    runner, seen = Runner(cluster, services=None), list[Status]()

    def on_ready(status: Status) -> None:
        seen.append(status)
        runner.stop()

    runner.run(on_ready)
    assert [(status.url, status.audit_log, status.processes) for status in seen] == [(control_plane.url, None, ())]
    found = control_plane.api.get("/api/v1/namespaces/bench/configmaps/jumpstarter-service-ca-cert")
    assert text(found, "data", "ca.crt") == cluster.data.dev_ca.read_text()
    roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/bench/roles"
    assert control_plane.api.get(f"{roles}/lablease-operator") is not None
    assert control_plane.api.ready() == "ok", "a cluster that is not ours is left running"


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path, control_plane: ControlPlane) -> None:
    path = tmp_path / "kubeconfig"
    kubeconfig.write(path, kubeconfig.Access("https://127.0.0.1:1", control_plane.api.access.ca), "me", "lab")
    with pytest.raises(StartError, match=f"the cluster of {path} is not ready: https://127.0.0.1:1 does not answer"):
        ExistingCluster(DataDir(tmp_path / "d"), path).start()


# ---- all of it ------------------------------------------------------------------------------------------------------


def test_up_runs_our_three_services_and_starts_a_killed_one_again(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "up")
    try:
        status = launch.start_detached(Options(data.root), lambda line: None)
        names = [process.name for process in status.processes]
        assert names == ["etcd", "kube-apiserver", "operator", "router", "frontend"]
        for name in ("operator", "router", "frontend"):
            victim = next(process.process for process in status.processes if process.name == name)
            assert victim is not None
            os.kill(victim.pid, signal.SIGKILL)

        def all_back() -> bool:
            now = read_status(data)
            return now is not None and problems(now) == {} and [p.restarts for p in now.processes] == [0, 0, 1, 1, 1]

        eventually(all_back, "the three services again", PATIENCE_SECONDS)
    finally:
        launch.shut_down(data)
