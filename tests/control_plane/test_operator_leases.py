"""The operator as a real process against the real API server: the life of leases that kubectl makes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lablease.clock import utc_now
from lablease.embedded.api import Api
from lablease.embedded.control_plane import ControlPlane
from lablease.embedded.errors import ApiError
from lablease.embedded.versions import KUBECTL
from lablease.model.durations import format_time

T = TypeVar("T")
Json = dict[str, Any]
SYSTEM = "lablease-system"
FRONTEND = "stand-in"
MERGE = "application/merge-patch+json"
PATIENCE_SECONDS = 20.0
COORDINATION = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"


def wait(look: Callable[[], T | None], what: str) -> T:
    """Return what is found, or fail with what was waited for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found is not None and found is not False:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE_SECONDS} s for {what}")


def decisive(lease: Json | None) -> tuple[str, str, str] | None:
    items = (lease or {}).get("status", {}).get("conditions")
    return (items[-1]["type"], items[-1]["status"], items[-1]["reason"]) if items else None


@dataclass
class Lab:
    """One namespace, spoken to as its admin; stands in for a front end where exporters report."""

    control_plane: ControlPlane
    namespace: str

    @property
    def api(self) -> Api:
        return self.control_plane.api

    def path(self, plural: str, name: str = "", sub: str = "") -> str:
        group = "api/v1" if plural == "secrets" else "apis/jumpstarter.dev/v1alpha1"
        return "/".join(part for part in (f"/{group}/namespaces/{self.namespace}", plural, name, sub) if part)

    def get(self, plural: str, name: str) -> Json | None:
        found = self.api.get(self.path(plural, name))
        return None if found is None else dict(found)

    def make(self, kind: str, name: str, spec: Json | None = None, labels: dict[str, str] | None = None) -> str:
        body = {
            "apiVersion": "jumpstarter.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "labels": labels or {}},
            "spec": spec or {},
        }
        plural = {"Client": "clients", "Exporter": "exporters", "Lease": "leases"}.get(kind, "exporteraccesspolicies")
        self.api.request("POST", self.path(plural), body)
        return name

    def client(self) -> str:
        return self.make("Client", f"c-{uuid.uuid4().hex[:8]}")

    def exporter(self, board: str | None = None) -> str:
        """An exporter that registered and is connected; its own label says board=NAME unless another is given."""
        name = f"e-{uuid.uuid4().hex[:8]}"
        self.make("Exporter", name, labels={"board": board or name})
        self.report(name, "Available")
        return name

    def known(self) -> tuple[str, str]:
        """A client and an exporter that the operator has seen: watches of two kinds arrive in any order."""
        client, board = self.client(), self.exporter()

        def look() -> bool:
            seen = self.get("clients", client), self.get("exporters", board)
            statuses = [item["status"] for item in seen if item is not None and "status" in item]
            online = [("Online", "True"), ("Registered", "True")]
            return (
                len(statuses) == 2
                and "credential" in statuses[0]
                and online == [(item["type"], item["status"]) for item in statuses[1].get("conditions", [])]
            )

        wait(look, f"the operator has seen {client} and {board}")
        return client, board

    def report(self, exporter: str, status: str, **more: Any) -> None:
        session = {"frontend": FRONTEND, "id": exporter, "since": format_time(utc_now().replace(microsecond=0))}
        body = {"status": {"devices": [{"uuid": "u"}], "exporterStatus": status, "session": session} | more}
        self.api.request("PATCH", self.path("exporters", exporter, "status"), body, MERGE)

    def lease(self, client: str, board: str, duration: str | None = "1h", **spec: Any) -> str:
        given = {
            "clientRef": {"name": client},
            "selector": {"matchLabels": {"board": board}},
            "duration": duration,
        } | spec
        given = {key: value for key, value in given.items() if value is not None}
        return self.make("Lease", f"l-{uuid.uuid4().hex[:8]}", given)

    def edit(self, lease: str, **spec: Any) -> None:
        self.api.request("PATCH", self.path("leases", lease), {"spec": spec}, MERGE)

    def delete(self, plural: str, name: str) -> None:
        self.api.request("DELETE", self.path(plural, name))

    def until(self, lease: str, *word: str) -> Json:
        """Wait until the decisive condition begins with these words: type, status, reason."""

        def look() -> Json | None:
            found = self.get("leases", lease)
            said = decisive(found)
            return found if said is not None and said[: len(word)] == word else None

        return wait(look, f"{lease} {word}, it says {decisive(self.get('leases', lease))}")

    def until_free(self, exporter: str) -> Json:
        def look() -> Json | None:
            found = self.get("exporters", exporter)
            return found if found is not None and "leaseRef" not in found["status"] else None

        return wait(look, f"{exporter} free")

    def kubectl(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        binary = self.control_plane.binaries[KUBECTL].path
        command = [str(binary), "--kubeconfig", str(self.control_plane.kubeconfig), "-n", self.namespace, *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


class Operator:
    """The process."""

    def __init__(self, lab: Lab, kubeconfig: Path, folder: Path) -> None:
        self._command = [
            *(sys.executable, "-m", "lablease.operator.main", "--kubeconfig", str(kubeconfig)),
            *("--namespace", lab.namespace, "--endpoint", "lab.example:8082"),
        ]
        self.log = folder / f"operator-{uuid.uuid4().hex[:8]}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
            self._process = subprocess.Popen(self._command, stdout=out, stderr=out, env=environment)
        wait(self._runs, "the operator")

    def _runs(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        return self.log.read_text().count("operator.runs") > self.log.read_text().count("operator.killed")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        with self.log.open("a") as out:
            out.write("operator.killed\n")

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)

    def lines(self, event: str) -> list[Json]:
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [found for found in map(json.loads, lines) if found["event"] == event]


@contextmanager
def heartbeat(control_plane: ControlPlane) -> Generator[None]:
    """Renew what a front end renews, so that its exporters count as connected."""
    over = threading.Event()
    name = f"lablease-frontend-{FRONTEND}"

    def renew() -> None:
        while not over.wait(2.0):
            body = {"spec": {"renewTime": utc_now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}
            control_plane.api.request("PATCH", f"{COORDINATION}/{name}", body, MERGE)

    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {}}
    control_plane.api.request("POST", COORDINATION, body)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        control_plane.api.request("DELETE", f"{COORDINATION}/{name}")


@pytest.fixture(scope="module")
def frontend(control_plane: ControlPlane) -> Iterator[None]:
    with heartbeat(control_plane):
        yield


@pytest.fixture(scope="module")
def lab(control_plane: ControlPlane, frontend: None) -> Lab:
    return Lab(control_plane, control_plane.namespace)


@pytest.fixture(scope="module")
def operator(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator with exactly the rights of its own service account."""
    account = lab.control_plane.service_account_kubeconfig(SYSTEM, "lablease-operator")
    running = Operator(lab, account, tmp_path_factory.mktemp("operator"))
    running.start()
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture
def own(control_plane: ControlPlane, frontend: None, tmp_path: Path) -> Iterator[tuple[Lab, Operator]]:
    """A namespace and an operator for one test alone; the operator is not started yet."""
    namespace = f"lab-{uuid.uuid4().hex[:8]}"
    control_plane.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    lab = Lab(control_plane, namespace)
    running = Operator(lab, control_plane.kubeconfig, tmp_path)
    yield lab, running
    if running._process is not None and running._process.poll() is None:  # pyright: ignore[reportPrivateUsage]
        running.stop()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def until_past(then: datetime) -> None:
    wait(lambda: utc_now() >= then, f"{then}")


def test_a_lease_is_granted_in_slot_and_status_under_one_number(lab: Lab, operator: Operator) -> None:
    client, board = lab.known()
    name = lab.lease(client, board)
    lease = lab.until(name, "Ready", "True", "Ready")
    exporter = lab.get("exporters", board)
    assert exporter is not None
    assert exporter["status"]["leaseRef"] == {"name": name}
    assert exporter["status"]["grant"] == lease["status"]["grant"] > 10**12
    assert lease["status"]["exporterRef"] == {"name": board}
    assert [item["type"] for item in lease["status"]["conditions"]] == ["Ready"], "it never waited"
    assert lease["status"]["conditions"][0]["observedGeneration"] == 1


def test_kubectl_apply_wait_and_release(lab: Lab, operator: Operator) -> None:
    client, board = lab.known()
    manifest = {
        "apiVersion": "jumpstarter.dev/v1alpha1",
        "kind": "Lease",
        "metadata": {"name": f"by-hand-{board}"},
        "spec": {"clientRef": {"name": client}, "selector": {"matchLabels": {"board": board}}, "duration": "1h"},
    }
    name, text = f"by-hand-{board}", json.dumps(manifest)
    assert lab.kubectl("apply", "-f", "-", text=text).returncode == 0
    ready = lab.kubectl("wait", "--for=condition=Ready", f"leases.jumpstarter.dev/{name}", "--timeout=15s")
    assert ready.returncode == 0, ready.stderr
    released = json.dumps(manifest | {"spec": {**manifest["spec"], "release": True}})  # type: ignore[dict-item]
    applied = lab.kubectl(
        "apply", "--server-side", "--field-manager=gitops", "--force-conflicts", "-f", "-", text=released
    )
    assert applied.returncode == 0, applied.stderr
    lease = lab.until(name, "Ready", "False", "Released")
    assert [item["type"] for item in lease["status"]["conditions"]] == ["Ready"]
    lab.until_free(board)


def test_server_side_apply_by_another_manager_meets_no_conflict(lab: Lab, operator: Operator) -> None:
    client, board = lab.client(), lab.exporter()
    manifest = {
        "apiVersion": "jumpstarter.dev/v1alpha1",
        "kind": "Lease",
        "metadata": {"name": f"gitops-{board}"},
        "spec": {"clientRef": {"name": client}, "selector": {"matchLabels": {"board": board}}, "duration": "2s"},
    }
    text = json.dumps(manifest)
    apply = ("apply", "--server-side", "--field-manager=gitops", "-f", "-")
    for word in (("Ready", "True"), ("Ready", "False", "Expired")):
        assert lab.kubectl(*apply, text=text).returncode == 0
        lab.until(f"gitops-{board}", *word)
    again = lab.kubectl(*apply, text=text)
    assert again.returncode == 0, again.stderr
    diff = lab.kubectl("diff", "--server-side", "--field-manager=gitops", "-f", "-", text=text)
    assert diff.returncode == 0, diff.stdout


def test_a_lease_expires_within_a_second_of_its_time(lab: Lab, operator: Operator) -> None:
    board = lab.exporter()
    name = lab.lease(lab.client(), board, "2s")
    begun = moment(lab.until(name, "Ready", "True")["status"]["beginTime"])
    lease = lab.until(name, "Ready", "False", "Expired")
    late = moment(lease["status"]["endTime"]) - begun - timedelta(seconds=2)
    assert timedelta(0) <= late < timedelta(seconds=1)
    assert [item["type"] for item in lease["status"]["conditions"]] == ["Pending", "Ready"]
    wait(
        lambda: "jumpstarter.dev/lease-ended" in (lab.get("leases", name) or {})["metadata"].get("labels", {}), "label"
    )
    lab.until_free(board)


def test_an_edit_of_the_duration_moves_the_end(lab: Lab, operator: Operator) -> None:
    board = lab.exporter()
    name = lab.lease(lab.client(), board)
    begun = moment(lab.until(name, "Ready", "True")["status"]["beginTime"])
    lab.edit(name, duration="3s")
    lease = lab.until(name, "Ready", "False", "Expired")
    assert abs(moment(lease["status"]["endTime"]) - begun - timedelta(seconds=3)) < timedelta(seconds=1)


def test_a_lease_begins_in_the_future(lab: Lab, operator: Operator) -> None:
    board = lab.exporter()
    begin = utc_now().replace(microsecond=0) + timedelta(seconds=3)
    name = lab.lease(lab.client(), board, beginTime=format_time(begin))
    lab.until(name, "Pending", "True", "Scheduled")
    lease = lab.until(name, "Ready", "True")
    assert timedelta(0) <= moment(lease["status"]["beginTime"]) - begin < timedelta(seconds=1)
    assert [item["type"] for item in lease["status"]["conditions"]] == ["Pending", "Ready"]
    assert lease["status"]["conditions"][0]["status"] == "False"


def test_leases_that_compete_are_served_one_after_the_other_in_order(lab: Lab, operator: Operator) -> None:
    board, client = lab.exporter(), lab.client()
    names = [lab.lease(client, board)]
    lab.until(names[0], "Ready", "True")
    for _ in range(3):
        names.append(lab.lease(client, board))
        lease = lab.until(names[-1], "Pending", "True", "NotAvailable")
        until_past(moment(lease["metadata"]["creationTimestamp"]) + timedelta(seconds=1))
    grants: list[int] = []
    for number, current in enumerate(names):
        grants.append(lab.until(current, "Ready", "True")["status"]["grant"])
        for name in names[number + 1 :]:
            assert decisive(lab.get("leases", name)) == ("Pending", "True", "NotAvailable")
        lab.edit(current, release=True)
        lab.until(current, "Ready", "False", "Released")
    assert grants == sorted(set(grants))
    lab.until_free(board)


def test_a_slot_stays_taken_until_the_exporter_is_clean(lab: Lab, operator: Operator) -> None:
    board, client = lab.exporter(), lab.client()
    first = lab.lease(client, board)
    lab.until(first, "Ready", "True")
    lab.report(board, "LeaseReady")
    second = lab.lease(client, board)
    lab.until(second, "Pending", "True", "NotAvailable")
    lab.edit(first, release=True)
    lab.until(first, "Ready", "False", "Released")
    exporter = lab.get("exporters", board)
    assert exporter is not None
    assert exporter["status"]["leaseRef"] == {"name": first}
    lab.report(board, "Available")
    lab.until(second, "Ready", "True")


def test_an_exporter_that_goes_offline_keeps_its_lease_and_the_lease_says_so(lab: Lab, operator: Operator) -> None:
    board, client = lab.exporter(), lab.client()
    name = lab.lease(client, board)
    lab.until(name, "Ready", "True")
    lab.report(board, "LeaseReady", session=None)

    def online(truth: str) -> Callable[[], bool]:
        def look() -> bool:
            lease = lab.get("leases", name) or {}
            words = [(item["type"], item["status"]) for item in lease["status"]["conditions"]]
            return words == [("ExporterOnline", truth), ("Ready", "True")]

        return look

    wait(online("False"), "the lease says that its exporter is away")
    lab.report(board, "LeaseReady")
    wait(online("True"), "the lease says that its exporter is back")


def test_an_exporter_that_is_deleted_ends_its_lease_and_history_stays(lab: Lab, operator: Operator) -> None:
    board = lab.exporter()
    name = lab.lease(lab.client(), board)
    lab.until(name, "Ready", "True")
    lab.delete("exporters", board)
    assert lab.until(name, "Ready", "False", "ExporterGone")["status"]["exporterRef"] == {"name": board}


BAD: dict[str, tuple[Json, str, str, str]] = {
    "a duration that is none": ({"duration": "1d"}, "Invalid", "InvalidDuration", "spec.duration"),
    "no duration": ({"duration": None}, "Invalid", "InvalidDuration", "spec.duration"),
    "a client that is none": ({"clientRef": {"name": "nobody"}}, "Invalid", "InvalidClient", "spec.clientRef"),
    "a pin that is none": ({"exporterRef": {"name": "nowhere"}}, "Unsatisfiable", "ExporterNotFound", "nowhere"),
    "a selector that matches nothing": (
        {"selector": {"matchLabels": {"board": "none"}}},
        "Unsatisfiable",
        "SelectorMismatch",
        "board=none",
    ),
    "an operator that is none": (
        {"selector": {"matchExpressions": [{"key": "board", "operator": "Near"}]}},
        "Invalid",
        "InvalidSelector",
        "Near",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_its_word_and_stops_nothing_else(lab: Lab, operator: Operator, what: str) -> None:
    spec, kind, reason, words = BAD[what]
    board, client = lab.exporter(), lab.client()
    bad = lab.lease(client, board, **spec)
    good = lab.lease(client, board)
    lease = lab.until(bad, kind, "True", reason)
    assert words in lease["status"]["conditions"][-1]["message"]
    assert lease["status"]["ended"] is False, "a manifest stays open"
    lab.until(good, "Ready", "True")
    assert decisive(lab.get("leases", bad)) == (kind, "True", reason)


def test_an_empty_selector_is_refused_by_the_crd(lab: Lab) -> None:
    with pytest.raises(ApiError) as refused:
        lab.lease("x", "x", selector={})
    assert refused.value.status == 422


def test_a_manifest_is_decided_again_when_what_it_needs_appears(lab: Lab, operator: Operator) -> None:
    board, client = f"later-{uuid.uuid4().hex[:8]}", f"c-{uuid.uuid4().hex[:8]}"
    name = lab.lease(client, board)
    lab.until(name, "Invalid", "True", "InvalidClient")
    lab.make("Client", client)
    lab.until(name, "Unsatisfiable", "True", "SelectorMismatch")
    lab.exporter(board)
    lab.until(name, "Ready", "True")


def test_a_lease_of_a_front_end_that_cannot_be_met_ends(lab: Lab, operator: Operator) -> None:
    spec = {"clientRef": {"name": lab.client()}, "selector": {"matchLabels": {"board": "none"}}, "duration": "1h"}
    name = lab.make("Lease", f"l-{uuid.uuid4().hex[:8]}", spec, {"lablease.dev/origin": "frontend"})
    lab.until(name, "Unsatisfiable", "True", "SelectorMismatch")
    lease = wait(lambda: found if (found := lab.get("leases", name) or {})["status"]["ended"] else None, "the end")
    assert [item["type"] for item in lease["status"]["conditions"]] == ["Pending", "Unsatisfiable"]
    assert lease["status"]["conditions"][0]["status"] == "False"


def test_an_ended_lease_is_deleted_after_its_time(lab: Lab, operator: Operator) -> None:
    name = lab.lease(lab.client(), lab.exporter(), "1s", ttlSecondsAfterEnded=1)
    wait(lambda: lab.get("leases", name) is None, "retention")


def test_credentials_come_in_one_write_and_a_dropped_secret_is_a_rotation(lab: Lab, operator: Operator) -> None:
    name = lab.client()
    client = wait(lambda: found if "status" in (found := lab.get("clients", name) or {}) else None, "the credential")
    status = client["status"]
    assert (status["credential"], status["endpoint"]) == ({"name": f"{name}-client"}, "lab.example:8082")
    assert status["credentialGeneration"] == 1
    secret = lab.get("secrets", f"{name}-client") or {}
    assert secret["type"] == "Opaque"
    lab.delete("secrets", f"{name}-client")
    wait(lambda: (lab.get("clients", name) or {})["status"]["credentialGeneration"] == 2, "the next generation")
    again = lab.get("secrets", f"{name}-client") or {}
    assert again["data"]["token"] != secret["data"]["token"]
    lab.delete("clients", name)
    wait(lambda: lab.get("secrets", f"{name}-client") is None, "the token of a deleted client goes with it")


def test_a_policy_that_cannot_be_read_does_not_stop_the_others(own: tuple[Lab, Operator]) -> None:
    lab, operator = own
    lab.client()
    operator.start()
    client, board = lab.client(), lab.exporter()
    everybody: Json = {"from": [{"clientSelector": {}}], "maximumDuration": "2h"}
    broken = {"matchExpressions": [{"key": "a", "operator": "Near"}]}
    lab.make("ExporterAccessPolicy", "broken", {"exporterSelector": broken, "policies": [everybody]})
    refused = lab.lease(client, board)
    lab.until(refused, "Unsatisfiable", "True", "NoAccess")
    lab.make("ExporterAccessPolicy", "fine", {"exporterSelector": {}, "policies": [everybody]})
    lab.until(refused, "Ready", "True")
    too_long = lab.lease(client, board, "3h")
    message = lab.until(too_long, "Unsatisfiable", "True", "DurationTooLong")["status"]["conditions"][-1]["message"]
    assert "at most 2h0m0s" in message
    lab.edit(refused, duration="5h")
    wait(lambda: "cut to 2h0m0s" in (lab.get("leases", refused) or {})["status"]["conditions"][-1]["message"], "notice")


def _slot(lab: Lab, board: str) -> bool:
    return "leaseRef" in (lab.get("exporters", board) or {})["status"]


STAGES: dict[str, Callable[[Lab, str, str], bool]] = {
    "at once": lambda lab, board, name: True,
    "after the slot": lambda lab, board, name: _slot(lab, board),
    "after Ready": lambda lab, board, name: decisive(lab.get("leases", name)) == ("Ready", "True", "Ready"),
    "after the end": lambda lab, board, name: (lab.get("leases", name) or {}).get("status", {}).get("ended", False),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_any_stage_changes_nothing_about_the_end(own: tuple[Lab, Operator], stage: str) -> None:
    lab, operator = own
    client, board = lab.client(), lab.exporter()
    operator.start()
    name = lab.lease(client, board, "3s")
    wait(lambda: STAGES[stage](lab, board, name), stage)
    operator.kill()
    operator.start()
    lease = lab.until(name, "Ready", "False", "Expired")
    assert lease["status"]["exporterRef"] == {"name": board}
    assert lab.until_free(board)["status"]["grant"] == lease["status"]["grant"]
    wait(
        lambda: "jumpstarter.dev/lease-ended" in (lab.get("leases", name) or {})["metadata"].get("labels", {}), "label"
    )


def test_time_that_passes_while_the_operator_is_away_counts(own: tuple[Lab, Operator]) -> None:
    lab, operator = own
    client, board = lab.client(), lab.exporter()
    operator.start()
    name = lab.lease(client, board, "1s")
    lab.until(name, "Ready", "True")
    operator.kill()
    waiting = lab.lease(client, board)
    operator.start()
    lab.until(name, "Ready", "False", "Expired")
    lab.until(waiting, "Ready", "True")


def test_nothing_of_ours_is_left_on_peoples_objects(lab: Lab, operator: Operator) -> None:
    client, board = lab.client(), lab.exporter()
    name = lab.lease(client, board, "1s")
    lab.until(name, "Ready", "False", "Expired")
    lab.until_free(board)
    for plural, thing in (("clients", client), ("exporters", board), ("leases", name)):
        metadata = (lab.get(plural, thing) or {})["metadata"]
        assert not metadata.keys() & {"annotations", "finalizers", "ownerReferences"}, plural


def test_the_log_tells_of_a_lease_what_the_api_server_accepted(lab: Lab, operator: Operator) -> None:
    client, board = lab.client(), lab.exporter()
    name = lab.lease(client, board, "1s")
    lease = lab.until(name, "Ready", "False", "Expired")
    grant = lease["status"]["grant"]
    (assigned,) = [line for line in operator.lines("lease.assigned") if line["lease"] == name]
    ended = wait(lambda: [line for line in operator.lines("lease.ended") if line["lease"] == name] or None, "a line")[0]
    facts = {"namespace": lab.namespace, "client": client, "exporter": board, "grant": grant}
    assert facts.items() <= assigned.items()
    assert (facts | {"reason": "Expired"}).items() <= ended.items()
    assert ended["held_seconds"] >= 1.0
    assert "eyJ" not in operator.log.read_text(), "no token in the log"
