"""The published client and exporter over time, in every mode, and at sizes that hurt."""

import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lablease.testing import configs
from lablease.testing.boards import native_drivers, stock_drivers
from lablease.testing.kube import condition, ended
from lablease.testing.payload import payload
from lablease.testing.peers import Echo, Exchange
from lablease.testing.processes import Process
from lablease.testing.stack import SCRIPTS, Identity, Stack
from lablease.testing.waiting import eventually

MEGABYTE = 1024 * 1024
IDLE_SECONDS = 310


@pytest.fixture
def board(stack: Stack) -> Identity:
    exporter = stack.make_exporter()
    stack.start_stock_exporter(exporter, stock_drivers(exporter.name, stack.device_log))
    return exporter


# ---- 1: five idle minutes -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Idle:
    """An exporter that nobody uses, and a tunnel in which nothing is said, since ``since`` (monotonic)."""

    since: float
    unused: Identity
    session: str
    processes: tuple[Process, ...]
    shell: Process
    go: Path


@pytest.fixture(scope="session")
def idle(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Idle]:
    """Begin early: the test that looks is the last one, so that the others run meanwhile."""
    folder = tmp_path_factory.mktemp("idle")
    with Echo() as peer:
        unused, held = stack.make_exporter("idle"), stack.make_exporter("held")
        client = stack.make_client("holder")
        stack.kept |= {f"jmp-run-{unused}", f"jmp-run-{held}", "holder"}
        processes = tuple(
            stack.start_stock_exporter(exporter, stock_drivers(exporter.name, stack.device_log, peer.port))
            for exporter in (unused, held)
        )
        started, go = folder / "started", folder / "go"
        script = ["python", str(SCRIPTS / "hold.py"), "net", str(started), str(go)]
        argv = [
            stack.upstream.jmp,
            "shell",
            "--client-config",
            str(client.config),
            "-l",
            f"board={held}",
            "--",
            *script,
        ]
        shell = stack.processes.start("holder", argv, stack.stock_environment())
        eventually(started.exists, "the idle tunnel is open", within_seconds=30)
        session = stack.kube.get("exporters", unused.name)["status"]["session"]["id"]
        yield Idle(time.monotonic(), unused, session, processes, shell, go)


@pytest.mark.usefixtures("idle")
def test_idle_things_were_started() -> None:
    """First in this file: see `idle`."""


# ---- 2: how a shell is opened ---------------------------------------------------------------------------------------


def test_a_shell_in_insecure_mode_by_name_and_a_second_command_in_it(stack: Stack, tmp_path: Path) -> None:
    exporter, client = stack.make_exporter(), stack.make_client()
    stack.start_stock_exporter(exporter, stock_drivers(exporter.name, stack.device_log), insecure=True)
    config = tmp_path / "insecure.yaml"
    configs.client_config(config, stack.namespace, client.name, stack.endpoint, client.token, None, insecure=True)
    done = stack.jmp(
        "shell", "--client-config", str(config), "--name", exporter.name, "--", "sh", "-ec", "j power on; j power off"
    )
    done.ok()
    assert [line["method"] for line in stack.device_calls(exporter.name)] == ["on", "off"]


def test_a_lease_that_was_made_before_is_used_and_kept(stack: Stack, board: Identity) -> None:
    client = stack.make_client()
    options = ["--client-config", str(client.config)]
    made = stack.jmp("create", "lease", *options, "-l", f"board={board}", "--duration", "10m", "-o", "name").ok()
    lease = made.stdout.strip().rsplit("/", 1)[-1]
    for _ in range(2):  # the lease outlives its shells
        stack.shell(client, "--lease", lease, "--", "j", "power", "on").ok()
    item = stack.kube.get("leases", lease)
    assert not ended(item)
    assert lease in stack.jmp("get", "leases", *options).ok().stdout
    stack.jmp("delete", "leases", *options, lease).ok()
    stack.until_ended(lease)
    stack.until_free(board.name)


# ---- 3: how it ends -------------------------------------------------------------------------------------------------


def test_a_shell_hears_that_its_lease_expires(stack: Stack, board: Identity) -> None:
    client = stack.make_client()
    begun = time.monotonic()
    done = stack.shell(client, "-l", f"board={board}", "--duration", "8s", "--", "sleep", "60")
    assert time.monotonic() - begun < 30
    assert done.status != 0  # the command was hung up on
    stack.until_free(board.name)
    stack.shell(client, "-l", f"board={board}", "--", "j", "power", "on").ok()


def test_an_exporter_releases_a_lease_whose_hook_failed(stack: Stack) -> None:
    exporter, client = stack.make_exporter(), stack.make_client()
    hooks = {"beforeLease": {"script": "exit 3", "timeout": 10, "onFailure": "endLease"}}
    stack.start_stock_exporter(exporter, stock_drivers(exporter.name, stack.device_log), hooks=hooks)
    lease = stack.create_lease(client, {"board": exporter.name}, duration="10m")
    over = stack.until_ended(lease, within_seconds=20)
    assert condition(over, "Ready")["reason"] == "Released"
    stack.until_free(exporter.name)


def test_a_shell_on_a_lease_that_is_over_fails_at_once(stack: Stack, board: Identity) -> None:
    """The published client hangs for ever on Expired unless Pending is False too."""
    client = stack.make_client()
    lease = stack.create_lease(client, {"board": board.name}, duration="1s")
    stack.until_ended(lease)
    done = stack.shell(client, "--lease", lease, "--", "true", within_seconds=30)
    assert done.status != 0
    assert "Traceback" not in done.output


def test_who_waits_gets_the_board_when_it_is_given_back(stack: Stack, board: Identity) -> None:
    holder, waiter = stack.make_client(), stack.make_client()
    lease = stack.create_lease(holder, {"board": board.name}, duration="10m")
    stack.until_ready(lease)
    argv = [stack.upstream.jmp, "shell", "--client-config", str(waiter.config), "-l", f"board={board}"]
    waiting = stack.processes.start("waiter", [*argv, "--", "j", "power", "on"], stack.stock_environment())

    def asked() -> bool:
        return any(item["spec"]["clientRef"]["name"] == waiter.name for item in stack.kube.list("leases"))

    eventually(asked, "the waiter's lease is there", within_seconds=20)
    stack.release(lease)
    assert waiting.wait(60) == 0, waiting.text()
    assert [line["method"] for line in stack.device_calls(board.name)] == ["on"]


# ---- 8: credentials -------------------------------------------------------------------------------------------------


def test_a_token_that_is_over_asks_for_a_new_login(stack: Stack, tmp_path: Path) -> None:
    """By the words that the published client looks for; the token is expired locally and at the server."""
    client = stack.make_client()
    claims = jwt.decode(client.token, options={"verify_signature": False})
    old = {**claims, "iat": claims["iat"] - 7200, "exp": claims["iat"] - 3600}
    token = sign_as_the_operator(stack, old, client.token)
    config = tmp_path / "expired.yaml"
    configs.client_config(config, stack.namespace, client.name, stack.endpoint, token, stack.ca)
    done = stack.jmp("get", "leases", "--client-config", str(config))
    assert done.status != 0
    assert "token is expired" in done.output


def sign_as_the_operator(stack: Stack, claims: dict[str, object], like: str) -> str:
    """Sign claims with the lab's own key, which an admin may read, under the key id of an existing token."""
    path = "/api/v1/namespaces/lablease-system/secrets/lablease-identity"
    secret = stack.kube.request("GET", path)["data"]
    pem = next(b64decode(value) for value in secret.values() if b"PRIVATE KEY" in b64decode(value))
    key = load_pem_private_key(pem, None)
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": jwt.get_unverified_header(like)["kid"]})  # type: ignore[arg-type]


# ---- 9: many --------------------------------------------------------------------------------------------------------


def test_lists_of_more_than_a_page_are_whole(stack: Stack) -> None:
    """More than a hundred exporters and leases, with every filter that the published client has."""
    client, shelf = stack.make_client(), stack.name("shelf")
    boards = [stack.name("shelved") for _ in range(120)]
    for index, name in enumerate(boards):
        labels = {"shelf": shelf, "parity": "even" if index % 2 == 0 else "odd"}
        stack.kube.create("exporters", configs.exporter(name, labels, enabled=index != 7))
    leases = [stack.name("listed") for _ in range(110)]
    for index, name in enumerate(leases):
        item = configs.lease(name, client.name, {"shelf": shelf}, duration="10m")
        item["metadata"]["labels"] = {"shelf": shelf, "metadata.jumpstarter.dev/build": str(index % 10)}
        item["spec"]["tags"] = {"build": str(index % 10)}
        stack.kube.create("leases", item)
    options = ["--client-config", str(client.config), "-o", "name"]

    def listed(*arguments: str) -> set[str]:
        return {line.rsplit("/", 1)[-1] for line in stack.jmp("get", *arguments, *options).ok().stdout.split()}

    everything = eventually(lambda: all_of(boards, listed("exporters", "-l", f"shelf={shelf}")), "all exporters")
    assert everything == set(boards) - {boards[7]}  # a disabled one is not shown
    assert listed("exporters", "-l", f"shelf={shelf},parity=odd") == set(boards[1::2]) - {boards[7]}
    assert boards[7] in listed("exporters", "-l", f"shelf={shelf}", "--allow-disabled")
    assert listed("leases") == set(leases)
    assert listed("leases", "-l", f"shelf={shelf}") == set(leases)
    assert listed("leases", "--tag-filter", "build=3") == set(leases[3::10])

    for name in leases[:60]:
        stack.release(name)
    for name in leases[:60]:
        stack.until_ended(name)
    assert listed("leases") == set(leases[60:])
    assert listed("leases", "--all") >= set(leases)
    other = stack.make_client()
    stranger = ["get", "leases", "--client-config", str(other.config), "-o", "name"]
    assert stack.jmp(*stranger).ok().stdout.split() == []
    for name in leases[60:]:
        stack.release(name)
    for name in boards:
        stack.kube.delete("exporters", name)


def all_of(wanted: list[str], found: set[str]) -> set[str] | None:
    return found if len(found) >= len(wanted) - 1 else None


# ---- 10: a hundred megabytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stock", "ours"])
def test_a_hundred_megabytes_pass_a_router_that_stays_small(stack: Stack, tmp_path: Path, kind: str) -> None:
    data = payload("a big image", 100 * MEGABYTE)
    (tmp_path / "sent").write_bytes(data)
    exporter, client = stack.make_exporter(), stack.make_client()
    with Exchange(b"thank you") as peer:
        if kind == "stock":
            stack.start_stock_exporter(exporter, stock_drivers(exporter.name, stack.device_log, peer.port))
        else:
            stack.start_agent(exporter, native_drivers(stack.device_log, tmp_path / "images", peer.port))
        script = ["python", str(SCRIPTS / "exchange.py"), "net", str(tmp_path / "sent"), str(tmp_path / "received")]
        with Memory(stack.running["router"]) as router, Memory(stack.running["frontend"]) as frontend:
            stack.shell(client, "-l", f"board={exporter}", "--", *script, within_seconds=120).ok()
        assert bytes(peer.conversations[-1].received) == data
        # Half-close: the answer came after the last byte was sent.
        assert (tmp_path / "received").read_bytes() == b"thank you"
        assert router.grown < 24 * MEGABYTE
        assert frontend.grown < 24 * MEGABYTE


class Memory:
    """Watches the resident memory of a process while a block runs."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._first = self._most = self._now()

    @property
    def grown(self) -> int:
        """Bytes by which it was larger at its largest than at the beginning."""
        return self._most - self._first

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self._most = max(self._most, self._now())

    def _now(self) -> int:
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"{self._process.name} has no memory: it ended")


# ---- 1, continued ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_five_idle_minutes_cost_no_connection(stack: Stack, idle: Idle) -> None:
    """No Status stream is opened anew, and a silent tunnel bears bytes afterwards."""
    left = idle.since + IDLE_SECONDS - time.monotonic()
    with pytest.raises(AssertionError):  # whoever ends meanwhile ends the test
        eventually(lambda: not all(process.alive for process in idle.processes), "an exporter ends", max(left, 0))
    status = stack.kube.get("exporters", idle.unused.name)["status"]
    assert status["session"]["id"] == idle.session
    for process in idle.processes:
        assert "interrupted" not in process.text()
        assert "Retrying" not in process.text()
    assert idle.shell.alive, idle.shell.text()
    idle.go.write_text("now")
    assert idle.shell.wait(30) == 0, idle.shell.text()
    assert "the idle stream still bears bytes" in idle.shell.text()


def test_yaml_of_configs_is_what_the_published_client_writes(stack: Stack, tmp_path: Path) -> None:
    """The harness must not help: a config that `jmp` wrote itself has the same keys as ours."""
    client, out = stack.make_client(), tmp_path / "imported.yaml"
    stack.admin("import", "client", client.name, "--out", str(out), "--unsafe", "--nointeractive").ok()
    theirs, ours = yaml.safe_load(out.read_text()), yaml.safe_load(client.config.read_text())
    assert {key: theirs[key] for key in ours} == ours
