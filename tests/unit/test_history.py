"""The checker against histories made by hand: a clean one, and one for each way in which a sentence can be broken."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lablease.obs.audit import Access, DeviceCall, Unreadable, read_lines
from lablease.obs.contract import check
from lablease.obs.counts import Cost
from lablease.obs.history import judge, main
from lablease.obs.replay import Broken, Sentence
from lablease.obs.timeline import order, selects

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
OPERATOR = "system:serviceaccount:lablease-system:lablease-operator"


@dataclass
class Log:
    """Writes audit lines as a kube-apiserver would; ``at`` is seconds since the start."""

    lines: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict[tuple[str, str], dict[str, Any]])
    revision: int = 100
    policies: bool = False

    def request(
        self, at: float, verb: str, resource: str, name: str, answer: object, *, code: int = 200, user: str = OPERATOR,
        uri: str = "/apis",
    ) -> None:  # fmt: skip
        when = START + timedelta(seconds=at)
        line: dict[str, Any] = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "stage": "ResponseComplete",
            "requestURI": uri,
            "verb": verb,
            "user": {"username": user},
            "userAgent": "lablease-operator",
            "objectRef": {"resource": resource, "namespace": "lab", "name": name, "apiGroup": "jumpstarter.dev"},
            "responseStatus": {"code": code},
            "requestReceivedTimestamp": (when - timedelta(milliseconds=2)).isoformat().replace("+00:00", "Z"),
            "stageTimestamp": when.isoformat().replace("+00:00", "Z"),
        }
        if answer is not None:
            line["responseObject"] = answer
        self.lines.append(line)

    def put(
        self, at: float, resource: str, name: str, change: Callable[[dict[str, Any]], None], *, user: str = OPERATOR,
        no_op: bool = False,
    ) -> None:  # fmt: skip
        kinds = {"leases": "Lease", "exporters": "Exporter", "exporteraccesspolicies": "ExporterAccessPolicy"}
        old = self.objects.get((resource, name))
        created = (START + timedelta(seconds=at)).replace(microsecond=0).isoformat().replace("+00:00", "Z")
        found: dict[str, Any] = (
            json.loads(json.dumps(old))
            if old
            else {
                "apiVersion": "jumpstarter.dev/v1alpha1",
                "kind": kinds[resource],
                "metadata": {
                    "name": name,
                    "namespace": "lab",
                    "uid": f"{name}-{self.revision}",
                    "creationTimestamp": created,
                },
                "spec": {},
                "status": {},
            }
        )
        change(found)
        if not no_op:
            self.revision += 1
            found["metadata"]["resourceVersion"] = str(self.revision)
        self.objects[resource, name] = found
        self.request(at, "patch" if old else "create", resource, name, found, user=user)

    # ---- the steps of a life ----------------------------------------------------------------------------------------

    def exporter(self, name: str = "board", labels: dict[str, str] | None = None, at: float = 0) -> None:
        def change(found: dict[str, Any]) -> None:
            found["metadata"]["labels"] = labels or {"kind": "pi"}

        self.put(at, "exporters", name, change, user="admin")

    def ask(self, name: str, at: float, *, selector: object = None, client: str = "alice", **spec: object) -> None:
        wanted = {"matchLabels": {"kind": "pi"}} if selector is None else selector

        def change(found: dict[str, Any]) -> None:
            found["spec"] = {"clientRef": {"name": client}, "duration": "1m", "selector": wanted, **spec}

        self.put(at, "leases", name, change, user="admin")

    def status(self, name: str, at: float, reason: str = "NotAvailable", kind: str = "Pending", **status: Any) -> None:
        condition = {"type": kind, "status": "True", "reason": reason, "message": "wait"}
        self.put(at, "leases", name, lambda found: found["status"].update({"conditions": [condition], **status}))

    def slot(self, lease: str | None, grant: int | None, at: float, exporter: str = "board", **status: Any) -> None:
        def change(found: dict[str, Any]) -> None:
            found["status"].update({"leaseRef": {"name": lease} if lease else None, **status})
            if grant is not None:
                found["status"]["grant"] = grant

        self.put(at, "exporters", exporter, change)

    def ready(self, lease: str, grant: int, at: float, exporter: str = "board", **status: Any) -> None:
        begin = (START + timedelta(seconds=at)).isoformat().replace("+00:00", "Z")
        given = {"exporterRef": {"name": exporter}, "grant": grant, "beginTime": begin, "priority": 0, **status}
        self.status(lease, at, "Ready", "Ready", **given)

    def end(self, lease: str, at: float, reason: str = "Released", message: str = "released by its author") -> None:
        condition = {"type": "Ready", "status": "False", "reason": reason, "message": message}
        self.put(at, "leases", lease, lambda found: found["status"].update(ended=True, conditions=[condition]))

    def release(self, lease: str, at: float) -> None:
        self.put(at, "leases", lease, lambda found: found["spec"].update(release=True), user="admin")

    def delete(self, resource: str, name: str, at: float) -> None:
        gone = self.objects.pop((resource, name))
        details = {"name": name, "uid": gone["metadata"]["uid"]}
        self.request(at, "delete", resource, name, {"kind": "Status", "status": "Success", "details": details})

    def grant(self, lease: str, grant: int, at: float, exporter: str = "board") -> None:
        self.slot(lease, grant, at, exporter)
        self.ready(lease, grant, at + 0.01, exporter)

    def call(self, at: float, method: str = "on", **who: object) -> None:
        when = (START + timedelta(seconds=at)).isoformat()
        self.calls.append({"time": when, "exporter": "board", "device": "power", "method": method, **who})

    # ---- the verdict ------------------------------------------------------------------------------------------------

    def text(self) -> str:
        return "".join(json.dumps(line) + "\n" for line in [*self.lines, *self.calls])

    def broken(self, *, final: Sequence[dict[str, Any]] | None = None, until: float | None = None) -> list[Broken]:
        entries = list(read_lines(self.text().splitlines(keepends=True), "log"))
        writes = order(entry for entry in entries if isinstance(entry, Access))
        calls = [entry for entry in entries if isinstance(entry, DeviceCall)]
        last = None if until is None else START + timedelta(seconds=until)
        return check(writes, calls, final=final, until=last)

    def only(self, sentence: Sentence, **how: Any) -> str:
        broken = self.broken(**how)
        assert [one.sentence for one in broken] == [sentence], broken
        return broken[0].problem


def one_life(log: Log, lease: str = "l1", grant: int = 1000, at: float = 1) -> Log:
    """A lease that is granted, used and released within ten seconds."""
    log.ask(lease, at)
    log.status(lease, at + 0.5)
    log.grant(lease, grant, at + 1)
    log.slot(lease, None, at + 2, exporterStatus="LeaseReady")
    log.call(at + 3, lease=lease, grant=grant, client="alice")
    log.call(at + 3.5)
    log.release(lease, at + 4)
    log.end(lease, at + 4.1)
    log.call(at + 5, "off", lease=lease, grant=grant)
    log.slot(lease, None, at + 6, exporterStatus="Available")
    log.slot(None, None, at + 6.1)
    return log


@pytest.fixture
def log() -> Log:
    found = Log()
    found.exporter()
    return found


def test_two_leases_one_after_the_other_keep_the_contract(log: Log) -> None:
    one_life(log)
    one_life(log, "l2", 2000, 20)

    assert log.broken(final=list(log.objects.values()), until=1000) == []


def test_the_next_grant_may_come_with_the_free(log: Log) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.ask("l2", 3)
    log.end("l1", 4)
    log.grant("l2", 2000, 5)

    assert log.broken() == []


# ---- 1: one holder --------------------------------------------------------------------------------------------------


def two_leases(log: Log) -> None:
    log.ask("l1", 1)
    log.ask("l2", 1)
    log.grant("l1", 1000, 2)


def test_two_holders_at_once_are_found(log: Log) -> None:
    two_leases(log)
    log.slot("l2", 2000, 3)
    log.ready("l2", 2000, 3.1)

    problems = [one.problem for one in log.broken() if one.sentence is Sentence.ONE_HOLDER]
    assert problems == [
        "exporter lab/board: its slot left lease lab/l1 before that had ended",
        "exporter lab/board went to lease lab/l2 while lease lab/l1 had it",
    ]


def test_a_lease_that_says_it_holds_what_another_ones_slot_names_is_found(log: Log) -> None:
    log.ask("l1", 1)
    log.slot("l0", 900, 2)
    log.ready("l1", 1000, 3)

    assert "whose slot names l0 under 900" in log.only(Sentence.ONE_HOLDER)


def test_a_lease_under_another_grant_than_the_slot_is_found(log: Log) -> None:
    log.ask("l1", 1)
    log.slot("l1", 1001, 2)
    log.ready("l1", 1000, 3)

    assert "under grant 1000" in log.only(Sentence.ONE_HOLDER)


def test_a_slot_that_is_freed_before_the_end_is_found(log: Log) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.slot(None, None, 3)
    log.end("l1", 4)

    assert "before that had ended" in log.only(Sentence.ONE_HOLDER)


def test_a_grant_that_falls_is_found(log: Log) -> None:
    one_life(log)
    log.slot(None, 999, 20)

    assert "grant fell from 1000 to 999" in log.only(Sentence.ONE_HOLDER)


@pytest.mark.parametrize("number", [1000, 999])
def test_a_grant_that_does_not_grow_with_a_new_exporter_of_that_name_is_found(log: Log, number: int) -> None:
    one_life(log)
    log.delete("exporters", "board", 20)
    log.exporter(at=21)
    log.ask("l2", 22)
    log.grant("l2", number, 23)

    assert "1000 was there before" in log.only(Sentence.ONE_HOLDER)


def test_a_lease_whose_grant_changes_is_found(log: Log) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.status("l1", 3, "Ready", "Ready", grant=1001)

    assert "grant 1000 became 1001" in log.only(Sentence.ONE_HOLDER)


def test_a_lease_that_was_deleted_holds_nothing(log: Log) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.delete("leases", "l1", 3)
    log.slot(None, None, 3.1)
    log.ask("l1", 4)
    log.grant("l1", 2000, 5)

    assert log.broken() == []


def test_writes_are_judged_in_the_order_of_revisions_and_not_of_answers(log: Log) -> None:
    one_life(log)
    one_life(log, "l2", 2000, 20)
    log.lines.reverse()

    assert log.broken() == []


def test_a_dry_run_and_a_refused_write_change_nothing(log: Log) -> None:
    one_life(log)
    stolen = json.loads(json.dumps(log.objects["exporters", "board"]))
    stolen["status"].update(leaseRef={"name": "thief"}, grant=1)
    stolen["metadata"]["resourceVersion"] = "999"
    log.request(30, "patch", "exporters", "board", stolen, uri="/apis?dryRun=All")
    log.request(31, "patch", "exporters", "board", stolen, code=409)

    assert log.broken() == []


# ---- 2: every grant ends --------------------------------------------------------------------------------------------


def test_a_lease_that_does_not_end_is_found_when_the_record_goes_on(log: Log) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)

    assert log.broken(until=60) == []
    assert "has not ended, its planned end was 2026-03-01T12:01:02.01" in log.only(Sentence.EVERY_GRANT_ENDS, until=80)


def test_a_lease_that_comes_back_to_life_is_found(log: Log) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.end("l1", 3)
    log.ready("l1", 1000, 4, ended=False)

    assert "had ended and runs again" in log.only(Sentence.EVERY_GRANT_ENDS)


@pytest.mark.parametrize("who", [{}, {"lease": "l1"}, {"lease": "l1", "grant": 1000, "client": "alice"}])
@pytest.mark.parametrize(("at", "fine"), [(5.99, True), (6.05, False)])
def test_a_call_later_than_a_second_after_the_end_is_found(
    log: Log, who: dict[str, Any], at: float, fine: bool
) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.end("l1", 5)
    log.call(at, **who)

    if fine:
        assert log.broken() == []
    else:
        assert log.only(Sentence.EVERY_GRANT_ENDS) == (
            "exporter board: power.on was called 1.050 s after the end of lease lab/l1 (grant 1000) was told"
        )


def test_a_call_of_the_old_grant_is_found_although_a_new_holder_is_there(log: Log) -> None:
    one_life(log)
    log.ask("l2", 20)
    log.grant("l2", 2000, 21)
    log.call(25, lease="l1", grant=1000)
    log.call(25, lease="l2", grant=2000)
    log.call(25)

    assert "19.900 s after the end of lease lab/l1" in log.only(Sentence.EVERY_GRANT_ENDS)


@pytest.mark.parametrize(("at", "fine"), [(62.2, True), (62.5, False)])
def test_a_call_after_the_planned_end_is_found_although_nobody_has_written_the_end(
    log: Log, at: float, fine: bool
) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.call(at, lease="l1", grant=1000)

    assert [one.problem for one in log.broken()] == (
        []
        if fine
        else ["exporter board: power.on was called 0.490 s after the planned end of lease lab/l1 (grant 1000)"]
    )


def test_an_extension_moves_the_planned_end(log: Log) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.put(30, "leases", "l1", lambda found: found["spec"].update(duration="2m"))
    log.call(100, lease="l1", grant=1000)

    assert log.broken() == []


def test_a_shortened_lease_has_a_second_to_be_told(log: Log) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.put(30, "leases", "l1", lambda found: found["spec"].update(duration="10s"))
    log.end("l1", 30.2, "Expired")
    log.call(30.9, lease="l1", grant=1000)
    assert log.broken() == []

    log.call(31.1, lease="l1", grant=1000)
    assert "after the planned end" in log.only(Sentence.EVERY_GRANT_ENDS)


def test_a_call_of_the_client_that_lost_the_lease_is_found(log: Log) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.put(30, "leases", "l1", lambda found: found["spec"].update(clientRef={"name": "bob"}))
    log.call(30.9, lease="l1", client="alice")
    log.call(32, lease="l1", client="bob")
    assert log.broken() == []

    log.call(33, lease="l1", client="alice")
    assert "was called by alice, and lease lab/l1 was bob's" in log.only(Sentence.EVERY_GRANT_ENDS)


def test_a_call_before_the_grant_and_one_under_a_grant_that_never_was_are_found(log: Log) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 3)
    log.call(2, lease="l1", grant=1000)
    log.call(4, lease="l1", grant=77)

    problems = [one.problem for one in log.broken()]
    assert "s before lease lab/l1 had it" in problems[0]
    assert "under grant 77, which never had it" in problems[1]


def test_a_hook_may_call_when_nobody_holds(log: Log) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.end("l1", 5)
    log.slot("l1", None, 6, exporterStatus="AfterLeaseHook")
    log.call(8)
    log.slot("l1", None, 9, exporterStatus="Available")
    assert log.broken() == []

    log.call(10)
    assert "s after the end of lease" in log.only(Sentence.EVERY_GRANT_ENDS)


# ---- 3: first come, first served ------------------------------------------------------------------------------------


def overtaken(log: Log, **older: Any) -> None:
    """l1 waits since 1 s, l2 since 5 s; the exporter goes to l2 at 8 s."""
    log.ask("l1", 1, **older)
    log.ask("l2", 5)
    log.grant("l2", 1000, 8)
    log.end("l2", 20)
    log.slot(None, None, 21)


def test_an_exporter_that_goes_past_an_older_lease_is_found(log: Log) -> None:
    overtaken(log)
    log.grant("l1", 2000, 30)

    assert log.only(Sentence.FIRST_COME) == (
        "exporter lab/board went to lease lab/l2 (created 2026-03-01T12:00:05+00:00) "
        "while lease lab/l1 (created 2026-03-01T12:00:01+00:00) waited for it"
    )


def test_an_older_lease_that_never_gets_any_is_found_too(log: Log) -> None:
    overtaken(log, selector={"matchExpressions": [{"key": "kind", "operator": "Exists"}]})

    assert "went to lease lab/l2" in log.only(Sentence.FIRST_COME, until=9)


@pytest.mark.parametrize(
    "older",
    [
        pytest.param({"selector": {"matchLabels": {"kind": "phone"}}}, id="another selector"),
        pytest.param({"exporterRef": {"name": "other"}}, id="another pin"),
        pytest.param({"release": True}, id="released"),
        pytest.param({"beginTime": "2026-03-01T12:00:01Z"}, id="a booking"),
    ],
)
def test_a_lease_that_could_not_have_it_was_not_overtaken(log: Log, older: dict[str, Any]) -> None:
    overtaken(log, **older)

    assert log.broken(until=9) == []


def test_a_refused_lease_was_not_overtaken(log: Log) -> None:
    log.ask("l1", 1)
    log.status("l1", 2, "NoAccess", "Unsatisfiable")
    log.ask("l2", 5)
    log.grant("l2", 1000, 8)

    assert log.broken() == []


def test_a_lease_of_another_priority_was_not_overtaken(log: Log) -> None:
    overtaken(log)
    log.slot("l1", 2000, 30)
    log.ready("l1", 2000, 30.1, priority=5)

    assert log.broken() == []


def test_an_older_lease_that_the_same_pass_served_was_not_overtaken(log: Log) -> None:
    log.exporter("board2")
    log.ask("l1", 1)
    log.ask("l2", 2)
    log.slot("l2", 1000, 8)
    log.slot("l1", 1001, 8.5, "board2")
    log.ready("l2", 1000, 8.6)
    log.ready("l1", 1001, 8.7, "board2")

    assert log.broken() == []


def test_a_lease_that_nobody_can_have_seen_yet_was_not_overtaken(log: Log) -> None:
    log.ask("b", 1.0)
    log.ask("a", 1.3)  # of the same second: by name it is the older one
    log.grant("b", 1000, 1.4)

    assert log.broken() == []


def with_policy(log: Log) -> None:
    log.put(0, "exporteraccesspolicies", "p", lambda found: found["spec"].update(policies=[]))


def test_with_policies_leases_of_one_client_are_still_compared(log: Log) -> None:
    with_policy(log)
    overtaken(log)

    assert "went to lease lab/l2" in log.only(Sentence.FIRST_COME, until=9)


@pytest.mark.parametrize("older", [{"client": "bob"}, {"duration": "2m"}])
def test_with_policies_a_lease_that_perhaps_had_no_access_was_not_overtaken(log: Log, older: dict[str, Any]) -> None:
    with_policy(log)
    overtaken(log, **older)

    assert log.broken(until=9) == []


def test_with_policies_a_lease_that_got_the_very_exporter_later_was_overtaken(log: Log) -> None:
    with_policy(log)
    overtaken(log, client="bob")
    log.grant("l1", 2000, 30)

    assert "went to lease lab/l2" in log.only(Sentence.FIRST_COME, until=31)


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [
        ("In", ["pi", "x"], True),
        ("In", ["x"], False),
        ("NotIn", ["x"], True),
        ("NotIn", ["pi"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
        ("Near", ["pi"], False),
    ],
)
def test_selectors_are_read_as_kubernetes_reads_them(operator: str, values: list[str], fits: bool) -> None:
    expression = {"key": "kind", "operator": operator, "values": values}

    assert selects({"matchExpressions": [expression]}, {"kind": "pi"}) is fits
    assert selects({"matchLabels": {"a": "b"}, "matchExpressions": [expression]}, {"kind": "pi"}) is False
    absent = selects({"matchExpressions": [expression]}, {})
    assert absent is (operator in ("NotIn", "DoesNotExist"))


# ---- 4, 5, 6 --------------------------------------------------------------------------------------------------------


def test_a_lease_that_is_never_decided_is_found(log: Log) -> None:
    log.ask("l1", 1)

    assert log.broken(until=10) == []
    assert log.only(Sentence.NOTHING_LOST, until=12) == "lease lab/l1 was never decided"


@pytest.mark.parametrize(("reason", "message"), [("", "why"), ("NoAccess", "")])
@pytest.mark.parametrize("kind", ["Unsatisfiable", "Invalid"])
def test_a_refusal_without_reason_or_message_is_found(log: Log, kind: str, reason: str, message: str) -> None:
    condition = {"type": kind, "status": "True", "reason": reason, "message": message}
    log.ask("l1", 1)
    log.put(2, "leases", "l1", lambda found: found["status"].update(conditions=[condition]))

    assert f"{kind} without a reason or a message" in log.only(Sentence.REFUSALS_HAVE_REASONS)


@pytest.mark.parametrize(("reason", "message"), [("", "why"), ("Released", "")])
def test_an_end_without_reason_or_message_is_found(log: Log, reason: str, message: str) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.end("l1", 3, reason, message)

    assert "its last condition has no reason or no message" in log.only(Sentence.REFUSALS_HAVE_REASONS)


def test_the_reason_that_sends_stock_clients_into_a_loop_is_found(log: Log) -> None:
    log.ask("l1", 1)
    log.status("l1", 2, "NoExporter", "Unsatisfiable")

    assert "create leases for ever" in log.only(Sentence.REFUSALS_HAVE_REASONS)


def lose(final: list[dict[str, Any]]) -> None:
    final.pop()


def forget_a_write(final: list[dict[str, Any]]) -> None:
    final[-1]["metadata"]["resourceVersion"] = "1"


def change_the_content(final: list[dict[str, Any]]) -> None:
    final[-1]["status"]["grant"] = 7


def replace_it(final: list[dict[str, Any]]) -> None:
    final[-1]["metadata"]["uid"] = "other"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lose, "was acknowledged and is not there"),
        (forget_a_write, "is at revision 1"),
        (change_the_content, "is not what was acknowledged"),
        (replace_it, "another one is there"),
    ],
)
def test_an_acknowledged_write_that_is_lost_is_found(
    log: Log, harm: Callable[[list[dict[str, Any]]], None], words: str
) -> None:
    one_life(log)
    final: list[dict[str, Any]] = json.loads(json.dumps(list(log.objects.values())))
    for found in final:
        found["metadata"]["managedFields"] = ["the audit log leaves these out"]
    assert log.broken(final=final) == []
    harm(final)

    assert words in log.only(Sentence.DURABLE, final=final)


def test_a_deletion_that_is_lost_is_found(log: Log) -> None:
    one_life(log)
    gone = log.objects["leases", "l1"]
    log.delete("leases", "l1", 30)
    assert log.broken(final=list(log.objects.values())) == []

    assert "was deleted and is there" in log.only(Sentence.DURABLE, final=[*log.objects.values(), gone])


def test_a_write_that_was_never_acknowledged_may_be_there(log: Log) -> None:
    one_life(log)
    final: list[dict[str, Any]] = json.loads(json.dumps(list(log.objects.values())))
    final[0]["metadata"]["resourceVersion"] = "5000"

    assert log.broken(final=final) == []


# ---- counting, reading, the command ---------------------------------------------------------------------------------


def write_logs(log: Log, folder: Path) -> tuple[Path, Path]:
    audit, device = folder / "audit.log", folder / "devices.jsonl"
    audit.write_text("".join(json.dumps(line) + "\n" for line in log.lines))
    device.write_text("".join(json.dumps(line) + "\n" for line in log.calls))
    return audit, device


def test_costs_of_a_lease_are_counted(log: Log, tmp_path: Path) -> None:
    one_life(log)
    log.put(30, "leases", "l1", lambda _: None, no_op=True)
    log.request(31, "get", "leases", "l1", None)
    log.request(32, "get", "leases", "l1", None, user="admin")
    log.request(33, "patch", "leases", "l1", None, code=409)
    log.request(34, "list", "leases", "", None)
    log.delete("leases", "l1", 40)
    verdict = judge(write_logs(log, tmp_path))

    (cost,) = verdict.finished()
    assert {kind: cost.total(kind) for kind in Cost} == {
        Cost.WRITE: 9,  # asked, waits, slot, Ready, LeaseReady, release, end, Available, free
        Cost.NO_OP: 1,
        Cost.DELETE: 1,
        Cost.REFUSED: 1,
        Cost.READ: 2,
    }
    assert cost.total(Cost.READ, ours=True) == 1
    assert verdict.counts.accounts[OPERATOR, "lablease-operator", "list", "leases.jumpstarter.dev"] == 1


def test_the_command_says_what_holds_and_what_was_broken(log: Log, tmp_path: Path) -> None:
    one_life(log)
    audit, device = write_logs(log, tmp_path)
    fine = CliRunner().invoke(main, ["--audit", str(audit), "--device", str(device)])
    assert (fine.exit_code, fine.output.splitlines()[-1]) == (0, "the contract holds")

    log.call(100, lease="l1", grant=1000)
    write_logs(log, tmp_path)
    broken = CliRunner().invoke(main, [str(audit), str(device)])
    assert broken.exit_code == 1
    assert "BROKEN 2 (every grant ends)" in broken.output
    assert "devices.jsonl:4" in broken.output
    machine = json.loads(CliRunner().invoke(main, [str(audit), str(device), "--json"]).output)
    assert [one["sentence"] for one in machine["broken"]] == [2]
    assert machine["leases"][0]["write"] == 9


def test_the_command_compares_with_what_is_there_at_the_end(log: Log, tmp_path: Path) -> None:
    one_life(log)
    audit, _ = write_logs(log, tmp_path)
    final = tmp_path / "final.json"
    final.write_text(json.dumps({"kind": "List", "items": [log.objects["exporters", "board"]]}))

    found = CliRunner().invoke(main, [str(audit), "--final", str(final)])
    assert found.exit_code == 1
    assert "Lease lab/l1 was acknowledged and is not there" in found.output


def test_tolerance_can_be_set(log: Log, tmp_path: Path) -> None:
    log.ask("l1", 1)
    log.grant("l1", 1000, 2)
    log.end("l1", 5)
    log.call(8)
    audit, device = write_logs(log, tmp_path)

    assert CliRunner().invoke(main, [str(audit), str(device)]).exit_code == 1
    assert CliRunner().invoke(main, [str(audit), str(device), "--tolerate", "end-told=4"]).exit_code == 0
    wrong = CliRunner().invoke(main, [str(audit), "--tolerate", "luck=4"])
    assert wrong.exit_code == 2
    assert "must be NAME=SECONDS" in wrong.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{]\n{}\n", "log:1: not JSON"),
        ("[]\n", "log:1: must be an object"),
        ("\n{}\n", "log:2: neither"),
        ('{"exporter": "e", "method": "on", "time": "noon"}\n', "log:1: time must be"),
        ('{"apiVersion": "audit.k8s.io/v1", "stage": "ResponseComplete"}\n', "log:1: an audit event must have"),
    ],
)
def test_a_line_that_is_no_record_is_named(text: str, words: str) -> None:
    with pytest.raises(Unreadable, match=words.replace("[", r"\[")):
        list(read_lines(text.splitlines(keepends=True), "log"))


def test_a_last_line_that_its_writer_could_not_finish_is_left_out() -> None:
    line = '{"exporter": "e", "method": "on", "time": 1772366400.5}\n'

    (call,) = read_lines([line, line[:20]], "log")
    assert isinstance(call, DeviceCall)
    assert call.time == START + timedelta(seconds=0.5)
    assert (call.lease, call.client, call.grant) == (None, None, None)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, [str(tmp_path / "nothing")])

    assert found.exit_code == 2
    assert "cannot read" in found.output


def test_a_deleted_collection_is_taken_apart(log: Log) -> None:
    one_life(log)
    lease = log.objects["leases", "l1"]
    log.request(30, "deletecollection", "leases", "", {"kind": "LeaseList", "items": [lease]})

    assert log.broken(final=[log.objects["exporters", "board"]]) == []
