from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from lablease.errors import InvalidField, NotAllowed, NotNow
from lablease.grpc_frontend.updating import (
    Update,
    check_policy,
    check_transfer,
    handed_over,
    new_times,
    read_update,
    spec_patch,
)
from lablease.model.client import Client
from lablease.model.exporter import Exporter
from lablease.model.keys import Key
from lablease.model.lease import Lease, LeaseSpec, LeaseStatus
from lablease.model.meta import Meta
from lablease.model.policy import Policy, PolicyRule
from lablease.model.selector import Selector
from lablease.rules.policy import Access
from lablease.rules.times import Times
from lablease.wire.jumpstarter.client.v1 import client_pb2

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def meta(name: str, **labels: str) -> Meta:
    return Meta(Key("lab", name), f"uid-{name}", "7", 1, NOON, labels)


def lease(exporter: str | None = "board", **spec: object) -> Lease:
    wanted = LeaseSpec("alice", **({"duration": HOUR} | spec))  # type: ignore[arg-type]
    return Lease(meta("l"), wanted, LeaseStatus(exporter=exporter, begin=NOON if exporter else None))


def request(*paths: str, client: str = "", duration: timedelta | None = None, end: datetime | None = None):  # type: ignore[no-untyped-def]
    message = client_pb2.UpdateLeaseRequest(
        lease=client_pb2.Lease(name="namespaces/lab/leases/l"), update_mask=FieldMask(paths=paths)
    )
    if client:
        message.lease.client = client
    if duration is not None:
        message.lease.duration.FromTimedelta(duration)
    if end is not None:
        message.lease.end_time.FromDatetime(end)
    return message


def test_without_a_mask_presence_counts() -> None:
    assert read_update(request()) == Update(Times())
    assert read_update(request(duration=HOUR)) == Update(Times(duration=HOUR))
    assert read_update(request(client="namespaces/lab/clients/bob")).client == Key("lab", "bob")


def test_with_a_mask_only_what_it_names_counts() -> None:
    both = request("duration", duration=HOUR, end=NOON, client="namespaces/lab/clients/bob")
    assert read_update(both) == Update(Times(duration=HOUR))
    assert read_update(request("*", duration=HOUR)) == Update(Times(duration=HOUR))


def test_a_time_that_only_the_mask_names_is_cleared() -> None:
    assert read_update(request("end_time")).cleared == {"end_time"}


@pytest.mark.parametrize("path", ["selector", "tags", "nonsense", "effective_end_time"])
def test_a_mask_that_names_anything_else_is_refused(path: str) -> None:
    with pytest.raises(InvalidField, match=r"update_mask.*begin_time, client, duration, end_time"):
        read_update(request(path))


def test_a_transfer_must_name_the_new_owner() -> None:
    with pytest.raises(InvalidField, match=r"lease\.client"):
        read_update(request("client"))
    with pytest.raises(InvalidField, match=r"lease\.client"):
        read_update(request(client="bob"))


def test_a_longer_duration_replaces_the_stored_one() -> None:
    assert new_times(lease(), Update(Times(duration=2 * HOUR))) == Times(duration=2 * HOUR)


def test_nothing_asked_changes_nothing() -> None:
    stored = lease(begin=NOON, end=NOON + HOUR)
    assert new_times(stored, Update(Times())) == Times(NOON, NOON + HOUR, HOUR)
    assert spec_patch(stored, Times(NOON, NOON + HOUR, HOUR), "alice") == {}


def test_a_cleared_end_leaves_the_duration() -> None:
    stored = lease(exporter=None, begin=NOON, end=NOON + HOUR)
    assert new_times(stored, Update(Times(), frozenset({"end_time"}))) == Times(begin=NOON, duration=HOUR)


def test_clearing_the_only_length_is_refused() -> None:
    with pytest.raises(InvalidField, match="duration"):
        new_times(lease(), Update(Times(), frozenset({"duration"})))


def test_the_begin_of_a_lease_that_has_an_exporter_stays() -> None:
    stored = lease(begin=NOON)
    with pytest.raises(InvalidField, match="begin_time"):
        new_times(stored, Update(Times(), frozenset({"begin_time"})))
    with pytest.raises(InvalidField, match="begin_time"):
        new_times(stored, Update(Times(begin=NOON + HOUR, duration=HOUR)))


def test_the_patch_has_only_what_changes() -> None:
    stored = lease(begin=NOON, end=NOON + HOUR)
    patch = spec_patch(stored, Times(begin=NOON, duration=2 * HOUR), "bob")
    assert patch == {"clientRef": {"name": "bob"}, "duration": "2h0m0s", "endTime": None}


def test_only_a_lease_with_an_exporter_goes_to_a_client_of_its_namespace() -> None:
    check_transfer(lease(), Key("lab", "bob"))
    with pytest.raises(InvalidField, match="namespace lab"):
        check_transfer(lease(), Key("other", "bob"))
    with pytest.raises(NotNow):
        check_transfer(lease(exporter=None), Key("lab", "bob"))


BOARD = Exporter(meta("board", site="x"))
ALICE = Client(meta("alice", team="a"))
BOB = Client(meta("bob", team="b"))
ONLY_TEAM_A = Access(
    [
        Policy(
            meta("p"),
            Selector((("site", "x"),)),
            (PolicyRule(clients=(Selector((("team", "a"),)),), maximum=2 * HOUR),),
        )
    ]
)


def test_an_extension_obeys_the_longest_allowed() -> None:
    check_policy(lease(), Times(duration=2 * HOUR), ALICE, BOARD, ONLY_TEAM_A)
    with pytest.raises(InvalidField, match=r"lease\.duration.*at most 2h0m0s"):
        check_policy(lease(), Times(duration=3 * HOUR), ALICE, BOARD, ONLY_TEAM_A)


def test_a_shorter_lease_is_always_allowed() -> None:
    long = lease(duration=9 * HOUR)
    check_policy(long, Times(duration=8 * HOUR), ALICE, BOARD, ONLY_TEAM_A)


def test_a_transfer_obeys_the_policies_of_the_new_owner() -> None:
    with pytest.raises(NotAllowed, match="client bob"):
        check_policy(lease(), Times(duration=HOUR), BOB, BOARD, ONLY_TEAM_A)
    check_policy(lease(), Times(duration=HOUR), BOB, BOARD, Access([]))


def test_without_an_exporter_the_operator_decides_later() -> None:
    check_policy(lease(exporter=None), Times(duration=9 * HOUR), ALICE, None, ONLY_TEAM_A)


@pytest.mark.parametrize(
    ("owner", "duration", "expected"),
    [("bob", HOUR, True), ("alice", HOUR, False), ("carol", HOUR, False), ("bob", 2 * HOUR, False)],
    ids=["done", "still the old owner's", "another's", "owner moved, times not"],
)
def test_a_transfer_whose_answer_was_lost_is_known_by_its_effect(
    owner: str, duration: timedelta, expected: bool
) -> None:
    update = Update(Times(duration=HOUR), client=Key("lab", "bob"))
    seen = Lease(meta("l"), LeaseSpec(owner, duration=duration), LeaseStatus(exporter="board", begin=NOON))
    assert handed_over(seen, update) is expected


def test_an_update_of_times_alone_hands_nothing_over() -> None:
    assert not handed_over(lease(), Update(Times(duration=HOUR)))
