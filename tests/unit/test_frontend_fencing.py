"""What routers are told, derived from caches that are filled by hand."""

from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from lablease.grpc_frontend.auth import Authenticator
from lablease.grpc_frontend.control import from_grant, to_request
from lablease.grpc_frontend.fencing import Fencing, Moved, Over, Runs
from lablease.grpc_frontend.figures import Figures
from lablease.grpc_frontend.gate import Gate
from lablease.grpc_frontend.lab import Lab
from lablease.grpc_frontend.leases import LeaseDesk
from lablease.grpc_frontend.parts import Parts
from lablease.grpc_frontend.places import Places
from lablease.grpc_frontend.services.client import client_service
from lablease.grpc_frontend.services.controller import controller_service
from lablease.grpc_frontend.sessions import Sessions
from lablease.grpc_frontend.store import Store
from lablease.grpc_frontend.tunnels import Listeners, WaitingHalves
from lablease.kube.api import KubeApi
from lablease.model.grant import Grant
from lablease.model.keys import Key
from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2

BOARD = Key("lab", "board")


class Cached:
    """A store without an API server; each object that is put in is newer than the one before."""

    def __init__(self) -> None:
        self.store = Store(cast("KubeApi", None), "lab", "lablease-system")
        self.fencing = Fencing(self.store)
        self.told: list[Key] = []
        self.fencing.subscribe(self.told.append)
        self._version = 0

    def _meta(self, name: str) -> dict[str, Any]:
        self._version += 1
        return {"name": name, "namespace": "lab", "uid": name, "resourceVersion": str(self._version)}

    def exporter(self, lease: str | None, grant: int) -> None:
        status = {"grant": grant} | ({"leaseRef": {"name": lease}} if lease else {})
        self.store.exporters.insert({"metadata": self._meta("board"), "status": status})

    def lease(self, name: str, grant: int, *, client: str = "alice", ended: bool = False) -> None:
        status = {"ended": ended} | ({"grant": grant, "exporterRef": {"name": "board"}} if grant else {})
        spec = {"clientRef": {"name": client}, "selector": {"matchLabels": {"a": "b"}}, "duration": "1h"}
        begun = {"beginTime": "2026-03-01T12:00:00Z"} if grant else {}
        self.store.leases.insert({"metadata": self._meta(name), "spec": spec, "status": status | begun})

    def said(self) -> list[tuple[type, int, str]]:
        statements = self.fencing.statements(BOARD)
        return [(type(item), item.grant.number, item.grant.client) for item in statements]


@pytest.fixture
def cached() -> Cached:
    return Cached()


def test_nothing_is_said_of_an_exporter_that_never_was_leased(cached: Cached) -> None:
    cached.exporter(None, 0)
    assert cached.said() == []


def test_a_grant_runs_until_its_planned_end(cached: Cached) -> None:
    cached.lease("a", 0)
    cached.exporter("a", 7)
    assert cached.said() == []
    cached.lease("a", 7)
    assert cached.said() == [(Runs, 7, "alice")]
    (runs,) = cached.fencing.statements(BOARD)
    assert runs.grant.end is not None
    assert runs.grant.end.isoformat() == "2026-03-01T13:00:00+00:00"


def test_the_end_revokes_at_once_although_the_slot_still_names_the_lease(cached: Cached) -> None:
    cached.exporter("a", 7)
    cached.lease("a", 7)
    cached.told.clear()
    cached.lease("a", 7, ended=True)
    assert cached.told == [BOARD]
    assert cached.said() == [(Over, 7, "-")]


def test_an_empty_slot_revokes_the_grant_that_it_had(cached: Cached) -> None:
    cached.exporter(None, 7)
    assert cached.said() == [(Over, 7, "-")]


def test_the_next_grant_runs_and_the_one_before_stays_revoked(cached: Cached) -> None:
    cached.exporter(None, 7)
    cached.fencing.statements(BOARD)
    cached.exporter("b", 9)
    assert cached.said() == [(Over, 7, "-")]
    cached.lease("b", 9)
    assert cached.said() == [(Over, 7, "-"), (Runs, 9, "alice")]


def test_a_lease_that_the_cache_does_not_have_yet_is_not_revoked(cached: Cached) -> None:
    cached.exporter("unknown", 7)
    assert cached.said() == []


def test_a_transfer_refuses_the_old_client_and_a_transfer_back_the_other(cached: Cached) -> None:
    cached.exporter("a", 7)
    cached.lease("a", 7)
    cached.lease("a", 7, client="bob")
    assert cached.said() == [(Moved, 7, "alice"), (Runs, 7, "bob")]
    cached.lease("a", 7, client="alice")
    assert cached.said() == [(Moved, 7, "bob"), (Runs, 7, "alice")]


def test_statements_become_messages() -> None:
    grant = Grant("lab", "board", "a", 7, "alice")
    over = to_request(Over(grant)).revocation
    assert from_grant(over.grant) == grant
    assert not over.client_only
    assert to_request(Moved(grant)).revocation.client_only
    assert not to_request(Runs(grant)).planned_end.HasField("end")


def test_every_method_of_both_services_has_a_handler(cached: Cached) -> None:
    store = cached.store
    authenticator = Authenticator(store)
    parts = Parts(
        store=store,
        authenticator=authenticator,
        leases=LeaseDesk(store),
        sessions=Sessions(store, "f"),
        listeners=Listeners(store.bells),
        waiting=WaitingHalves(store.bells),
        routers=tuple,
        router_key=b"",
    )
    gate = Gate(store, authenticator, Figures(CollectorRegistry()))
    handlers = (controller_service(gate, parts), client_service(gate, parts, Lab(store), Places(store)))
    for handler, module in zip(handlers, (jumpstarter_pb2, client_pb2), strict=True):
        name = cast("Any", handler).service_name()
        service = module.DESCRIPTOR.services_by_name[name.rpartition(".")[2]]
        for method in service.methods:
            details = type("Details", (), {"method": f"/{name}/{method.name}", "invocation_metadata": ()})()
            found = cast("Any", handler).service(details)
            assert found is not None, method.name
            assert (found.request_streaming, found.response_streaming) == (
                method.client_streaming,
                method.server_streaming,
            )
