"""The operator's brain against an API server that delays, loses and reorders: whatever happens, nothing is held twice,
nothing is forgotten, and once things calm down all is as it should be.

The server is a model with versions, conflicts and watches; the brain is the real one, on a clock that the test moves.
"""

import asyncio
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lablease import clock
from lablease.errors import AlreadyExists, LableaseError, NotFound, OutcomeUnknown, Stale
from lablease.kube.resources import Resource
from lablease.model.client import parse_client
from lablease.model.durations import format_time
from lablease.model.exporter import parse_exporter
from lablease.model.keys import Key
from lablease.model.lease import parse_lease
from lablease.model.policy import parse_policy
from lablease.model.testing import HOUR, NAMESPACE, NOON, Raw, raw_exporter, raw_lease, raw_policy
from lablease.model.testing import rule as policy_rule
from lablease.operator.brain import Brain
from lablease.operator.tokens import Issuer, Keeper
from lablease.operator.writes import RESOURCES, Kind
from lablease.rules.holding import held
from lablease.rules.matching import choices, request_of
from lablease.rules.policy import Access
from lablease.rules.times import check, fixed_end, planned_end
from lablease.rules.world import World
from lablease.tokens.identity import SigningKey

KINDS = {resource: kind for kind, resource in RESOURCES.items()}
SIGNING_KEY = SigningKey.generate()
BOARDS = ("rpi4", "x86")
CLIENTS = ("alice", "bob")


def merge(target: Raw, patch: Raw) -> Raw:
    """RFC 7386."""
    result: Raw = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            inner: Any = result.get(key)
            result[key] = merge(cast("Raw", inner) if isinstance(inner, dict) else {}, cast("Raw", value))
        else:
            result[key] = value
    return result


class Server:
    """Objects with versions, and what a watch of each kind would say."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str], Raw] = {}
        self.version = 100
        self.events: dict[Kind, list[tuple[bool, Raw]]] = {kind: [] for kind in Kind}
        self.now = NOON
        self.grants: dict[str, int] = {}

    def _stamp(self, kind: Kind, raw: Raw, *, gone: bool = False) -> Raw:
        self.version += 1
        raw["metadata"]["resourceVersion"] = str(self.version)
        self.events[kind].append((gone, copy.deepcopy(raw)))
        return copy.deepcopy(raw)

    def create(self, kind: Kind, raw: Raw) -> Raw:
        name = raw["metadata"]["name"]
        if (kind, name) in self.objects:
            raise AlreadyExists(kind, name)
        stored = copy.deepcopy(raw)
        stored["metadata"] |= {
            "namespace": NAMESPACE,
            "uid": f"uid-{self.version}",
            "generation": 1,
            "creationTimestamp": format_time(self.now.replace(microsecond=0)),
        }
        self.objects[kind, name] = stored
        return self._stamp(kind, stored)

    def patch(self, kind: Kind, name: str, patch: Raw, *, status: bool) -> Raw:
        if (kind, name) not in self.objects:
            raise NotFound(kind, name)
        old = self.objects[kind, name]
        wanted = patch.get("metadata", {}).get("resourceVersion")
        if wanted is not None and wanted != old["metadata"]["resourceVersion"]:
            raise Stale("changed")
        new = copy.deepcopy(old)
        if status:
            new["status"] = merge(old.get("status", {}), patch["status"])
        else:
            new = merge(old, {key: value for key, value in patch.items() if key != "status"})
            if new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] += 1
        assert new != old, f"a write without effect: {kind} {name} {patch}"
        self.objects[kind, name] = new
        return self._stamp(kind, new)

    def delete(self, kind: Kind, name: str, uid: str | None = None) -> None:
        old = self.objects.get((kind, name))
        if old is None:
            raise NotFound(kind, name)
        if uid is not None and old["metadata"]["uid"] != uid:
            raise Stale("another object")
        del self.objects[kind, name]
        self._stamp(kind, old, gone=True)

    def all(self, kind: Kind) -> list[Raw]:
        return [raw for (found, _), raw in self.objects.items() if found is kind]


@dataclass
class Call:
    """A write on its way."""

    apply: Callable[[], Raw | None]
    answer: "asyncio.Future[Raw | None]"
    what: str


class SlowApi:
    """What the brain sees of the server: reads at once, writes when the test says so."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.calls: list[Call] = []

    async def get(self, resource: Resource, key: Key) -> Raw:
        found = self._server.objects.get((KINDS[resource], key.name))
        if found is None:
            raise NotFound(resource.kind, key.name)
        return copy.deepcopy(found)

    async def create(self, resource: Resource, namespace: str, body: Raw) -> Raw | None:
        return await self._later(lambda: self._server.create(KINDS[resource], body), f"create {resource.kind}")

    async def patch(self, resource: Resource, key: Key, body: Raw, *, subresource: str | None = None) -> Raw | None:
        kind, status = KINDS[resource], subresource == "status"
        return await self._later(
            lambda: self._server.patch(kind, key.name, body, status=status), f"{kind} {key.name} {body}"
        )

    async def delete(self, resource: Resource, key: Key, *, uid: str | None = None) -> None:
        def apply() -> None:
            self._server.delete(KINDS[resource], key.name, uid)

        await self._later(apply, f"delete {resource.kind} {key.name}")

    async def _later(self, apply: Callable[[], Raw | None], what: str) -> Raw | None:
        call = Call(apply, asyncio.get_running_loop().create_future(), what)
        self.calls.append(call)
        return await call.answer


class Lab(RuleBasedStateMachine):
    """People, exporters, the network and time do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.server = Server()
        self.late: list[Call] = []
        self.numbers = iter(range(1_000_000))
        self.patcher = pytest.MonkeyPatch()
        self.patcher.setattr(clock, "utc_now", lambda: self.server.now)
        for name in CLIENTS:
            self.server.create(Kind.CLIENT, {"metadata": {"name": name, "labels": {"team": name}}, "spec": {}})
        self.start()

    # The operator's process

    def start(self) -> None:
        self.api = SlowApi(self.server)
        api: Any = self.api
        keeper = Keeper(Issuer(SIGNING_KEY, "lab:1", timedelta(days=365)))
        self.brain = Brain(api, keeper)
        for kind in (Kind.CLIENT, Kind.POLICY, Kind.EXPORTER, Kind.SECRET, Kind.LEASE):
            self.server.events[kind].clear()
            for raw in self.server.all(kind):
                self.brain.observe(kind, copy.deepcopy(raw))
        self.task = self.loop.create_task(self.brain.run())
        self.spin()

    def spin(self) -> None:
        async def turns() -> None:
            for _ in range(30):
                await asyncio.sleep(0)

        self.brain.wake()
        self.loop.run_until_complete(turns())
        if self.task.done():
            self.task.result()

    def teardown(self) -> None:
        try:
            self.calm_down()
        finally:
            self.task.cancel()
            self.loop.run_until_complete(asyncio.gather(self.task, return_exceptions=True))
            self.loop.close()
            self.patcher.undo()

    @rule()
    def crash(self) -> None:
        """kill -9: what was sent may still arrive."""
        self.task.cancel()
        self.loop.run_until_complete(asyncio.gather(self.task, return_exceptions=True))
        self.late += self.api.calls
        self.start()

    # The network

    @precondition(lambda self: self.api.calls)
    @rule(which=st.integers(0, 31), how=st.sampled_from(("ok", "ok", "ok", "lost", "dropped", "late")))
    def settle(self, which: int, how: str) -> None:
        call = self.api.calls.pop(which % len(self.api.calls))
        outcome: Raw | LableaseError | None = OutcomeUnknown("no answer")
        if how in ("ok", "lost"):
            try:
                done = call.apply()
            except LableaseError as error:
                done = None
                outcome = error if how == "ok" else outcome
            else:
                outcome = done if how == "ok" else outcome
        if how == "late":
            self.late.append(call)
        if not call.answer.done():
            if isinstance(outcome, LableaseError):
                call.answer.set_exception(outcome)
            else:
                call.answer.set_result(outcome)
        self.spin()

    @precondition(lambda self: self.late)
    @rule(which=st.integers(0, 31))
    def arrive_late(self, which: int) -> None:
        call = self.late.pop(which % len(self.late))
        try:
            call.apply()
        except LableaseError:
            assert call.what

    @rule(
        kind=st.sampled_from((Kind.LEASE, Kind.LEASE, Kind.EXPORTER, Kind.CLIENT, Kind.POLICY, Kind.SECRET)),
        count=st.integers(1, 99),
    )
    def deliver(self, kind: Kind, count: int) -> None:
        for _ in range(min(count, len(self.server.events[kind]))):
            gone, raw = self.server.events[kind].pop(0)
            self.brain.observe(kind, raw, gone=gone)
        self.spin()

    @rule(kind=st.sampled_from((Kind.LEASE, Kind.EXPORTER, Kind.CLIENT, Kind.POLICY, Kind.SECRET)))
    def gap(self, kind: Kind) -> None:
        """410: events are lost, and everything is listed anew."""
        self.server.events[kind].clear()
        raws = self.server.all(kind)
        for raw in raws:
            self.brain.observe(kind, copy.deepcopy(raw))
        keys = [Key(NAMESPACE, raw["metadata"]["name"]) for raw in raws]
        self.brain.missing(kind, None, keys, self.server.version)
        self.spin()

    @rule(seconds=st.sampled_from((0.001, 1, 4, 15, 600, 3600, 7200)))
    def pass_time(self, seconds: float) -> None:
        self.server.now += timedelta(seconds=seconds)
        self.spin()

    # People

    @rule(
        board=st.sampled_from(("rpi4", "rpi4", "x86")),
        who=st.sampled_from(("alice", "alice", "bob", "bob", "nobody")),
        duration=st.sampled_from(("1h", "1h", "30m", "30m", "2h", "1d")),
        more=st.sampled_from(("", "", "pin", "front end", "begin", "ttl", "patience", "end")),
    )
    def create_lease(self, board: str, who: str, duration: str, more: str) -> None:
        raw = raw_lease(
            meta={"name": f"l{next(self.numbers)}", "labels": {}},
            clientRef={"name": who},
            selector={"matchLabels": {"board": board}},
            duration=duration,
        )
        match more:
            case "pin":
                raw["spec"]["exporterRef"] = {"name": "e0"}
            case "front end":
                raw["metadata"]["labels"]["lablease.dev/origin"] = "frontend"
            case "begin":
                raw["spec"]["beginTime"] = format_time(self.server.now + HOUR)
            case "end":
                raw["spec"] |= {"endTime": format_time(self.server.now + HOUR)}
                del raw["spec"]["duration"]
            case "ttl":
                raw["spec"]["ttlSecondsAfterEnded"] = 60
            case "patience":
                raw["spec"]["waitTimeout"] = "10m"
            case _:
                pass
        self.server.create(Kind.LEASE, raw)

    def some(self, kind: Kind, which: int) -> Raw | None:
        found = self.server.all(kind)
        return found[which % len(found)] if found else None

    @rule(
        which=st.integers(0, 31),
        how=st.sampled_from(("release", "kubectl", "longer", "broken", "give", "relabel", "delete")),
    )
    def change_lease(self, which: int, how: str) -> None:
        raw = self.some(Kind.LEASE, which)
        if raw is None:
            return
        name = raw["metadata"]["name"]
        patches: dict[str, Raw] = {
            "release": {"metadata": {"labels": {"jumpstarter.dev/lease-ended": "true"}}, "spec": {"release": True}},
            "kubectl": {"spec": {"release": True}},
            "longer": {"spec": {"duration": "3h"}},
            "broken": {"spec": {"duration": "3d"}},
            "give": {"spec": {"clientRef": {"name": "bob"}}},
            "relabel": {"spec": {"selector": {"matchLabels": {"board": "x86"}}}},
        }
        if how == "delete":
            self.server.delete(Kind.LEASE, name)
        elif merge(raw, patches[how]) != raw:
            self.server.patch(Kind.LEASE, name, patches[how], status=False)

    @initialize(count=st.integers(1, 3))
    def first_exporters(self, count: int) -> None:
        for number in range(count):
            self.plug_in(number, "rpi4")
        for kind in Kind:
            self.deliver(kind, 9)

    @rule(which=st.integers(0, 3), board=st.sampled_from(BOARDS))
    def plug_in(self, which: int, board: str) -> None:
        name = f"e{which}"
        if (Kind.EXPORTER, name) in self.server.objects:
            return
        raw = raw_exporter(meta={"name": name, "labels": {"board": board}}, spec={"enabled": True})
        self.server.create(Kind.EXPORTER, raw)

    @rule(
        which=st.integers(0, 3),
        how=st.sampled_from(
            ("Available", "LeaseReady", "AfterLeaseHookFailed", "away", "back", "off", "on", "board", "delete")
        ),
    )
    def change_exporter(self, which: int, how: str) -> None:
        raw = self.server.objects.get((Kind.EXPORTER, f"e{which}"))
        if raw is None:
            return
        session = {"frontend": "f1", "id": f"s{which}", "since": format_time(NOON)}
        patches: dict[str, Raw] = {
            "away": {"status": {"session": None}},
            "back": {"status": {"session": session}},
            "off": {"spec": {"enabled": False}},
            "on": {"spec": {"enabled": True}},
            "board": {"metadata": {"labels": {"board": "x86"}}},
        }
        patch = patches.get(how, {"status": {"exporterStatus": how}})
        if how == "delete":
            self.server.delete(Kind.EXPORTER, raw["metadata"]["name"])
        elif merge(raw, patch) != raw:
            self.server.patch(Kind.EXPORTER, raw["metadata"]["name"], patch, status="status" in patch)

    @rule(how=st.sampled_from(("only bob", "short", "broken", "none", "none", "none")))
    def change_policy(self, how: str) -> None:
        if (Kind.POLICY, "p") in self.server.objects:
            self.server.delete(Kind.POLICY, "p")
        rules = {"only bob": policy_rule({"team": "bob"}), "short": policy_rule(maximumDuration="1h")}
        if how != "none":
            self.server.create(Kind.POLICY, raw_policy("p", rules.get(how, policy_rule(maximumDuration="9d"))))

    @rule()
    def rotate(self) -> None:
        if (Kind.SECRET, "alice-client") in self.server.objects:
            self.server.delete(Kind.SECRET, "alice-client")

    # What must always hold

    @invariant()
    def nobody_shares_an_exporter(self) -> None:
        users: dict[str, str] = {}
        for raw in self.server.all(Kind.LEASE):
            lease = parse_lease(raw)
            if lease.status.exporter is None or lease.status.ended:
                continue
            there = self.server.objects.get((Kind.EXPORTER, lease.status.exporter))
            if there is None:
                continue
            if held(parse_exporter(there), lease):
                assert users.setdefault(lease.status.exporter, lease.key.name) == lease.key.name

    @invariant()
    def grants_only_grow(self) -> None:
        for raw in self.server.all(Kind.EXPORTER):
            uid, grant = raw["metadata"]["uid"], raw["status"].get("grant", 0)
            assert grant >= self.server.grants.get(uid, 0)
            self.server.grants[uid] = grant

    @invariant()
    def an_end_is_final(self) -> None:
        for raw in self.server.all(Kind.LEASE):
            status = raw.get("status", {})
            if status.get("ended"):
                assert "endTime" in status
                assert status["conditions"][-1]["type"] in ("Ready", "Unsatisfiable", "Invalid")

    # And once things calm down

    def calm_down(self) -> None:
        while self.late:
            self.arrive_late(0)
        for _ in range(400):
            for kind in Kind:
                if self.server.events[kind]:
                    self.deliver(kind, 1_000)
            if not self.api.calls:
                self.spin()
                if not self.api.calls and not any(self.server.events.values()):
                    break
            else:
                self.settle(0, "ok")
        else:
            raise AssertionError(f"never calm: {[call.what for call in self.api.calls]}")
        self.all_is_as_it_should_be()

    @rule()
    def look_when_calm(self) -> None:
        self.calm_down()

    def all_is_as_it_should_be(self) -> None:
        now = self.server.now
        world = World(NAMESPACE)
        for raw in self.server.all(Kind.EXPORTER):
            world.put_exporter(parse_exporter(raw))
        for lease in self.leases():
            world.put_lease(lease)
        self.slots_are_right(world)
        self.ends_are_kept(now)
        self.nobody_waits_beside_an_idle_exporter(world, now)
        self.credentials_are_published()

    def leases(self) -> Iterator[Any]:
        for raw in self.server.all(Kind.LEASE):
            lease = parse_lease(raw)
            if not lease.status.ended:
                yield lease

    def slots_are_right(self, world: World) -> None:
        for exporter in world.exporters.values():
            lease = world.leases.get(exporter.lease or "")
            if exporter.lease is not None and not held(exporter, lease):
                assert exporter.session is not None, "an exporter that is away is freed"
                assert exporter.status in ("LeaseReady", "AfterLeaseHookFailed"), "a clean exporter is freed"
        for lease in world.leases.values():
            if lease.status.exporter is not None:
                assert held(world.exporters[lease.status.exporter], lease)

    def ends_are_kept(self, now: datetime) -> None:
        for lease in self.leases():
            end = planned_end(lease)
            assert end is None or end > now
            assert lease.status.conditions, "nobody is left without a word"
            assert not lease.spec.release
            if lease.status.exporter is None and not lease.problems:
                fixed = fixed_end(lease.spec)
                assert fixed is None or fixed > now
        for raw in self.server.all(Kind.LEASE):
            if raw["status"]["ended"]:
                assert raw["metadata"]["labels"]["jumpstarter.dev/lease-ended"] == "true"

    def nobody_waits_beside_an_idle_exporter(self, world: World, now: datetime) -> None:
        clients = {raw["metadata"]["name"]: parse_client(raw) for raw in self.server.all(Kind.CLIENT)}
        access = Access([parse_policy(raw) for raw in self.server.all(Kind.POLICY)])
        idle = {
            name
            for name, exporter in world.exporters.items()
            if exporter.lease is None
            and exporter.session is not None
            and exporter.status == "Available"
            and exporter.registered
        }
        waiting = [lease for lease in world.leases.values() if lease.status.exporter is None and not lease.problems]
        if any(lease.spec.begin is not None for lease in waiting):
            return
        for lease in waiting:
            check(lease.spec)
            client = clients.get(lease.spec.client)
            if client is not None:
                mine = choices(request_of(lease, client, access), world, access)
                assert not mine.keys() & idle, f"{lease.key.name} waits beside {mine.keys() & idle}"

    def credentials_are_published(self) -> None:
        for kind, suffix in ((Kind.CLIENT, "client"), (Kind.EXPORTER, "exporter")):
            for raw in self.server.all(kind):
                name = f"{raw['metadata']['name']}-{suffix}"
                assert raw["status"]["credential"]["name"] == name
                assert raw["status"]["endpoint"] == "lab:1"
                assert (Kind.SECRET, name) in self.server.objects
        owners = {(Kind.CLIENT, name) for name in CLIENTS} | {
            (Kind.EXPORTER, raw["metadata"]["name"]) for raw in self.server.all(Kind.EXPORTER)
        }
        assert len(self.server.all(Kind.SECRET)) == len(owners)


Lab.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLab = Lab.TestCase
