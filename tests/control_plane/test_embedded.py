"""The embedded control plane: accounts, rights, audit log, and what it survives."""

import base64
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
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
from lablease.embedded.tree import at, elements, mapping, text

SYSTEM = "lablease-system"
LEASES = "/apis/jumpstarter.dev/v1alpha1/namespaces/lab/leases"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def wait_for(condition: Callable[[], bool], what: str, patience_seconds: float = 30) -> None:
    deadline = time.monotonic() + patience_seconds
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.02)


def config_map(name: str, **content: str) -> Mapping[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": content}


def lease(name: str) -> Mapping[str, object]:
    return {
        "apiVersion": "jumpstarter.dev/v1alpha1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {"clientRef": {"name": "c"}, "duration": "1m", "selector": {"matchLabels": {"a": "b"}}},
    }


def as_account(control_plane: ControlPlane, name: str) -> api.Api:
    return api.Api(kubeconfig.read(control_plane.service_account_kubeconfig(SYSTEM, name)))


def claims(token: str) -> object:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


# ---- accounts -------------------------------------------------------------------------------------------------------


def test_a_service_account_gets_a_token_that_the_api_server_takes_and_that_ends(control_plane: ControlPlane) -> None:
    path = control_plane.service_account_kubeconfig("default", "visitor")
    access = kubeconfig.read(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert access.token is None, "the token is in a file of its own, so that it can be renewed"
    token = access.bearer() or ""
    assert text(claims(token), "sub") == "system:serviceaccount:default:visitor"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = api.Api(access).request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    assert text(answer, "status", "userInfo", "username") == "system:serviceaccount:default:visitor"
    lifetime = int(str(at(claims(token), "exp"))) - int(str(at(claims(token), "iat")))
    assert lifetime == 3600


def test_a_stranger_is_not_let_in(control_plane: ControlPlane) -> None:
    stranger = kubeconfig.Access(control_plane.url, control_plane.api.access.ca)
    for path in ("/version", "/api/v1/namespaces"):
        with pytest.raises(ApiError) as refused:
            api.Api(stranger).request("GET", path)
        assert refused.value.status == 401


def test_a_forged_token_is_not_let_in(control_plane: ControlPlane) -> None:
    token = kubeconfig.read(control_plane.service_account_kubeconfig("default", "visitor")).bearer() or ""
    head, payload, signature = token.split(".")
    forged = f"{head}.{payload}.{signature[:-8]}AAAAAAAA"
    with pytest.raises(ApiError) as refused:
        api.Api(kubeconfig.Access(control_plane.url, control_plane.api.access.ca, token=forged)).request(
            "GET", "/version"
        )
    assert refused.value.status == 401


# ---- rights ---------------------------------------------------------------------------------------------------------

LAB = "/apis/jumpstarter.dev/v1alpha1/namespaces/lab"
CORE, SYSTEM_CORE = "/api/v1/namespaces/lab", f"/api/v1/namespaces/{SYSTEM}"
HEARTBEATS = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"

# (method, path, operator may, front end may). A name that does not exist is answered with 404 to who may, 403 to others.
RIGHTS: tuple[tuple[str, str, bool, bool], ...] = (
    ("GET", f"{LAB}/leases", True, True),
    ("GET", f"{LAB}/leases?watch=1&timeoutSeconds=1", True, True),
    ("GET", f"{LAB}/exporters/x", True, True),
    ("GET", f"{LAB}/clients", True, True),
    ("GET", f"{LAB}/exporteraccesspolicies", True, True),
    ("POST", f"{LAB}/leases", False, True),
    ("PUT", f"{LAB}/leases/x", False, True),
    ("PATCH", f"{LAB}/leases/x", True, True),
    ("PATCH", f"{LAB}/leases/x/status", True, False),
    ("PUT", f"{LAB}/leases/x/status", True, False),
    ("DELETE", f"{LAB}/leases/x", True, False),
    ("DELETE", f"{LAB}/leases", False, False),
    ("PATCH", f"{LAB}/exporters/x", False, True),
    ("PATCH", f"{LAB}/exporters/x/status", True, True),
    ("PUT", f"{LAB}/exporters/x/status", True, False),
    ("POST", f"{LAB}/exporters", False, False),
    ("DELETE", f"{LAB}/exporters/x", False, False),
    ("POST", f"{LAB}/clients", False, True),
    ("PATCH", f"{LAB}/clients/x", False, False),
    ("PATCH", f"{LAB}/clients/x/status", True, False),
    ("POST", f"{LAB}/exporteraccesspolicies", False, False),
    ("PATCH", f"{LAB}/exporteraccesspolicies/x", False, False),
    ("GET", f"{CORE}/secrets", True, True),
    ("POST", f"{CORE}/secrets", True, False),
    ("PATCH", f"{CORE}/secrets/x", True, False),
    ("DELETE", f"{CORE}/secrets/x", True, True),
    ("GET", f"{CORE}/configmaps/x", True, True),
    ("POST", f"{CORE}/configmaps", False, False),
    ("PATCH", f"{CORE}/configmaps/jumpstarter-service-ca-cert", False, False),
    ("POST", f"{CORE}/events", True, False),
    ("POST", f"{CORE}/serviceaccounts/default/token", False, False),
    ("POST", f"{CORE}/pods", False, False),
    ("GET", f"{SYSTEM_CORE}/secrets/lablease-identity", True, False),
    ("GET", f"{SYSTEM_CORE}/secrets/another", False, False),
    ("GET", f"{SYSTEM_CORE}/secrets", False, False),
    ("POST", f"{SYSTEM_CORE}/secrets", True, False),
    ("PATCH", f"{SYSTEM_CORE}/secrets/lablease-identity", False, False),
    ("DELETE", f"{SYSTEM_CORE}/secrets/lablease-identity", False, False),
    ("GET", f"{SYSTEM_CORE}/configmaps/lablease-identity-keys", True, True),
    ("GET", f"{SYSTEM_CORE}/configmaps?fieldSelector=metadata.name%3Dlablease-identity-keys", True, True),
    ("GET", f"{SYSTEM_CORE}/configmaps", False, False),
    ("POST", f"{SYSTEM_CORE}/configmaps", True, False),
    ("PATCH", f"{SYSTEM_CORE}/configmaps/lablease-identity-keys", True, False),
    ("POST", f"{SYSTEM_CORE}/serviceaccounts/lablease-operator/token", False, False),
    ("GET", HEARTBEATS, True, True),
    ("POST", HEARTBEATS, True, True),
    ("PATCH", f"{HEARTBEATS}/x", True, True),
    ("DELETE", f"{HEARTBEATS}/x", False, True),
    ("GET", "/api/v1/namespaces/kube-system/secrets", False, False),
    ("GET", "/api/v1/secrets", False, False),
    ("GET", "/apis/jumpstarter.dev/v1alpha1/leases", False, False),
    ("POST", "/api/v1/namespaces", False, False),
    ("PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/leases.jumpstarter.dev", False, False),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/lab/rolebindings", False, False),
)


@pytest.fixture(scope="module")
def accounts(control_plane: ControlPlane) -> Mapping[str, api.Api]:
    return {name: as_account(control_plane, f"lablease-{name}") for name in ("operator", "frontend")}


@pytest.mark.parametrize(("method", "path", "operator", "frontend"), RIGHTS)
def test_each_service_may_do_what_it_needs_and_nothing_else(
    accounts: Mapping[str, api.Api], method: str, path: str, operator: bool, frontend: bool
) -> None:
    for name, allowed in (("operator", operator), ("frontend", frontend)):
        assert (status_of(accounts[name], method, path) != 403) is allowed, f"{name}: {method} {path}"


def status_of(account: api.Api, method: str, path: str) -> int:
    """Send a request that changes nothing (`dryRun`, an empty object) and return the status of the answer."""
    if method != "GET":
        path += "?dryRun=All"
    body: Mapping[str, object] | None = {} if method in ("POST", "PUT", "PATCH") else None
    try:
        account.request(method, path, body, "application/merge-patch+json" if method == "PATCH" else "application/json")
    except ApiError as refused:
        return refused.status
    return 200


# ---- what is installed ----------------------------------------------------------------------------------------------


def test_admin_tools_find_the_ca_of_our_services_in_the_lab(control_plane: ControlPlane) -> None:
    found = control_plane.api.get("/api/v1/namespaces/lab/configmaps/jumpstarter-service-ca-cert")
    assert text(found, "data", "ca.crt") == control_plane.data.dev_ca.read_text()


def test_installing_again_changes_nothing(control_plane: ControlPlane) -> None:
    def versions() -> list[str]:
        paths = (
            "/apis/rbac.authorization.k8s.io/v1/roles",
            "/api/v1/serviceaccounts",
            "/api/v1/namespaces",
            CONFIG_MAPS,
        )
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        listed = [elements(control_plane.api.request("GET", path), "items") for path in (*paths, crds)]
        return [text(item, "metadata", "resourceVersion") for items in listed for item in items]

    before = versions()
    control_plane.install()
    assert versions() == before


def test_a_manifest_of_an_unknown_kind_is_named(control_plane: ControlPlane) -> None:
    with pytest.raises(ApiError, match="Toaster crisp: the API server has no kind Toaster in v1"):
        control_plane.api.apply([{"apiVersion": "v1", "kind": "Toaster", "metadata": {"name": "crisp"}}])


def test_kubectl_works_with_the_kubeconfig(control_plane: ControlPlane) -> None:
    kubectl = control_plane.binaries["kubectl"].path  # type: ignore[index]
    argv = [str(kubectl), "--kubeconfig", str(control_plane.kubeconfig), "get", "leases.jumpstarter.dev"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "No resources found in lab namespace.\n")


# ---- audit log ------------------------------------------------------------------------------------------------------


def audit_events(control_plane: ControlPlane, resource: str, name: str) -> list[object]:
    """Return what the log says about one object; the log is written before a request is answered."""
    found: list[object] = []
    for line in control_plane.audit_log.read_text().splitlines():
        event: object = json.loads(line)
        reference = mapping(event, "objectRef")
        if reference.get("resource") == resource and name in (
            reference.get("name"),
            text(event, "responseObject", "metadata", "name"),
        ):
            found.append(event)
    return found


def test_the_audit_log_has_every_write_to_our_kinds_with_both_bodies(control_plane: ControlPlane) -> None:
    server = control_plane.api
    server.request("POST", LEASES, lease("audited"))
    server.request("PATCH", f"{LEASES}/audited", {"spec": {"release": True}}, "application/merge-patch+json")
    status: Mapping[str, object] = {"status": {"ended": True}}
    server.request("PATCH", f"{LEASES}/audited/status", status, "application/merge-patch+json")
    server.request("GET", f"{LEASES}/audited")
    server.request("DELETE", f"{LEASES}/audited")
    events = audit_events(control_plane, "leases", "audited")
    assert [text(event, "verb") for event in events] == ["create", "patch", "patch", "get", "delete"]
    create, release, end, read, _ = events
    assert text(create, "requestObject", "spec", "duration") == "1m"
    assert at(release, "requestObject") == {"spec": {"release": True}}
    assert text(end, "objectRef", "subresource") == "status"
    numbers = [int(text(event, "responseObject", "metadata", "resourceVersion")) for event in (create, release, end)]
    assert numbers == sorted(set(numbers)), "who reads the log sees which write had an effect"
    assert (text(read, "level"), at(read, "responseObject")) == ("Metadata", None)
    assert not [event for event in events if at(event, "responseObject", "metadata", "managedFields")]


def test_no_secret_and_no_token_is_in_the_audit_log(control_plane: ControlPlane) -> None:
    server, value = control_plane.api, base64.b64encode(b"very secret").decode()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"token": value}}
    server.request("POST", "/api/v1/namespaces/lab/secrets", secret)
    token = server.token(SYSTEM, "lablease-frontend", timedelta(hours=1))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    server.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    server.request("GET", "/api/v1/namespaces/lab/secrets/s")
    server.request("DELETE", "/api/v1/namespaces/lab/secrets/s")
    log = control_plane.audit_log.read_text()
    assert value not in log
    assert token not in log
    assert token.rpartition(".")[2] not in log
    assert [text(event, "verb") for event in audit_events(control_plane, "secrets", "s")][-2:] == ["get", "delete"]
    assert [text(event, "level") for event in audit_events(control_plane, "secrets", "s")] == ["Metadata"] * 3


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

    wait_for(taken, f"a write of {name}")


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
    wait_for(lambda: len(acknowledged) >= 20, "20 writes")
    pid = own.kill_etcd() if victim == "etcd" else own.kill_apiserver()
    seen = len(acknowledged)
    wait_for(lambda: len(acknowledged) >= seen + 20, "20 more writes after the kill")
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
    wait_for(lambda: not is_locked(data.lock), "the end of the supervisor")
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
        assert status_of(account, "GET", f"{LAB}/leases") == 200
        assert status_of(account, "GET", f"{SYSTEM_CORE}/secrets") == 403
        victim = shown["frontend"].process
        assert victim is not None
        os.kill(victim.pid, signal.SIGKILL)
        wait_for(lambda: (tmp_path / "frontend").read_text().count("\n") == 2, "the restart of the service")
        wait_for(lambda: problems(runner.status()) == {}, "all processes alive again")
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

        wait_for(all_back, "the three services again")
    finally:
        launch.shut_down(data)
