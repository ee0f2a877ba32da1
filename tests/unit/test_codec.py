from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lablease.errors import InvalidField
from lablease.model.exporter import Exporter, ExporterStatus
from lablease.model.keys import Key
from lablease.model.lease import Lease, LeaseSpec, LeaseStatus
from lablease.model.meta import Condition, Meta, Truth
from lablease.model.selector import EVERYTHING, Operator, Requirement, Selector
from lablease.rules.times import Times
from lablease.wire.codec import (
    condition_message,
    device_reports,
    lease_response,
    read_duration,
    read_selector,
    read_timestamp,
    selector_message,
    status_number,
    status_word,
)
from lablease.wire.codec_client import (
    EXPORTERS,
    LEASES,
    LabelRules,
    Queued,
    exporter_message,
    lease_message,
    parse_parent,
    parse_resource_name,
    read_lease,
    read_times,
    resource_name,
)
from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.v1 import common_pb2, jumpstarter_pb2, kubernetes_pb2

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SELECTOR = Selector((("board", "rpi"),), (Requirement("site", Operator.IN, ("a", "b")),))


def meta(name: str, **labels: str) -> Meta:
    return Meta(Key("lab", name), f"uid-{name}", "7", 1, NOON, labels)


def lease(spec: LeaseSpec, status: LeaseStatus | None = None) -> Lease:
    return Lease(meta("l1"), spec, status or LeaseStatus())


@pytest.mark.parametrize("word", list(ExporterStatus))
def test_every_status_goes_out_and_comes_back(word: ExporterStatus) -> None:
    assert status_word(status_number(word)) is word
    name = common_pb2.ExporterStatus.Name(status_number(word))
    assert name.removeprefix("EXPORTER_STATUS_").replace("_", "").lower() == word.lower()


def test_absent_and_unknown_statuses_are_unspecified() -> None:
    assert status_number(None) == 0
    assert status_word(99) is ExporterStatus.UNSPECIFIED


def test_a_condition_has_each_field_present() -> None:
    when = NOON + timedelta(microseconds=1500)
    message = condition_message(Condition("Ready", Truth.TRUE, "Ready", "", when, 3))
    assert {field.name for field, _ in message.ListFields()} == {field.name for field in message.DESCRIPTOR.fields}
    assert message.lastTransitionTime.nanos == 1_500_000
    assert (message.status, message.observedGeneration) == ("True", 3)


@pytest.mark.parametrize("selector", [EVERYTHING, SELECTOR, Selector((), (Requirement("x", Operator.EXISTS),))])
def test_a_selector_survives_the_wire(selector: Selector) -> None:
    assert read_selector(selector_message(selector), "selector") == selector


def test_a_selector_of_the_wire_with_an_unknown_operator_names_the_field() -> None:
    bad = kubernetes_pb2.LabelSelector(
        match_expressions=[kubernetes_pb2.LabelSelectorRequirement(key="a", operator="Like", values=["b"])]
    )
    with pytest.raises(InvalidField, match=r"selector\.matchExpressions\[0\]\.operator"):
        read_selector(bad, "selector")


def test_a_selector_of_the_wire_is_bounded() -> None:
    labels = {f"k{number}": "v" for number in range(101)}
    with pytest.raises(InvalidField, match="at most 100"):
        read_selector(kubernetes_pb2.LabelSelector(match_labels=labels), "selector")


def test_times_out_of_range_are_refused_by_name() -> None:
    with pytest.raises(InvalidField, match=r"lease\.begin_time"):
        read_timestamp(Timestamp(seconds=1 << 60), "lease.begin_time")
    with pytest.raises(InvalidField, match=r"lease\.duration"):
        read_duration(Duration(seconds=1 << 60), "lease.duration")


def test_devices_keep_no_help_texts_and_no_empty_fields() -> None:
    reports = [
        jumpstarter_pb2.DriverInstanceReport(uuid="r", description="root", methods_description={"on": "turn on"}),
        jumpstarter_pb2.DriverInstanceReport(uuid="c", parent_uuid="r", labels={"jumpstarter.dev/name": "power"}),
    ]
    assert device_reports(reports) == [
        {"uuid": "r"},
        {"uuid": "c", "parent_uuid": "r", "labels": {"jumpstarter.dev/name": "power"}},
    ]


def test_controller_service_tells_a_lease_without_what_it_does_not_have() -> None:
    bare = lease_response(lease(LeaseSpec("alice", SELECTOR)), None)
    assert not bare.HasField("duration")
    assert not bare.HasField("begin_time")
    assert not bare.HasField("exporter_uuid")
    full = lease_response(
        lease(LeaseSpec("alice", SELECTOR, duration=HOUR), LeaseStatus(begin=NOON, end=NOON + HOUR)), "uid"
    )
    assert full.duration.ToTimedelta() == HOUR
    assert full.end_time.ToDatetime(UTC) == NOON + HOUR
    assert full.exporter_uuid == "uid"


@pytest.mark.parametrize(
    "text", ["", "lab", "namespaces/lab/leases", "namespaces//leases/x", "namespaces/lab/leases/", "a/lab/leases/x"]
)
def test_other_forms_of_resource_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidField, match="namespaces/<namespace>/leases/<name>"):
        parse_resource_name(text, LEASES, "name")


def test_resource_names_are_of_their_collection() -> None:
    assert parse_resource_name("namespaces/lab/leases/x", LEASES, "name") == Key("lab", "x")
    assert resource_name(EXPORTERS, Key("lab", "b")) == "namespaces/lab/exporters/b"
    with pytest.raises(InvalidField):
        parse_resource_name("namespaces/lab/exporters/x", LEASES, "name")
    assert parse_parent("namespaces/lab") == "lab"
    with pytest.raises(InvalidField, match="parent"):
        parse_parent("namespaces/")


RULES = LabelRules(frozenset({"secret"}), {"old": "use new"})


def test_hidden_and_deprecated_labels_are_shown_only_on_request() -> None:
    exporter = Exporter(meta("b", secret="1", old="2", new="3"))
    seen = exporter_message(exporter, RULES, show_hidden=False)
    assert dict(seen.labels) == {"new": "3"}
    assert dict(seen.deprecated_labels) == {"old": "use new"}
    everything = exporter_message(exporter, RULES, show_hidden=True)
    assert dict(everything.labels) == {"secret": "1", "old": "2", "new": "3"}
    assert dict(everything.deprecated_labels) == {"old": "use new"}


def test_an_exporter_always_says_whether_it_is_enabled() -> None:
    assert exporter_message(Exporter(meta("b"), enabled=False), RULES, show_hidden=False).HasField("enabled")


def test_a_lease_always_has_a_client_and_its_canonical_selector() -> None:
    message = lease_message(lease(LeaseSpec("alice", SELECTOR)), NOON, LabelRules())
    assert message.client == "namespaces/lab/clients/alice"
    assert message.selector == "board=rpi,site in (a,b)"
    for absent in ("duration", "begin_time", "end_time", "effective_begin_time", "effective_end_time", "exporter"):
        assert not message.HasField(absent), absent
    assert not message.HasField("effective_duration")
    assert lease_message(lease(LeaseSpec("alice", exporter="b")), NOON, LabelRules()).selector == "<none>"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (LeaseStatus(begin=NOON - HOUR), HOUR),
        (LeaseStatus(begin=NOON - HOUR, end=NOON - HOUR / 2, ended=True), HOUR / 2),
        (LeaseStatus(begin=NOON - HOUR, end=NOON + HOUR), HOUR),
        (LeaseStatus(begin=NOON + HOUR), timedelta(0)),
    ],
    ids=["running", "ended", "given notice", "clock behind"],
)
def test_the_effective_duration_runs_until_the_end_or_now(status: LeaseStatus, expected: timedelta) -> None:
    message = lease_message(lease(LeaseSpec("alice", SELECTOR), status), NOON, LabelRules())
    assert message.effective_duration.ToTimedelta() == expected


def test_a_running_lease_shows_no_effective_end() -> None:
    running = lease(LeaseSpec("alice", SELECTOR, duration=HOUR), LeaseStatus(begin=NOON, exporter="b", grant=9))
    message = lease_message(running, NOON, LabelRules())
    assert not message.HasField("effective_end_time")
    assert (message.exporter, message.grant) == ("namespaces/lab/exporters/b", 9)


def test_deprecated_labels_of_the_selector_are_named() -> None:
    message = lease_message(lease(LeaseSpec("alice", SELECTOR)), NOON, LabelRules(deprecated={"site": "use place"}))
    assert dict(message.deprecated_labels) == {"site": "use place"}


def test_a_waiting_lease_tells_its_place_and_estimate() -> None:
    waiting = lease(LeaseSpec("alice", SELECTOR))
    message = lease_message(waiting, NOON, LabelRules(), Queued(3, NOON + HOUR))
    assert (message.queue_position, message.estimated_begin.ToDatetime(UTC)) == (3, NOON + HOUR)
    assert not lease_message(waiting, NOON, LabelRules(), Queued(1)).HasField("estimated_begin")


def test_a_request_reads_what_a_client_may_say() -> None:
    message = client_pb2.Lease(
        name="ignored",
        client="ignored",
        selector="board==rpi,site in (b,a)",
        exporter_name="",
        tags={"team": "x"},
        context={"build": "1"},
        idle_timeout=Duration(seconds=60),
        wait_timeout=Duration(),
    )
    message.duration.FromTimedelta(HOUR)
    request = read_lease(message)
    assert request.selector == SELECTOR
    assert request.exporter is None
    assert request.times == Times(duration=HOUR)
    assert (request.tags, request.context) == ({"team": "x"}, {"build": "1"})
    assert (request.idle_timeout, request.wait_timeout) == (timedelta(minutes=1), None)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (client_pb2.Lease(), "lease.selector"),
        (client_pb2.Lease(selector="  "), "lease.selector"),
        (client_pb2.Lease(selector="a=1,=="), "lease.selector"),
        (client_pb2.Lease(selector="a=1", duration=Duration(seconds=1 << 60)), "lease.duration"),
        (client_pb2.Lease(selector="a=1", wait_timeout=Duration(seconds=-1)), "lease.wait_timeout"),
    ],
)
def test_a_request_that_cannot_be_read_names_the_field(message: client_pb2.Lease, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        read_lease(message)
    assert caught.value.field == field


def test_times_that_are_absent_stay_absent() -> None:
    assert read_times(client_pb2.Lease()) == Times()
    message = client_pb2.Lease()
    message.begin_time.FromDatetime(NOON)
    assert read_times(message) == Times(begin=NOON)
