"""The small pure decisions of the front end."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import grpc.aio
import pytest

from lablease.errors import (
    AlreadyExists,
    Gone,
    InvalidField,
    LableaseError,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotNow,
    OutcomeUnknown,
    Stale,
    Unavailable,
)
from lablease.grpc_frontend.errors import Boundary, refusal
from lablease.grpc_frontend.heartbeat import heartbeat_name, micro_time
from lablease.grpc_frontend.ids import uuid7
from lablease.grpc_frontend.lab import LabSettings, parse_lab_settings
from lablease.grpc_frontend.leases import active, creation_labels, decided
from lablease.grpc_frontend.paging import page
from lablease.grpc_frontend.routers import Router, choose
from lablease.grpc_frontend.services.client import tag_selector
from lablease.grpc_frontend.services.dialling import NotYet, Open, judge
from lablease.grpc_frontend.services.exporters import registered_labels
from lablease.grpc_frontend.sessions import LAST_SEEN_EVERY, last_seen_due
from lablease.model.exporter import Exporter, ExporterStatus, Session
from lablease.model.keys import Key
from lablease.model.lease import Lease, LeaseSpec, LeaseStatus
from lablease.model.meta import LABEL_ENDED, Condition, Meta, Truth
from lablease.model.selector import Operator, Requirement, Selector
from lablease.wire.codec_client import LabelRules

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CODE = grpc.StatusCode


def meta(name: str, **labels: str) -> Meta:
    return Meta(Key("lab", name), f"uid-{name}", "7", 1, NOON, labels)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidField("a", "b"), CODE.INVALID_ARGUMENT),
        (NotFound("lease", "x"), CODE.NOT_FOUND),
        (AlreadyExists("lease", "x"), CODE.ALREADY_EXISTS),
        (NotAllowed("x"), CODE.PERMISSION_DENIED),
        (NotAuthenticated("x"), CODE.UNAUTHENTICATED),
        (NotNow("x"), CODE.FAILED_PRECONDITION),
        (Stale("x"), CODE.ABORTED),
        (Unavailable("x"), CODE.UNAVAILABLE),
        (OutcomeUnknown("x"), CODE.UNAVAILABLE),
        (Gone("x"), CODE.UNAVAILABLE),
        (LableaseError("x"), CODE.INTERNAL),
    ],
)
def test_each_error_has_its_code(error: LableaseError, code: grpc.StatusCode) -> None:
    assert refusal(error)[0] is code


def test_details_are_one_line() -> None:
    assert refusal(NotNow("a\n  b\tc"))[1] == "a b c"


def test_only_the_one_text_that_jmp_knows_says_expired() -> None:
    assert refusal(NotAuthenticated("token is expired"))[1] == "token is expired"
    assert refusal(NotNow("the hook said: licence expired"))[1] == "the hook said: licence ended"


class Aborted(grpc.aio.AbortError):
    pass


class Context:
    def __init__(self) -> None:
        self.given: tuple[grpc.StatusCode, str] | None = None

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.given = code, details
        raise Aborted


async def test_what_nobody_expected_reaches_the_peer_as_an_id_only() -> None:
    context = Context()
    codes: list[str] = []
    with pytest.raises(Aborted):
        async with Boundary(context, "dial", codes.append):
            raise KeyError("Bearer secret")
    assert codes == ["INTERNAL"]
    assert context.given is not None
    assert context.given[0] is CODE.INTERNAL
    assert re.fullmatch(r"internal error, request [0-9a-f]{12}", context.given[1])


async def test_the_end_of_a_call_passes_the_boundary_unchanged() -> None:
    context = Context()
    codes: list[str] = []
    for error in (asyncio.CancelledError(), Aborted()):
        with pytest.raises(type(error)):
            async with Boundary(context, "status", codes.append):
                raise error
    async with Boundary(context, "status", codes.append):
        pass
    assert context.given is None
    assert codes == ["CANCELLED", "CANCELLED", "OK"]


def test_ids_sort_by_time_and_are_of_version_7() -> None:
    early, late = uuid7(NOON), uuid7(NOON + timedelta(milliseconds=1))
    assert early < late
    assert UUID(early).version == 7
    assert UUID(early).variant == "specified in RFC 4122"
    assert uuid7(NOON, 0) == "019ca945-0a00-7000-8000-000000000000"
    assert uuid7(NOON, 2**74 - 1).endswith("-7fff-bfff-ffffffffffff")


def test_pages_join_to_the_whole_list_without_repetition() -> None:
    names = [f"n{number:02}" for number in range(7)]
    first, token = page(reversed(names), str, 3, "")
    second, token = page(names, str, 3, token)
    third, last = page(names, str, 3, token)
    assert first + second + third == names
    assert last == ""


def test_a_page_goes_on_after_a_name_that_was_deleted_meanwhile() -> None:
    _, token = page(["a", "b", "c", "d"], str, 2, "")
    assert page(["a", "c", "d"], str, 2, token) == (["c", "d"], "")


@pytest.mark.parametrize(
    ("size", "token", "field"), [(-1, "", "page_size"), (1, "§", "page_token"), (1, "a", "page_token")]
)
def test_bad_paging_names_the_field(size: int, token: str, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        page(["a"], str, size, token)
    assert caught.value.field == field


PLAIN = Router("plain:1")
SITE = Router("site:1", {"site": "x"})
LEASE = Key("lab", "l")


def test_the_router_with_most_fitting_labels_is_chosen() -> None:
    assert choose([PLAIN, SITE], {"site": "x", "a": "b"}, LEASE) == SITE
    assert choose([PLAIN, SITE], {"site": "y"}, LEASE) == PLAIN
    assert choose([SITE], {}, LEASE) is None


def test_the_choice_is_stable_and_the_loss_of_a_router_moves_only_its_leases() -> None:
    routers = [Router(f"r{number}:1") for number in range(4)]
    leases = [Key("lab", f"l{number}") for number in range(200)]
    before = {lease: choose(routers, {}, lease) for lease in leases}
    assert before == {lease: choose(reversed(routers), {}, lease) for lease in leases}
    assert {router.endpoint for router in before.values() if router} == {router.endpoint for router in routers}
    after = {lease: choose(routers[1:], {}, lease) for lease in leases}
    assert all(after[lease] == router for lease, router in before.items() if router != routers[0])


def lease(status: LeaseStatus | None = None, *, labels: dict[str, str] | None = None, **spec: object) -> Lease:
    wanted = LeaseSpec("alice", **({"duration": HOUR} | spec))  # type: ignore[arg-type]
    return Lease(meta("l", **(labels or {})), wanted, status or LeaseStatus())


def said(kind: str, truth: Truth = Truth.TRUE) -> tuple[Condition, ...]:
    return (Condition(kind, truth, "Because", "", NOON),)


@pytest.mark.parametrize(
    ("looked", "expected"),
    [
        (lease(), False),
        (lease(LeaseStatus(conditions=said("Pending"))), False),
        (lease(LeaseStatus(exporter="b", conditions=said("Ready"))), True),
        (lease(LeaseStatus(conditions=said("Unsatisfiable"))), True),
        (lease(LeaseStatus(conditions=said("Invalid"))), True),
        (lease(LeaseStatus(ended=True, conditions=said("Ready", Truth.FALSE))), True),
        (lease(release=True), True),
        (lease(begin=NOON + HOUR), False),
        (lease(LeaseStatus(conditions=said("Pending")), begin=NOON + HOUR), True),
        (lease(LeaseStatus(conditions=said("Pending")), begin=NOON), False),
    ],
    ids=[
        "nothing said",
        "waits",
        "ready",
        "unsatisfiable",
        "invalid",
        "ended",
        "released",
        "scheduled, nothing said",
        "scheduled and told so",
        "its begin has come",
    ],
)
def test_what_counts_as_decided(looked: Lease, expected: bool) -> None:
    assert decided(looked, NOON) is expected


def test_a_lease_is_active_until_its_end_is_asked_for() -> None:
    assert active(lease())
    assert not active(lease(release=True))
    assert not active(lease(LeaseStatus(ended=True)))
    assert not active(lease(labels={LABEL_ENDED: "true"}))


def test_a_new_lease_carries_its_tags_and_what_it_asks_for_but_no_reserved_label() -> None:
    selector = Selector(
        (("board", "rpi"), ("jumpstarter.dev/lease-ended", "true"), ("metadata.jumpstarter.dev/x", "y")),
        (Requirement("site", Operator.EXISTS),),
    )
    assert creation_labels(LeaseSpec("alice", selector, tags={"team": "a"})) == {
        "board": "rpi",
        "metadata.jumpstarter.dev/team": "a",
        "lablease.dev/origin": "frontend",
    }


def test_tags_are_looked_for_in_their_labels() -> None:
    expected = Selector(
        (("metadata.jumpstarter.dev/team", "a"),),
        (Requirement("metadata.jumpstarter.dev/job", Operator.EXISTS),),
    )
    assert tag_selector("team=a,job") == expected
    with pytest.raises(InvalidField, match="tag_filter"):
        tag_selector("=")


SESSION = Session("f", "s", NOON)
HELD = lease(LeaseStatus(exporter="b", grant=5, begin=NOON))


def board(status: ExporterStatus | None, session: Session | None = SESSION, message: str = "") -> Exporter:
    return Exporter(meta("b"), lease="l", grant=5, status=status, session=session, status_message=message)


@pytest.mark.parametrize(
    "status",
    [
        None,
        ExporterStatus.UNSPECIFIED,
        ExporterStatus.LEASE_READY,
        ExporterStatus.BEFORE_LEASE_HOOK,
        ExporterStatus.AFTER_LEASE_HOOK,
    ],
)
def test_a_tunnel_opens_in_these_states(status: ExporterStatus | None) -> None:
    found = judge(HELD, board(status))
    assert isinstance(found, Open)
    assert (found.grant.number, found.grant.client, found.grant.end) == (5, "alice", NOON + HOUR)


@pytest.mark.parametrize(
    ("looked", "exporter", "error", "words"),
    [
        (lease(), None, NotNow, "not ready"),
        (HELD, board(ExporterStatus.AVAILABLE), NotNow, "not ready"),
        (HELD, Exporter(meta("b"), lease="l", grant=4, session=SESSION), NotNow, "not ready"),
        (HELD, None, Unavailable, "not known"),
        (HELD, board(ExporterStatus.OFFLINE), Unavailable, "not connected"),
        (HELD, board(ExporterStatus.LEASE_READY, session=None), Unavailable, "not connected"),
    ],
    ids=["no exporter yet", "available", "slot not agreed", "exporter unknown", "offline", "no session"],
)
def test_where_waiting_may_help_the_answer_says_so(
    looked: Lease, exporter: Exporter | None, error: type[LableaseError], words: str
) -> None:
    found = judge(looked, exporter)
    assert isinstance(found, NotYet)
    assert type(found.error) is error
    assert words in str(found.error)


@pytest.mark.parametrize(
    ("looked", "exporter", "words"),
    [
        (lease(LeaseStatus(ended=True, exporter="b", grant=5)), board(ExporterStatus.LEASE_READY), "ended"),
        (lease(LeaseStatus(exporter="b", grant=5), release=True), board(ExporterStatus.LEASE_READY), "ended"),
        (HELD, board(ExporterStatus.BEFORE_LEASE_HOOK_FAILED, message="no cable"), "before the lease failed: no cable"),
        (HELD, board(ExporterStatus.AFTER_LEASE_HOOK_FAILED), "after the lease failed"),
    ],
    ids=["ended", "released", "failed before", "failed after"],
)
def test_where_waiting_cannot_help_the_answer_comes_at_once(looked: Lease, exporter: Exporter, words: str) -> None:
    with pytest.raises(NotNow) as caught:
        judge(looked, exporter)
    assert words in str(caught.value)
    assert "not ready" not in str(caught.value)


def test_register_takes_over_only_its_own_prefix() -> None:
    assert registered_labels({"jumpstarter.dev/x": "1", "board": "rpi"}) == {"jumpstarter.dev/x": "1"}
    for key, value in (("jumpstarter.dev/", "1"), ("jumpstarter.dev/a b", "1"), ("jumpstarter.dev/x", "a b")):
        with pytest.raises(InvalidField, match="labels"):
            registered_labels({key: value})


def test_last_seen_is_due_within_a_fifth_before_its_interval() -> None:
    seen = Exporter(meta("b"), last_seen=NOON)
    assert last_seen_due(seen, 0.0) == NOON + LAST_SEEN_EVERY
    assert last_seen_due(seen, 1.0) == NOON + LAST_SEEN_EVERY * 0.8
    assert last_seen_due(Exporter(meta("b")), 0.5) is None


def test_lab_settings_are_read_and_unknown_keys_left_alone() -> None:
    text = "hiddenLabels: {keys: [secret]}\ndeprecatedLabels: {keys: {old: use new}}\nleasePolicy: {maxTags: 3}\nx: 1\n"
    assert parse_lab_settings(text) == LabSettings(LabelRules(frozenset({"secret"}), {"old": "use new"}), 3)
    assert parse_lab_settings("") == LabSettings()
    assert parse_lab_settings("leasePolicy: {maxTags: 0}").maximum_tags == 10
    assert parse_lab_settings("leasePolicy: {maxTags: 50}").maximum_tags == 10


@pytest.mark.parametrize("text", ["a: [", "- 1", "hiddenLabels: {keys: 3}", "leasePolicy: {maxTags: many}"])
def test_lab_settings_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(InvalidField):
        parse_lab_settings(text)


def test_a_heartbeat_is_spelled_as_a_micro_time() -> None:
    assert micro_time(NOON) == "2026-03-01T12:00:00.000000Z"
    assert heartbeat_name("a") == "lablease-frontend-a"
