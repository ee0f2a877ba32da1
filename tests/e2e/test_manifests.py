"""A lab run by manifests: what kubectl applies is what happens, and nothing of ours is left on it."""

import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

from lablease.clock import utc_now
from lablease.testing import configs
from lablease.testing.boards import native_drivers
from lablease.testing.kube import Json, condition, ended, is_true
from lablease.testing.processes import Finished
from lablease.testing.stack import Identity, Stack


@pytest.fixture
def board(stack: Stack, tmp_path: Path) -> Identity:
    exporter = stack.make_exporter()
    stack.start_agent(exporter, native_drivers(stack.device_log, tmp_path / "images"))
    return exporter


@pytest.fixture
def client(stack: Stack) -> Identity:
    return stack.make_client()


def on(board: Identity) -> dict[str, str]:
    return {"board": board.name}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def end_of(item: Json) -> datetime:
    return moment(item["status"]["endTime"])


def in_seconds(seconds: float) -> str:
    """Return a time from now as the CRD writes it: whole seconds, rounded up."""
    then = utc_now() + timedelta(seconds=seconds)
    return (then + timedelta(microseconds=999_999)).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def wait_for(stack: Stack, name: str, what: str, timeout: str = "15s") -> Finished:
    return stack.kubectl("wait", f"leases.jumpstarter.dev/{name}", f"--for={what}", f"--timeout={timeout}")


def test_kubectl_apply_and_wait_for_ready(stack: Stack, board: Identity, client: Identity) -> None:
    name = stack.name("manifest")
    stack.apply(configs.lease(name, client.name, on(board), duration="10m"))
    wait_for(stack, name, "condition=Ready").ok()
    columns = stack.kubectl("get", "leases.jumpstarter.dev", name, "--no-headers").ok().stdout.split()
    assert columns == [name, "false", client.name, board.name]
    stack.release(name)
    wait_for(stack, name, "condition=Ready=false").ok()
    lease = stack.until_ended(name)
    assert condition(lease, "Ready")["reason"] == "Released"
    stack.until_free(board.name)


def test_a_lease_ends_within_a_second_of_its_time(stack: Stack, board: Identity, client: Identity) -> None:
    with stack.kube.watching("leases") as watch:
        name = stack.create_lease(client, on(board), duration="3s")
        begun = watch.first(name, lambda item: is_true(item, "Ready"), "Ready")
        over = watch.first(name, ended, "ended")
    assert condition(over.item, "Ready")["reason"] == "Expired"
    planned = moment(begun.item["status"]["beginTime"]).timestamp() + 3
    assert 0 <= over.wall - planned <= 1


def test_a_lease_with_an_end_time_ends_within_a_second_of_it(stack: Stack, board: Identity, client: Identity) -> None:
    with stack.kube.watching("leases") as watch:
        name = stack.create_lease(client, on(board), endTime=in_seconds(4))
        stack.until_ready(name)
        over = watch.first(name, ended, "ended")
    planned = moment(over.item["spec"]["endTime"]).timestamp()
    assert 0 <= over.wall - planned <= 1


def test_a_longer_duration_moves_the_end(stack: Stack, board: Identity, client: Identity) -> None:
    name = stack.create_lease(client, on(board), duration="4s")
    begin = moment(stack.until_ready(name)["status"]["beginTime"])
    stack.kubectl("patch", "leases.jumpstarter.dev", name, "--type=merge", "-p", '{"spec":{"duration":"7s"}}').ok()
    lease = stack.until_ended(name)
    assert timedelta(seconds=7) <= end_of(lease) - begin <= timedelta(seconds=8)


def test_a_shorter_duration_that_is_over_ends_at_once(stack: Stack, board: Identity, client: Identity) -> None:
    name = stack.create_lease(client, on(board), duration="1h")
    stack.until_ready(name)
    with stack.kube.watching("leases") as watch:
        asked = time.monotonic()
        stack.kube.patch("leases", name, {"spec": {"duration": "1ms"}})
        over = watch.first(name, ended, "ended")
    assert condition(over.item, "Ready")["reason"] == "Expired"
    assert over.monotonic - asked <= 1


def test_a_begin_in_the_future_is_kept(stack: Stack, board: Identity, client: Identity) -> None:
    begin = in_seconds(4)
    name = stack.create_lease(client, on(board), beginTime=begin, duration="10m")
    waiting = stack.kube.until("leases", name, lambda item: is_true(item, "Pending"), "Pending")
    assert condition(waiting, "Pending")["reason"] == "Scheduled"
    assert "exporterRef" not in waiting["status"]

    # Who ends in time goes first.
    short = stack.create_lease(client, on(board), duration="1s")
    assert stack.until_ready(short)["status"]["exporterRef"]["name"] == board.name

    with stack.kube.watching("leases") as watch:
        ready = watch.first(name, lambda item: is_true(item, "Ready"), "Ready")
    assert 0 <= ready.wall - moment(begin).timestamp() <= 1
    stack.release(name)
    stack.until_ended(name)


def test_release_takes_effect_at_once(stack: Stack, board: Identity, client: Identity) -> None:
    name = stack.create_lease(client, on(board), duration="1h")
    stack.until_ready(name)
    with stack.kube.watching("leases") as watch:
        asked = time.monotonic()
        stack.release(name)
        over = watch.first(name, ended, "ended")
    assert over.monotonic - asked < 1
    labelled = stack.kube.until("leases", name, lambda item: item["metadata"].get("labels"), "labelled as ended")
    assert labelled["metadata"]["labels"]["jumpstarter.dev/lease-ended"] == "true"


def test_a_lease_that_cannot_be_met_stays_open_and_is_met_later(
    stack: Stack, board: Identity, client: Identity
) -> None:
    """GitOps applies things in any order: a selector that matches nothing yet is no end."""
    wanted = stack.name("chip")
    name = stack.create_lease(client, {"chip": wanted}, duration="10m")
    refused = stack.kube.until("leases", name, lambda item: is_true(item, "Unsatisfiable"), "Unsatisfiable")
    assert not ended(refused)
    assert wanted in condition(refused, "Unsatisfiable")["message"]
    stack.kube.patch("exporters", board.name, {"metadata": {"labels": {"chip": wanted}}})
    ready = stack.until_ready(name)
    assert ready["status"]["conditions"][-1]["type"] == "Ready"
    stack.release(name)
    stack.until_ended(name)


def test_another_field_manager_applies_without_conflict(
    stack: Stack, board: Identity, client: Identity, tmp_path: Path
) -> None:
    """Server-side apply, as Flux does it: never forced, before, during and after the lease; and no drift."""
    lease_name, exporter_name, client_name = (stack.name("gitops") for _ in range(3))
    label = stack.name("chip")
    manifest = tmp_path / "lab.yaml"
    items = [
        configs.client(client_name, {"team": "blue"}),
        configs.exporter(exporter_name, {"chip": label}),
        configs.lease(lease_name, client_name, on(board), duration="10m"),
    ]
    manifest.write_text("---\n".join(yaml.safe_dump(item) for item in items))

    def apply() -> Finished:
        return stack.kubectl("apply", "--server-side", "--field-manager=flux", "-f", str(manifest)).ok()

    def no_drift() -> None:
        diff = stack.kubectl("diff", "--server-side", "--field-manager=flux", "-f", str(manifest))
        assert diff.status == 0, diff.output

    apply()
    stack.until_ready(lease_name)
    for plural, name in (("exporters", exporter_name), ("clients", client_name)):
        stack.await_token(plural, name)
    no_drift()
    apply()

    items[2]["spec"]["release"] = True
    manifest.write_text("---\n".join(yaml.safe_dump(item) for item in items))
    apply()
    stack.until_ended(lease_name)
    stack.until_free(board.name)
    no_drift()
    apply()


def test_client_side_apply_sees_no_drift_either(stack: Stack, board: Identity, client: Identity) -> None:
    name = stack.name("manifest")
    manifest = yaml.safe_dump(configs.lease(name, client.name, on(board), duration="10m"))
    stack.kubectl("apply", "-f", "-", stdin=manifest).ok()
    stack.until_ready(name)
    diff = stack.kubectl("diff", "-f", "-", stdin=manifest)
    assert diff.status == 0, diff.output
    stack.release(name)
    stack.until_ended(name)


def test_nothing_of_ours_is_left_on_what_people_own(stack: Stack, board: Identity, client: Identity) -> None:
    """No annotation, no finalizer, no owner on a lease; what kubectl itself notes down is kubectl's."""
    name = stack.create_lease(client, on(board), duration="10m")
    stack.until_ready(name)
    stack.release(name)
    stack.until_ended(name)
    stack.until_free(board.name)
    for plural in ("leases", "exporters", "clients", "exporteraccesspolicies"):
        for item in stack.kube.list(plural):
            meta = item["metadata"]
            notes = set(meta.get("annotations", {})) - {"kubectl.kubernetes.io/last-applied-configuration"}
            assert not notes, (plural, meta["name"], notes)
            assert not meta.get("finalizers"), (plural, meta["name"])
            assert not meta.get("ownerReferences"), (plural, meta["name"])


def test_deleting_a_lease_frees_its_exporter(stack: Stack, board: Identity, client: Identity) -> None:
    name = stack.create_lease(client, on(board), duration="1h")
    stack.until_ready(name)
    stack.kube.until("exporters", board.name, is_serving, "serves its lease")
    stack.kubectl("delete", "leases.jumpstarter.dev", name, "--timeout=10s").ok()
    stack.until_free(board.name)


def is_serving(exporter: Json) -> bool:
    return bool(exporter["status"].get("exporterStatus") == "LeaseReady")


def test_an_exporter_that_is_deleted_ends_its_lease_and_leaves_the_history(
    stack: Stack, client: Identity, board: Identity
) -> None:
    name = stack.create_lease(client, on(board), duration="1h")
    stack.until_ready(name)
    stack.kubectl("delete", "exporters.jumpstarter.dev", board.name, "--timeout=10s").ok()
    lease = stack.until_ended(name)
    assert lease["status"]["exporterRef"]["name"] == board.name
