"""``jmp admin`` 0.9.0 against our objects: what it needs is there, and nothing makes it stumble."""

import base64
import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
import yaml

from lablease.clock import utc_now
from lablease.testing import configs
from lablease.testing.boards import native_drivers
from lablease.testing.kube import Json, condition, conditions, ended, is_true
from lablease.testing.processes import Finished
from lablease.testing.stack import Identity, Stack
from lablease.testing.waiting import eventually


@pytest.fixture
def board(stack: Stack, tmp_path: Path) -> Identity:
    exporter = stack.make_exporter()
    stack.start_agent(exporter, native_drivers(stack.device_log, tmp_path / "images"))
    return exporter


def lines(done: Finished) -> list[str]:
    return done.ok().stdout.splitlines()


def row(done: Finished, name: str) -> str:
    """Return the line of a table that shows an object."""
    found = [line for line in lines(done) if name in line]
    assert len(found) == 1, done.output
    return found[0]


# ---- upstream's objects (crds checklist 1) --------------------------------------------------------------------------


def test_columns_are_those_that_people_know(stack: Stack, board: Identity) -> None:
    def header(plural: str) -> list[str]:
        table = stack.kubectl("get", f"{plural}.jumpstarter.dev", "-o", "wide").ok().stdout
        return table.splitlines()[0].replace("TOKEN EXPIRES", "TOKEN-EXPIRES").split()

    client = stack.make_client()
    name = stack.create_lease(client, {"board": board.name}, duration="5m")
    assert header("clients") == ["NAME", "TOKEN-EXPIRES"]
    assert header("exporters") == ["NAME", "ENABLED", "STATUS", "MESSAGE"]
    assert header("leases") == ["NAME", "ENDED", "CLIENT", "EXPORTER"]
    stack.release(name)


# ---- create, import, get, rotate, delete (crds checklist 2) ---------------------------------------------------------


def test_create_client_writes_a_config_that_works(stack: Stack, board: Identity, tmp_path: Path) -> None:
    name, out = stack.name("admin-client"), tmp_path / "client.yaml"
    begun = time.monotonic()
    stack.admin("create", "client", name, "--unsafe", "--out", str(out), "-l", "team=blue", "--nointeractive").ok()
    took = time.monotonic() - begun
    config = yaml.safe_load(out.read_text())
    assert config["endpoint"] == stack.endpoint
    assert base64.b64decode(config["tls"]["ca"]) == stack.ca
    assert stack.kube.get("clients", name)["metadata"]["labels"] == {"team": "blue"}
    done = stack.jmp("shell", "--client-config", str(out), "-l", f"board={board}", "--", "j", "power", "on")
    assert done.ok()
    # Its own start takes more than a second; the credential is there at its first or second look.
    assert took < 10


def test_create_exporter_writes_a_config_that_works(stack: Stack, tmp_path: Path) -> None:
    name, out = stack.name("admin-exporter"), tmp_path / "exporter.yaml"
    stack.admin("create", "exporter", name, "-l", f"board={name}", "--out", str(out), "--nointeractive").ok()
    config = yaml.safe_load(out.read_text())
    assert config["endpoint"] == stack.endpoint
    assert config["metadata"] == {"namespace": stack.namespace, "name": name}
    config["export"] = {"power": {"type": "jumpstarter_driver_power.driver.MockPower"}}
    out.write_text(yaml.safe_dump(config))
    argv = [stack.upstream.jmp, "run", "--exporter-config", str(out)]
    process = stack.processes.start(f"jmp-run-{name}", argv, stack.stock_environment())
    stack.until_free(name, process)


def test_credential_and_endpoint_come_in_one_write(stack: Stack) -> None:
    """The command parses the first look that shows a credential, and needs the endpoint in it."""
    with stack.kube.watching("exporters") as exporters, stack.kube.watching("clients") as clients:
        client, exporter = stack.make_client(), stack.make_exporter()
        for watch, name in ((clients, client.name), (exporters, exporter.name)):
            shown = watch.first(name, lambda item: item.get("status", {}).get("credential"), "credential")
            assert shown.item["status"]["endpoint"] == stack.endpoint
            assert stack.kube.get("secrets", shown.item["status"]["credential"]["name"])["data"]["token"]


def test_import_writes_the_same_identity(stack: Stack, tmp_path: Path) -> None:
    client, exporter = stack.make_client(), stack.make_exporter()
    for kind, identity in (("client", client), ("exporter", exporter)):
        out = tmp_path / f"{kind}.yaml"
        options = ["--unsafe"] if kind == "client" else []
        stack.admin("import", kind, identity.name, "--out", str(out), *options, "--nointeractive").ok()
        config = yaml.safe_load(out.read_text())
        assert config["metadata"] == {"namespace": stack.namespace, "name": identity.name}
        assert config["token"] == identity.token
        assert config["endpoint"] == stack.endpoint


@pytest.mark.parametrize("kind", ["client", "exporter"])
def test_get_in_every_output_form(stack: Stack, kind: str) -> None:
    identity = stack.make_client() if kind == "client" else stack.make_exporter()
    assert identity.name in row(stack.admin("get", kind, identity.name), identity.name)
    assert identity.name in row(stack.admin("get", kind), identity.name)
    as_json = json.loads(stack.admin("get", kind, identity.name, "-o", "json").ok().stdout)
    assert as_json["metadata"]["name"] == identity.name
    as_yaml = yaml.safe_load(stack.admin("get", kind, identity.name, "-o", "yaml").ok().stdout)
    assert as_yaml["status"]["endpoint"] == stack.endpoint
    named = stack.admin("get", kind, identity.name, "-o", "name").ok().stdout
    assert named.strip() == f"{kind}.jumpstarter.dev/{identity.name}"


def test_get_shows_an_exporter_that_never_connected(stack: Stack) -> None:
    """And one of which nothing was written yet: the command fails on a missing key, and with it the whole list."""
    fresh = stack.name("fresh")
    stack.kube.create("exporters", configs.exporter(fresh, {"board": fresh}))
    stack.kube.until("exporters", fresh, lambda item: item.get("status", {}).get("endpoint"), "seen by the operator")
    assert fresh in row(stack.admin("get", "exporter", fresh), fresh)
    stack.admin("get", "exporter").ok()


def test_rotating_twice_in_a_second_gives_three_tokens(stack: Stack, tmp_path: Path) -> None:
    """The Secret is deleted and awaited under its own name; a token of the same second must differ all the same."""
    client = stack.make_client()
    secret = stack.kube.get("clients", client.name)["status"]["credential"]["name"]
    tokens = [client.token]
    begun = time.monotonic()
    for _ in range(2):
        stack.kube.delete("secrets", secret)
        tokens.append(
            stack.kube.until("secrets", secret, lambda s: s.get("data", {}).get("token"), "again")["data"]["token"]
        )
    assert time.monotonic() - begun < 2
    tokens[1:] = [base64.b64decode(token).decode() for token in tokens[1:]]
    assert len(set(tokens)) == 3
    issued = [jwt.decode(token, options={"verify_signature": False}) for token in tokens]
    assert len({claims["jti"] for claims in issued}) == 3


def test_rotate_revokes_the_old_token_within_a_second(stack: Stack, tmp_path: Path) -> None:
    client = stack.make_client()
    listing = ["get", "leases", "--client-config"]
    stack.jmp(*listing, str(client.config)).ok()
    out = tmp_path / "rotated.yaml"
    stack.admin("rotate", "client", client.name, "--out", str(out)).ok()
    assert yaml.safe_load(out.read_text())["token"] != client.token
    refused = stack.jmp(*listing, str(client.config))
    assert refused.status != 0
    assert "Traceback" not in refused.output
    stack.jmp(*listing, str(out)).ok()


@pytest.mark.parametrize("kind", ["client", "exporter"])
def test_delete_removes_the_object_and_its_secret(stack: Stack, kind: str) -> None:
    identity = stack.make_client() if kind == "client" else stack.make_exporter()
    secret = stack.kube.get(f"{kind}s", identity.name)["status"]["credential"]["name"]
    stack.admin("delete", kind, identity.name, "--nointeractive").ok()
    assert stack.kube.find(f"{kind}s", identity.name) is None
    # There is no garbage collector on this API server: what we own we delete ourselves.
    eventually(lambda: stack.kube.find("secrets", secret) is None, f"Secret {secret} is gone")


# ---- get lease in every state (crds checklist 3) --------------------------------------------------------------------


def test_get_lease_in_every_state(stack: Stack, board: Identity, tmp_path: Path) -> None:
    client, other = stack.make_client(), stack.make_exporter()
    here = {"board": board.name}
    tomorrow = (utc_now() + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    running = stack.create_lease(client, here, duration="10m")
    stack.until_ready(running)
    pending = stack.create_lease(client, here, duration="10m")
    offline = stack.create_lease(client, {"board": other.name}, duration="10m")
    scheduled = stack.create_lease(client, here, beginTime=tomorrow, duration="10m")
    unsatisfiable = stack.create_lease(client, exporterRef={"name": "no-such-board"}, duration="10m")
    expressions = {"matchExpressions": [{"key": "board", "operator": "In", "values": [board.name]}]}
    invalid = stack.name("lease")
    stack.kube.create("leases", configs.lease(invalid, client.name, here, duration="1d"))
    by_expression = stack.name("lease")
    item = configs.lease(by_expression, client.name, duration="10m")
    item["spec"]["selector"] = expressions
    stack.kube.create("leases", item)

    reasons = {
        running: "Ready",
        invalid: "InvalidDuration",
        pending: "NotAvailable",
        offline: "Offline",
        scheduled: "Scheduled",
        unsatisfiable: "ExporterNotFound",
        by_expression: "NotAvailable",
    }
    for name, reason in reasons.items():
        stack.kube.until("leases", name, decided(reason), reason)
    table = stack.admin("get", "lease")
    for name, reason in reasons.items():
        assert reason in row(table, name), table.output
        stack.admin("get", "lease", name).ok()

    stack.release(pending)
    stack.until_ended(pending)
    assert "Released" in row(stack.admin("get", "lease", pending), pending)
    stack.kube.patch("leases", running, {"spec": {"duration": "1ms"}})
    stack.until_ended(running)
    assert "Complete" in row(stack.admin("get", "lease", running), running)

    for form in ("json", "yaml", "name"):
        stack.admin("get", "lease", "-o", form).ok()
    for name in (offline, scheduled, unsatisfiable, by_expression, invalid):
        stack.release(name)


def decided(reason: str) -> Callable[[Json], bool]:
    """Say whether the last condition of a lease has this reason."""

    def look(item: Json) -> bool:
        return [entry["reason"] for entry in conditions(item)[-1:]] == [reason]

    return look


def test_a_lease_is_complete_for_the_command_from_its_first_status_on(stack: Stack, board: Identity) -> None:
    """`jmp admin get lease` needs status.ended, a list of conditions and observedGeneration in each of them."""
    client = stack.make_client()
    with stack.kube.watching("leases") as watch:
        name = stack.create_lease(client, {"board": board.name}, duration="10m")
        watch.first(name, lambda item: is_true(item, "Ready"), "Ready")
        stack.release(name)
        watch.first(name, ended, "ended")
    with_status = [seen.item for seen in watch.of(name) if "status" in seen.item]
    for item in with_status:
        assert "ended" in item["status"]
        assert item["status"]["conditions"]
        for entry in item["status"]["conditions"]:
            assert {"type", "status", "reason", "message", "lastTransitionTime", "observedGeneration"} <= set(entry)
    assert condition(with_status[-1], "Pending").get("status") != "True"
