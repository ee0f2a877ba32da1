"""Versions, the pool of writes, settings, and what a look hands out."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lablease.model.keys import Key
from lablease.model.testing import HOUR, NOON, client, conditions, exporter, lease, metadata
from lablease.operator.frontends import Beat, parse_beat
from lablease.operator.look import Look
from lablease.operator.plane import Backoffs
from lablease.operator.realm import Realm
from lablease.operator.settings import Settings
from lablease.operator.versions import Versions
from lablease.operator.writes import IN_FLIGHT, Kind, Pool, Ref, Urgency, Verb, Write
from lablease.rules.world import World

L1 = Ref(Kind.LEASE, Key("lab", "l1"))


class TestVersions:
    def test_only_what_is_newer_counts(self) -> None:
        versions = Versions()
        assert versions.advance(L1, 5)
        assert not versions.advance(L1, 5)
        assert not versions.advance(L1, 4)
        assert versions.advance(L1, 6)

    def test_a_late_answer_does_not_bring_back_what_was_deleted(self) -> None:
        versions = Versions()
        versions.advance(L1, 5)
        assert versions.advance(L1, 7, gone=True)
        assert not versions.advance(L1, 6)
        assert not versions.advance(L1, 7, gone=True)
        assert versions.advance(L1, 8)

    def test_what_a_newer_list_lacks_is_missing(self) -> None:
        versions = Versions()
        versions.advance(L1, 5)
        versions.advance(Ref(Kind.LEASE, Key("lab", "l2")), 9)
        versions.advance(Ref(Kind.LEASE, Key("other", "l3")), 5)
        versions.advance(Ref(Kind.CLIENT, Key("lab", "c")), 5)
        assert versions.missing(Kind.LEASE, "lab", frozenset(), 8) == [L1.key]
        assert set(versions.missing(Kind.LEASE, None, frozenset({L1.key}), 9)) == {Key("lab", "l2"), Key("other", "l3")}


class TestThePool:
    async def test_the_most_urgent_goes_first_and_no_more_than_allowed_are_in_flight(self) -> None:
        started: list[Write] = []
        gate = asyncio.Event()

        async def work(write: Write) -> None:
            started.append(write)
            await gate.wait()

        pool = Pool(work)
        for _ in range(IN_FLIGHT):
            pool.put(Write(L1, Verb.STATUS, Urgency.WORD))
        task = asyncio.create_task(pool.run())
        while len(started) < IN_FLIGHT:
            await asyncio.sleep(0)
        cancelled = Write(L1, Verb.STATUS, Urgency.END)
        late = [Write(L1, Verb.STATUS, urgency) for urgency in (Urgency.WORD, Urgency.GRANT, Urgency.END)]
        for write in (*late, cancelled):
            pool.put(write)
        cancelled.cancelled = True
        assert len(started) == IN_FLIGHT
        gate.set()
        await pool.settled()
        task.cancel()
        assert [write.urgency for write in started[IN_FLIGHT:]] == [Urgency.END, Urgency.GRANT, Urgency.WORD]
        assert cancelled not in started


def settings(*flags: str) -> Settings:
    return Settings(_cli_parse_args=list(flags))  # type: ignore[call-arg]


class TestSettings:
    def test_flags(self) -> None:
        found = settings("--namespace", "a", "--namespace", "b", "--token-lifetime", "48h", "--metrics", "[::1]:0")
        assert (found.namespace, found.token_lifetime) == (["a", "b"], timedelta(hours=48))
        assert found.metrics == "[::1]:0"

    def test_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LABLEASE_OPERATOR_NAMESPACE", '["lab"]')
        monkeypatch.setenv("LABLEASE_OPERATOR_ENDPOINT", "lab.example:443")
        monkeypatch.setenv("KUBECONFIG", "/x")
        found = settings()
        assert (found.namespace, found.endpoint, found.kubeconfig) == (["lab"], "lab.example:443", Path("/x"))

    @pytest.mark.parametrize(
        "flags",
        [
            ("--endpoint", "lab"),
            ("--metrics", ":80"),
            ("--metrics", "a:99999"),
            ("--token-lifetime", "1d"),
            ("--token-lifetime", "1s"),
        ],
    )
    def test_what_is_not_usable_is_refused(self, flags: tuple[str, str]) -> None:
        with pytest.raises(ValidationError):
            settings(*flags)


def test_kopf_never_runs_out_of_patience() -> None:
    pauses = iter(Backoffs())
    assert [next(pauses) for _ in range(1000)][-1] == 0.5


def test_only_the_leases_of_front_ends_are_heartbeats() -> None:
    body = {"spec": {"renewTime": "2030-01-31T12:00:00.000000Z"}}
    assert parse_beat({"metadata": {"name": "lablease-frontend-f1"}} | body) == Beat(
        "f1", "2030-01-31T12:00:00.000000Z"
    )
    assert parse_beat({"metadata": {"name": "kube-scheduler"}} | body) is None


class TestALook:
    def realm(self) -> Realm:
        made = Realm(World("lab"))
        made.client_seen(client())
        online = conditions(("Online", "True", "Seen"), ("Registered", "True", "Register"))
        made.exporter_seen(exporter(conditions=online))
        return made

    def look(self, realm: Realm, now: datetime = NOON) -> list[Write]:
        return Look(realm, now, lambda kind, name, when: None).run()

    def test_gives_a_free_exporter_to_who_waits_and_leaves_the_lease_alone(self) -> None:
        realm = self.realm()
        realm.lease_seen(lease())
        (write,) = self.look(realm)
        assert write.ref == Ref(Kind.EXPORTER, Key("lab", "e1"))
        assert write.body == {
            "metadata": {"resourceVersion": "1"},
            "status": {"leaseRef": {"name": "l1"}, "grant": int(NOON.timestamp() * 1000)},
        }

    def test_decides_nothing_twice(self) -> None:
        realm = self.realm()
        realm.lease_seen(lease())
        assert len(self.look(realm)) == 1
        realm.everything_is_dirty()
        assert self.look(realm) == []

    def test_gives_one_exporter_to_one_of_many(self) -> None:
        realm = self.realm()
        for number in range(20):
            realm.lease_seen(lease(f"l{number:02}"))
        writes = self.look(realm)
        grants = [write.promise for write in writes if write.promise]
        assert grants == ["l00"]
        words = [write for write in writes if write.urgency is Urgency.WORD]
        assert len(words) == 19
        assert {write.body["status"]["conditions"][0]["reason"] for write in words} == {"NotAvailable"}

    def test_a_booking_that_is_released_keeps_nothing_any_more(self) -> None:
        realm = self.realm()
        realm.lease_seen(lease("booked", beginTime="2030-01-31T12:10:00Z", duration="1h"))
        self.look(realm)
        realm.writing.clear()
        realm.lease_seen(lease("waits", duration="2h"))
        assert [write.promise for write in self.look(realm) if write.promise] == []
        realm.writing.clear()
        realm.lease_seen(lease("booked", beginTime="2030-01-31T12:10:00Z", duration="1h", release=True))
        assert [write.promise for write in self.look(realm) if write.promise] == ["waits"]

    def test_hands_a_freed_exporter_over_in_the_write_that_frees_it(self) -> None:
        realm = self.realm()
        status: dict[str, Any] = {"ended": True, "endTime": "2030-01-31T12:00:00Z"}
        online = conditions(("Online", "True", "Seen"), ("Registered", "True", "Register"))
        realm.exporter_seen(exporter(leaseRef={"name": "old"}, grant=3, conditions=online))
        realm.lease_seen(
            lease("old", meta=metadata("old", labels={"jumpstarter.dev/lease-ended": "true"}), status=status)
        )
        realm.lease_seen(lease("new"))
        (write,) = self.look(realm)
        assert write.body["status"]["leaseRef"] == {"name": "new"}

    def test_frees_an_exporter_that_nobody_waits_for(self) -> None:
        realm = self.realm()
        online = conditions(("Online", "True", "Seen"), ("Registered", "True", "Register"))
        realm.exporter_seen(exporter(leaseRef={"name": "gone"}, grant=3, conditions=online))
        (write,) = self.look(realm)
        assert write.body == {"metadata": {"resourceVersion": "1"}, "status": {"leaseRef": None}}

    def test_says_when_an_exporter_is_stuck(self) -> None:
        realm = self.realm()
        realm.exporter_seen(exporter(leaseRef={"name": "gone"}, exporterStatus="AfterLeaseHook"))
        self.look(realm)
        realm.writing.clear()
        realm.dirty_exporters["e1"] = None
        (write,) = self.look(realm, NOON + HOUR)
        assert write.body["status"]["conditions"][-1]["type"] == "Stuck"

    def test_writes_the_label_only_where_an_author_did_not(self) -> None:
        realm = self.realm()
        status: dict[str, Any] = {"ended": True, "endTime": "2030-01-31T12:00:00Z"}
        realm.lease_seen(lease("bare", status=status))
        realm.lease_seen(
            lease("done", meta=metadata("done", labels={"jumpstarter.dev/lease-ended": "true"}), status=status)
        )
        (write,) = self.look(realm)
        assert (write.verb, write.ref.key.name) == (Verb.PATCH, "bare")

    def test_deletes_what_retention_is_done_with(self) -> None:
        realm = self.realm()
        status: dict[str, Any] = {"ended": True, "endTime": "2030-01-31T12:00:00Z"}
        labelled = metadata("l1", labels={"jumpstarter.dev/lease-ended": "true"})
        realm.lease_seen(lease(meta=labelled, status=status, ttlSecondsAfterEnded=60))
        assert self.look(realm, NOON + timedelta(seconds=59)) == []
        realm.over["l1"] = None
        (write,) = self.look(realm, NOON + timedelta(seconds=60))
        assert (write.verb, write.uid) == (Verb.DELETE, "uid-l1")
