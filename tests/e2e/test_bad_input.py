"""What is wrong is refused with its reason, and never stands in the way of what is right.

Every case runs beside a valid lease that is asked for after the bad input and granted while it is there.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import grpc
import grpc.aio
import jwt
import pytest
import pytest_asyncio
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from lablease.testing import configs
from lablease.testing.fakes import FakeExporter, Speaker, channel, fake_client
from lablease.testing.kube import Json, Refused, condition, ended
from lablease.testing.stack import Identity, Stack
from lablease.testing.waiting import eventually
from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.client.v1.client_pb2_grpc import ClientServiceStub
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2
from lablease.wire.jumpstarter.v1.jumpstarter_pb2_grpc import ControllerServiceStub

MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bench:
    """An exporter that is there, a client that does nothing wrong, and one that may."""

    stack: Stack
    board: Identity
    client: Identity
    exporter: FakeExporter

    @property
    def selector(self) -> dict[str, str]:
        return {"board": self.board.name}

    def speaker(self, identity: Identity) -> Speaker:
        return Speaker(identity.kind, self.stack.namespace, identity.name, identity.token)

    @asynccontextmanager
    async def a_valid_lease_is_granted_meanwhile(self) -> AsyncGenerator[None]:
        """Ask for a lease before and after what happens inside; both are granted."""
        await self.grant()
        yield
        await self.grant()

    async def grant(self) -> None:
        stack = self.stack
        async with fake_client(self.speaker(self.client), stack.endpoint, stack.ca) as client:
            lease = await client.create(f"board={self.board}")
            await client.until_ready(lease.name, within_seconds=5)
            await client.release(lease.name)


@pytest_asyncio.fixture
async def bench(stack: Stack) -> AsyncIterator[Bench]:
    board, client = stack.make_exporter(), stack.make_client()
    speaker = Speaker("Exporter", stack.namespace, board.name, board.token)
    async with FakeExporter(speaker, stack.endpoint, stack.ca) as exporter:
        yield Bench(stack, board, client, exporter)


def code(refused: grpc.aio.AioRpcError) -> grpc.StatusCode:
    return refused.code()


async def refusal(call: Callable[[], Awaitable[object]]) -> grpc.aio.AioRpcError:
    """Return the error of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    details = caught.value.details() or ""
    assert details, "an error must say what is wrong"
    assert "\n" not in details
    assert "Traceback" not in details
    return caught.value


# ---- through the front end ------------------------------------------------------------------------------------------


def create_request(bench: Bench, **fields: object) -> client_pb2.CreateLeaseRequest:
    lease = client_pb2.Lease(**fields)  # type: ignore[arg-type]
    return client_pb2.CreateLeaseRequest(parent=f"namespaces/{bench.stack.namespace}", lease=lease)


async def create(bench: Bench, request: client_pb2.CreateLeaseRequest, speaker: Speaker | None = None) -> object:
    async with channel(bench.stack.endpoint, bench.stack.ca) as wire:
        metadata = (speaker or bench.speaker(bench.client)).metadata()
        return await ClientServiceStub(wire).CreateLease(request, metadata=metadata, timeout=10)


async def test_an_empty_selector_is_an_invalid_argument(bench: Bench) -> None:
    request = create_request(bench)
    request.lease.duration.FromSeconds(60)
    async with bench.a_valid_lease_is_granted_meanwhile():
        refused = await refusal(lambda: create(bench, request))
        assert code(refused) is grpc.StatusCode.INVALID_ARGUMENT
        assert "selector" in str(refused.details())


@pytest.mark.parametrize("seconds", [0, -5])
async def test_a_duration_that_is_not_positive_is_an_invalid_argument(bench: Bench, seconds: int) -> None:
    request = create_request(bench, selector=f"board={bench.board}")
    request.lease.duration.FromSeconds(seconds)
    async with bench.a_valid_lease_is_granted_meanwhile():
        refused = await refusal(lambda: create(bench, request))
        assert code(refused) is grpc.StatusCode.INVALID_ARGUMENT
        assert "duration" in str(refused.details())


@pytest.mark.parametrize("selector", ["board in (", "a=b=c", "=", "!", "Ünicode=1", "a=" + "x" * 64])
async def test_a_selector_that_cannot_be_read_is_an_invalid_argument(bench: Bench, selector: str) -> None:
    request = create_request(bench, selector=selector)
    request.lease.duration.FromSeconds(60)
    async with bench.a_valid_lease_is_granted_meanwhile():
        refused = await refusal(lambda: create(bench, request))
        assert code(refused) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_selector_on_the_label_of_ended_leases_hides_no_lease(bench: Bench) -> None:
    """Selectors are copied to the lease's own labels, and this label says that a lease has ended."""
    request = create_request(bench, selector="jumpstarter.dev/lease-ended=true")
    request.lease.duration.FromSeconds(60)
    async with bench.a_valid_lease_is_granted_meanwhile():
        lease = await create(bench, request)
        assert isinstance(lease, client_pb2.Lease)
        name = lease.name.rsplit("/", 1)[1]
        assert "jumpstarter.dev/lease-ended" not in bench.stack.kube.get("leases", name)["metadata"].get("labels", {})
        over = bench.stack.until_ended(name, within_seconds=10)
        assert condition(over, "Unsatisfiable")["message"]


async def test_a_message_that_is_too_large_is_resource_exhausted(bench: Bench) -> None:
    request = create_request(bench, selector="board=" + "x" * 5 * MEGABYTE)
    request.lease.duration.FromSeconds(60)
    async with bench.a_valid_lease_is_granted_meanwhile():
        refused = await refusal(lambda: create(bench, request))
        assert code(refused) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_pin_that_does_not_exist_is_refused_and_ends_soon(bench: Bench) -> None:
    request = create_request(bench, exporter_name="no-such-board")
    request.lease.duration.FromSeconds(60)
    async with bench.a_valid_lease_is_granted_meanwhile():
        lease = await create(bench, request)
        assert isinstance(lease, client_pb2.Lease)
        name = lease.name.rsplit("/", 1)[1]
        over = bench.stack.until_ended(name, within_seconds=10)
        assert condition(over, "Unsatisfiable")["reason"] == "ExporterNotFound"
        assert "no-such-board" in condition(over, "Unsatisfiable")["message"]


# ---- who is it ------------------------------------------------------------------------------------------------------


async def list_leases(bench: Bench, speaker: Speaker) -> object:
    async with channel(bench.stack.endpoint, bench.stack.ca) as wire:
        request = client_pb2.ListLeasesRequest(parent=f"namespaces/{bench.stack.namespace}")
        return await ClientServiceStub(wire).ListLeases(request, metadata=speaker.metadata(), timeout=10)


async def register(bench: Bench, speaker: Speaker) -> object:
    async with channel(bench.stack.endpoint, bench.stack.ca) as wire:
        request = jumpstarter_pb2.RegisterRequest()
        return await ControllerServiceStub(wire).Register(request, metadata=speaker.metadata(), timeout=10)


def a_foreign_token() -> str:
    """Return a token that is in order but for who signed it."""
    now = int(time.time())
    claims = {
        "iss": "https://localhost:8085",
        "aud": ["jumpstarter"],
        "sub": "client:lab:somebody:1",
        "iat": now,
        "exp": now + 3600,
    }
    return jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256")


U, I, P = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("lie", "codes"),
    [
        pytest.param({"token": ""}, {U}, id="no token"),
        pytest.param({"token": "gibberish"}, {U}, id="no JWT"),
        pytest.param({"token": a_foreign_token()}, {U}, id="foreign token"),
        pytest.param({"kind": "Exporter"}, {I, P}, id="wrong kind"),
        pytest.param({"kind": ""}, {I}, id="no kind"),
        pytest.param({"namespace": ""}, {I}, id="no namespace"),
        pytest.param({"namespace": "default"}, {U, P}, id="wrong namespace"),
        pytest.param({"name": "somebody-else"}, {U, P}, id="another name"),
    ],
)
async def test_an_identity_that_does_not_hold_is_refused(
    bench: Bench, lie: dict[str, str], codes: set[grpc.StatusCode]
) -> None:
    async with bench.a_valid_lease_is_granted_meanwhile():
        refused = await refusal(lambda: list_leases(bench, replace(bench.speaker(bench.client), **lie)))
        assert code(refused) in codes
        # The stock client takes these words for something else.
        assert "expired" not in str(refused.details())


async def test_a_token_whose_signature_was_changed_is_refused(bench: Bench) -> None:
    true = bench.speaker(bench.client)
    head, _, signature = true.token.rpartition(".")
    forged = replace(true, token=f"{head}.{signature[::-1]}")
    async with bench.a_valid_lease_is_granted_meanwhile():
        assert code(await refusal(lambda: list_leases(bench, forged))) is U


async def test_a_client_cannot_speak_as_an_exporter(bench: Bench) -> None:
    async with bench.a_valid_lease_is_granted_meanwhile():
        refused = await refusal(lambda: register(bench, bench.speaker(bench.client)))
        assert code(refused) in {I, P}


async def test_a_client_that_was_deleted_is_refused(bench: Bench) -> None:
    gone = bench.stack.make_client()
    await list_leases(bench, bench.speaker(gone))
    bench.stack.kube.delete("clients", gone.name)
    async with bench.a_valid_lease_is_granted_meanwhile():
        refused = await refusal(lambda: list_leases(bench, bench.speaker(gone)))
        assert code(refused) in {U, P, grpc.StatusCode.NOT_FOUND}


async def test_a_dial_for_somebody_elses_lease_is_denied(bench: Bench) -> None:
    stack, other = bench.stack, bench.stack.make_client()
    lease = stack.create_lease(bench.client, bench.selector, duration="5m")
    stack.until_ready(lease)
    async with fake_client(bench.speaker(other), stack.endpoint, stack.ca) as client:
        refused = await refusal(lambda: client.dial(lease))
    assert code(refused) is P
    assert "permission denied" in str(refused.details())  # the stock client looks for these words
    stack.release(lease)
    stack.until_ended(lease)


@pytest.mark.parametrize(
    ("lease", "wanted"),
    [("", grpc.StatusCode.INVALID_ARGUMENT), ("no-such-lease", grpc.StatusCode.NOT_FOUND)],
    ids=["no name", "unknown"],
)
async def test_a_dial_that_makes_no_sense_is_refused(bench: Bench, lease: str, wanted: grpc.StatusCode) -> None:
    stack = bench.stack
    async with fake_client(bench.speaker(bench.client), stack.endpoint, stack.ca) as client:
        assert code(await refusal(lambda: client.dial(lease))) is wanted


# ---- by manifest ----------------------------------------------------------------------------------------------------


def bad_lease(bench: Bench, client: str = "", **spec: object) -> Json:
    """Create a lease and return it as soon as a condition refuses it."""
    stack = bench.stack
    name = stack.name("bad")
    stack.kube.create("leases", configs.lease(name, client or bench.client.name, None, **spec))
    kinds = ("Unsatisfiable", "Invalid")
    return stack.kube.until(
        "leases", name, lambda lease: any(condition(lease, kind).get("status") == "True" for kind in kinds), "refused"
    )


def matching(bench: Bench) -> Json:
    return {"matchLabels": bench.selector}


async def test_a_duration_in_days_is_invalid_and_says_so(bench: Bench) -> None:
    async with bench.a_valid_lease_is_granted_meanwhile():
        lease = bad_lease(bench, selector=matching(bench), duration="1d")
        said = condition(lease, "Invalid")
        assert said["reason"] == "InvalidDuration"
        assert "1d" in said["message"]
        assert "duration" in said["message"]


async def test_an_operator_that_does_not_exist_is_an_invalid_selector(bench: Bench) -> None:
    async with bench.a_valid_lease_is_granted_meanwhile():
        expressions = {"matchExpressions": [{"key": "board", "operator": "Near", "values": ["x"]}]}
        said = condition(bad_lease(bench, selector=expressions, duration="5m"), "Invalid")
        assert said["reason"] == "InvalidSelector"
        assert "Near" in said["message"]


async def test_a_client_that_does_not_exist_gets_a_condition(bench: Bench) -> None:
    async with bench.a_valid_lease_is_granted_meanwhile():
        lease = bad_lease(bench, client="nobody", selector=matching(bench), duration="5m")
        assert "nobody" in lease["status"]["conditions"][-1]["message"]


async def test_an_unknown_pin_in_a_manifest_waits_and_says_so(bench: Bench) -> None:
    async with bench.a_valid_lease_is_granted_meanwhile():
        lease = bad_lease(bench, exporterRef={"name": "no-such-board"}, duration="5m")
        assert condition(lease, "Unsatisfiable")["reason"] == "ExporterNotFound"
        assert not ended(lease)


async def test_a_policy_with_an_unknown_operator_harms_nobody_else(bench: Bench) -> None:
    """A policy that cannot be read grants nothing, says so, and the readable ones go on to grant."""
    stack = bench.stack
    good = policy(stack.name("policy"), {"matchLabels": bench.selector})
    bad = policy(stack.name("policy"), {"matchExpressions": [{"key": "board", "operator": "Near", "values": ["x"]}]})
    stack.kube.create("exporteraccesspolicies", good)
    try:
        async with bench.a_valid_lease_is_granted_meanwhile():
            stack.kube.create("exporteraccesspolicies", bad)
        stack.kube.delete("exporteraccesspolicies", bad["metadata"]["name"])
        bad["spec"]["policies"][0]["maximumDuration"] = "7d"
        bad["spec"]["exporterSelector"] = {}
        async with bench.a_valid_lease_is_granted_meanwhile():
            stack.kube.create("exporteraccesspolicies", bad)
        await said_of_the_policy(stack, bad["metadata"]["name"])
    finally:
        for item in stack.kube.list("exporteraccesspolicies"):
            stack.kube.delete("exporteraccesspolicies", item["metadata"]["name"])


async def said_of_the_policy(stack: Stack, name: str) -> None:
    def look() -> bool:
        return any(event["involvedObject"].get("name") == name for event in stack.kube.list("events"))

    eventually(look, f"an Event about policy {name}")


def policy(name: str, exporters: Json) -> Json:
    rule: Json = {"priority": 0, "from": [{"clientSelector": {}}]}
    return {
        "apiVersion": configs.API_VERSION,
        "kind": "ExporterAccessPolicy",
        "metadata": {"name": name},
        "spec": {"exporterSelector": exporters, "policies": [rule]},
    }


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"clientRef": {"name": "x"}}, id="neither selector nor pin"),
        pytest.param({"selector": {"matchLabels": {"a": "b"}}}, id="no client"),
        pytest.param({"clientRef": {"name": "x"}, "selector": {"matchLabels": {"a": 1}}}, id="a number for a label"),
        pytest.param(
            {"clientRef": {"name": "x"}, "selector": {"matchLabels": {"a": "b"}}, "beginTime": "tomorrow"},
            id="a time that is none",
        ),
    ],
)
async def test_a_malformed_manifest_is_refused_by_the_api_server(bench: Bench, spec: Json) -> None:
    item = {"apiVersion": configs.API_VERSION, "kind": "Lease", "metadata": {"name": bench.stack.name("bad")}}
    async with bench.a_valid_lease_is_granted_meanwhile():
        with pytest.raises(Refused) as refused:
            bench.stack.kube.create("leases", {**item, "spec": spec})
        assert refused.value.status == 422 or refused.value.reason in {"BadRequest", "Invalid"}
        done = bench.stack.kubectl("apply", "-f", "-", stdin=yaml.safe_dump({**item, "spec": spec}))
        assert done.status == 1
        assert "spec" in done.stderr
