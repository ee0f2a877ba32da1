"""Durations, instants, driver-call values, the driver tree, and what conditions mean."""

from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import PurePosixPath
from uuid import UUID

import pytest
from google.protobuf.struct_pb2 import Value

from lablease.client.durations import format_duration, parse_duration, parse_instant
from lablease.client.errors import ClientError, NoSuchDriver
from lablease.client.resources import Condition, LeaseInfo, parse_exporter, parse_lease, split_name
from lablease.client.service import time_ordered_uuid
from lablease.client.tree import CLIENT_LABEL, MAX_DEPTH, NAME_LABEL, build_tree
from lablease.client.values import from_value, to_value
from lablease.client.waiting import Acquired, Refused, Waiting, judge
from lablease.wire.jumpstarter.client.v1 import client_pb2
from lablease.wire.jumpstarter.v1.jumpstarter_pb2 import GetReportResponse

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1d2h3m4s", 93784),
        ("PT1H30M", 5400),
        ("P1DT2H", 93600),
        ("pt5s", 5),
        ("01:30:00", 5400),
        (" 5m ", 300),
    ],
)
def test_every_spelling_of_a_duration_is_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "0", "0m", "m", "1.5h", "-5m", "5 m", "1m1h", "PT", "P", "1:75:00", "9" * 40 + "d", "٣"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"30m|longer than"):
        parse_duration(text)


def test_an_instant_keeps_its_offset_and_becomes_utc() -> None:
    assert parse_instant("2026-05-01T14:00:00+02:00") == NOON
    assert parse_instant("2026-05-01T12:00:00Z").tzinfo is UTC


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_instant(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (-5, "0s"), (5, "5s"), (125, "2m5s"), (3600, "1h"), (90061, "1d1h")]
)
def test_a_duration_is_shown_in_at_most_two_units(seconds: int, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


class Level(Enum):
    HIGH = 1


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2.5, 2.5),
        (float("nan"), None),
        (float("inf"), None),
        ("text", "text"),
        (b"text", "text"),
        (Level.HIGH, 1),
        (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (PurePosixPath("/a"), "/a"),
        (timedelta(seconds=5), "PT5S"),
        (NOON, "2026-05-01T12:00:00+00:00"),
        ((1, [2]), [1, [2]]),
        ({"a": {"b": None}}, {"a": {"b": None}}),
    ],
)
def test_an_argument_survives_the_wire(value: object, back: object) -> None:
    result = from_value(Value.FromString(to_value(value).SerializeToString()))
    assert result == back
    assert type(result) is type(back)


def test_a_number_beyond_what_a_double_holds_exactly_stays_a_float() -> None:
    assert isinstance(from_value(Value(number_value=2.0**60)), float)


def test_an_unset_value_is_none() -> None:
    assert from_value(Value()) is None


@pytest.mark.parametrize("value", [b"\xff", object()])
def test_an_argument_without_json_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="argument"):
        to_value(value)


def report(*rows: tuple[str, str | None, str]) -> GetReportResponse:
    message = GetReportResponse()
    for uuid, parent, name in rows:
        item = message.reports.add(uuid=uuid)
        item.labels[CLIENT_LABEL] = "some.Client"
        if parent is not None:
            item.parent_uuid = parent
            item.labels[NAME_LABEL] = name
    return message


def test_an_alias_is_a_second_place_of_the_same_driver_with_its_whole_subtree() -> None:
    root = build_tree(
        report(("r", None, ""), ("a", "r", "board"), ("p", "a", "power"), ("a", "r", "alias"), ("p", "a", "power"))
    )
    assert [".".join(n.path) for n in root.walk()] == ["", "board", "board.power", "alias", "alias.power"]
    assert root.find("alias.power").uuid == root.find("board.power").uuid == "p"


def test_a_wrong_driver_name_is_answered_with_the_right_ones() -> None:
    root = build_tree(report(("r", None, ""), ("a", "r", "board"), ("p", "a", "power")))
    with pytest.raises(NoSuchDriver, match=r"no driver 'powr' in board; the exporter offers power"):
        root.find("board.powr")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "0 root drivers"),
        ([("a", None, ""), ("b", None, "")], "2 root drivers"),
        ([("a", None, ""), ("b", "later", "x")], "not reported before"),
        ([("a", None, ""), ("b", "a", "")], NAME_LABEL),
        ([("0", None, ""), *((str(i + 1), str(i), "x") for i in range(MAX_DEPTH + 1))], "levels"),
    ],
)
def test_a_report_that_makes_no_tree_is_refused(rows: list[tuple[str, str | None, str]], problem: str) -> None:
    with pytest.raises(ClientError, match=problem):
        build_tree(report(*rows))


def lease(*conditions: tuple[str, str, str], position: int = 0) -> LeaseInfo:
    message = client_pb2.Lease(name="namespaces/lab/leases/one", exporter="namespaces/lab/exporters/b1")
    message.queue_position = position
    for kind, status, reason in conditions:
        message.conditions.add(type=kind, status=status, reason=reason, message=f"about {reason}")
    return parse_lease(message)


@pytest.mark.parametrize(
    ("conditions", "outlook"),
    [
        ([], Waiting("Undecided", "no decision yet", 0, None)),
        ([("Pending", "True", "NotAvailable")], Waiting("NotAvailable", "about NotAvailable", 0, None)),
        ([("Pending", "True", "NotReady"), ("Ready", "True", "Ready")], Acquired("b1")),
        ([("Unsatisfiable", "True", "NoAccess")], Refused("NoAccess", "about NoAccess")),
        ([("Invalid", "True", "InvalidSelector")], Refused("InvalidSelector", "about InvalidSelector")),
        ([("Pending", "True", "Offline"), ("Ready", "False", "Released")], Refused("Released", "about Released")),
        ([("Ready", "False", "Expired")], Refused("Expired", "about Expired")),
        ([("Ready", "False", "NotYet")], Waiting("Undecided", "no decision yet", 0, None)),
        ([("Pending", "False", "x")], Waiting("Undecided", "no decision yet", 0, None)),
    ],
)
def test_conditions_are_read_as_jmp_reads_them(
    conditions: list[tuple[str, str, str]], outlook: Acquired | Waiting | Refused
) -> None:
    assert judge(lease(*conditions)) == outlook


def test_a_waiting_lease_tells_its_place() -> None:
    outlook = judge(lease(("Pending", "True", "NotAvailable"), position=3))
    assert isinstance(outlook, Waiting)
    assert outlook.position == 3


def test_the_planned_end_is_the_effective_one_or_begin_plus_duration() -> None:
    message = client_pb2.Lease(name="namespaces/lab/leases/one")
    message.duration.FromTimedelta(timedelta(hours=1))
    assert parse_lease(message).planned_end is None
    message.effective_begin_time.FromDatetime(NOON)
    assert parse_lease(message).planned_end == NOON + timedelta(hours=1)
    message.effective_end_time.FromDatetime(NOON)
    assert parse_lease(message).planned_end == NOON


def test_condition_finds_by_type() -> None:
    one = lease(("Pending", "True", "Offline"))
    assert one.condition("Pending") == Condition("Pending", "True", "Offline", "about Offline", None)
    assert one.condition("Ready") is None


def test_an_exporter_that_does_not_say_so_is_enabled_and_an_unknown_status_is_unspecified() -> None:
    exporter = parse_exporter(client_pb2.Exporter(name="namespaces/lab/exporters/b1", status=99))  # type: ignore[arg-type]
    assert exporter.enabled
    assert exporter.status == "UNSPECIFIED"


@pytest.mark.parametrize("name", ["", "one", "namespaces/lab/leases/", "namespaces/lab/exporters/one", "a/b/c/d/e"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ClientError, match="namespaces/<namespace>/leases"):
        split_name(name, "leases")


def test_made_up_lease_names_sort_by_creation() -> None:
    early = time_ordered_uuid(1_000_000_000_000, b"\xff" * 10)
    late = time_ordered_uuid(1_000_001_000_000, b"\x00" * 10)
    assert str(early) < str(late)
    assert (early.version, late.version) == (7, 7)
    assert early.variant == UUID(int=0x8 << 60).variant
