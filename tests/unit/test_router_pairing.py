from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lablease.grpc_frontend.router.pairing import (
    MEMORY,
    Arrival,
    Ending,
    Late,
    Limits,
    PairingTable,
    Pairs,
    Reason,
    Refusal,
    Refused,
    WaitingHalf,
    Waits,
)
from lablease.model.grant import Grant
from lablease.tokens.router import LEEWAY, Role, RouterClaims

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)
GRANT = Grant("lab", "board", "lease-1", 1000, "alice")
LIMITS = Limits(pending=3, pending_per_exporter=2, tunnels=2)


def claims(
    role: Role, stream: str = "s1", grant: Grant = GRANT, *, issued: datetime = NOW, router: str = "r"
) -> RouterClaims:
    return RouterClaims(stream, role, grant, router, issued + 30 * MINUTE, f"{stream}-{role}", issued)


CLIENT, EXPORTER = claims(Role.CLIENT), claims(Role.EXPORTER)


def table() -> PairingTable:
    return PairingTable("r", LIMITS)


def paired(grant: Grant = GRANT, stream: str = "s1", *, under: PairingTable | None = None) -> PairingTable:
    found = under or table()
    found.arrive(claims(Role.CLIENT, stream, grant), NOW)
    arrival = found.arrive(claims(Role.EXPORTER, stream, grant), NOW)
    assert isinstance(arrival.outcome, Pairs)
    return found


def refused(arrival: Arrival) -> Refusal:
    assert isinstance(arrival.outcome, Refused), arrival
    return arrival.outcome.refusal


def test_the_first_half_waits_and_the_second_pairs() -> None:
    pairing = table()

    assert pairing.arrive(CLIENT, NOW) == Arrival(Waits(announce=True))
    assert pairing.waiting() == (WaitingHalf("s1", GRANT),)
    assert pairing.arrive(EXPORTER, NOW + SECOND) == Arrival(Pairs(since=NOW))
    assert (pairing.waiting(), pairing.pending, pairing.tunnels) == ((), 0, 1)


def test_an_exporters_half_waits_unannounced() -> None:
    pairing = table()

    assert pairing.arrive(EXPORTER, NOW) == Arrival(Waits(announce=False))
    assert (pairing.waiting(), pairing.pending) == ((), 1)
    assert pairing.arrive(CLIENT, NOW) == Arrival(Pairs(since=NOW))


@pytest.mark.parametrize("role", list(Role))
def test_a_half_is_used_once_while_it_waits_while_it_is_paired_and_afterwards(role: Role) -> None:
    pairing, again = table(), claims(role)
    other = claims(Role.EXPORTER if role is Role.CLIENT else Role.CLIENT)
    pairing.arrive(again, NOW)
    assert refused(pairing.arrive(again, NOW)) is Refusal.TOKEN
    pairing.arrive(other, NOW)
    assert refused(pairing.arrive(again, NOW)) is Refusal.TOKEN
    pairing.leave("s1", NOW)
    assert refused(pairing.arrive(again, NOW + 29 * MINUTE)) is Refusal.TOKEN


def test_who_comes_after_its_partner_has_left_is_late_and_used_up() -> None:
    pairing = table()
    pairing.arrive(CLIENT, NOW)
    assert pairing.leave("s1", NOW)

    assert pairing.arrive(EXPORTER, NOW) == Arrival(Late())
    assert refused(pairing.arrive(EXPORTER, NOW)) is Refusal.TOKEN
    assert refused(pairing.arrive(CLIENT, NOW)) is Refusal.TOKEN
    assert pairing.pending == 0


def test_used_halves_are_forgotten_when_no_token_for_them_can_be_valid() -> None:
    pairing = table()
    pairing.arrive(CLIENT, NOW)
    pairing.leave("s1", NOW)
    pairing.arrive(EXPORTER, NOW + 20 * MINUTE)

    assert refused(pairing.arrive(claims(Role.CLIENT, issued=NOW + MEMORY), NOW + MEMORY)) is Refusal.TOKEN
    later = NOW + 20 * MINUTE + MEMORY
    assert pairing.arrive(claims(Role.CLIENT, issued=later), later) == Arrival(Waits(announce=True))


@pytest.mark.parametrize(
    "grant",
    [
        replace(GRANT, lease="other"),
        replace(GRANT, client="bob"),
        replace(GRANT, exporter="other"),
        replace(GRANT, namespace="other"),
        replace(GRANT, number=1001),
    ],
)
def test_halves_meet_only_under_the_same_grant(grant: Grant) -> None:
    pairing = table()
    pairing.arrive(CLIENT, NOW)

    arrival = pairing.arrive(claims(Role.EXPORTER, grant=grant), NOW)
    assert refused(arrival) is Refusal.TOKEN
    assert arrival.endings == (), "a token that does not fit must teach nothing"


def test_a_token_for_another_router_is_refused() -> None:
    assert refused(table().arrive(claims(Role.CLIENT, router="other"), NOW)) is Refusal.TOKEN


def test_a_lower_grant_than_the_highest_known_is_refused_and_what_it_has_ends() -> None:
    pairing = paired()
    pairing.arrive(claims(Role.CLIENT, "s2"), NOW)
    newer = replace(GRANT, lease="lease-2", number=1001)

    arrival = pairing.arrive(claims(Role.CLIENT, "s3", newer), NOW)
    assert arrival.outcome == Waits(announce=True)
    assert arrival.endings == (Ending("s1", Reason.SUPERSEDED), Ending("s2", Reason.SUPERSEDED))
    assert refused(pairing.arrive(claims(Role.CLIENT, "s4"), NOW)) is Refusal.LEASE
    assert (pairing.pending, pairing.tunnels) == (1, 0)


def test_grants_of_other_exporters_do_not_matter() -> None:
    pairing = paired()
    for other in (replace(GRANT, exporter="b2", number=9999), replace(GRANT, namespace="n2", number=9999)):
        assert pairing.revoke(other, client_only=False, now=NOW) == ()
    assert pairing.tunnels == 1


def test_a_revocation_ends_and_refuses_this_grant_and_lower_ones() -> None:
    pairing = paired()
    pairing.arrive(claims(Role.CLIENT, "s2"), NOW)

    assert pairing.revoke(GRANT, client_only=False, now=NOW) == (
        Ending("s1", Reason.REVOKED),
        Ending("s2", Reason.REVOKED),
    )
    for grant in (GRANT, replace(GRANT, number=999), replace(GRANT, client="bob")):
        assert refused(pairing.arrive(claims(Role.CLIENT, "s3", grant), NOW)) is Refusal.LEASE
    assert pairing.arrive(claims(Role.CLIENT, "s3", replace(GRANT, number=1001)), NOW).outcome == Waits(announce=True)


def test_a_revocation_that_comes_before_the_token_counts() -> None:
    pairing = table()
    pairing.revoke(GRANT, client_only=False, now=NOW)

    last_moment = NOW + 30 * MINUTE + LEEWAY
    assert refused(pairing.arrive(claims(Role.CLIENT, issued=NOW), last_moment)) is Refusal.LEASE


def test_a_revocation_of_a_newer_grant_ends_older_ones() -> None:
    pairing = paired()

    assert pairing.revoke(replace(GRANT, number=1001), client_only=True, now=NOW) == (Ending("s1", Reason.SUPERSEDED),)


def test_a_late_revocation_of_an_older_grant_changes_nothing() -> None:
    pairing = paired()

    assert pairing.revoke(replace(GRANT, number=999), client_only=False, now=NOW) == ()
    assert pairing.move_end(replace(GRANT, number=999), NOW, NOW) == ()
    assert pairing.tunnels == 1


def test_a_transfer_ends_and_refuses_the_old_client_only() -> None:
    pairing = paired(under=paired(replace(GRANT, client="bob"), "s2"))

    assert pairing.revoke(GRANT, client_only=True, now=NOW) == (Ending("s1", Reason.REVOKED),)
    assert refused(pairing.arrive(claims(Role.CLIENT, "s3"), NOW)) is Refusal.LEASE
    assert pairing.arrive(claims(Role.CLIENT, "s4", replace(GRANT, client="bob")), NOW).outcome == Waits(announce=True)


def test_a_client_that_gets_the_lease_back_is_served_with_new_tokens() -> None:
    pairing = table()
    pairing.revoke(GRANT, client_only=True, now=NOW)

    unsure = claims(Role.CLIENT, "s1", issued=NOW + LEEWAY)
    assert refused(pairing.arrive(unsure, NOW + MINUTE)) is Refusal.LEASE
    new = claims(Role.CLIENT, "s2", issued=NOW + LEEWAY + SECOND)
    assert pairing.arrive(new, NOW + MINUTE).outcome == Waits(announce=True)


def test_a_lease_ends_exactly_at_its_planned_end() -> None:
    end = NOW + HOUR
    pairing = paired(replace(GRANT, end=end))

    assert pairing.planned_end("s1") == end
    assert pairing.due(end - TICK) == ()
    assert refused(pairing.arrive(claims(Role.CLIENT, "s2", replace(GRANT, end=end)), end)) is Refusal.LEASE
    assert pairing.due(end) == (Ending("s1", Reason.PLANNED_END),)
    assert pairing.due(end) == ()
    assert pairing.next_due() is None or pairing.next_due() == CLIENT.expires


def test_an_end_is_moved_for_the_grant_that_it_is_told_for() -> None:
    pairing = paired(replace(GRANT, end=NOW + HOUR))

    assert pairing.move_end(GRANT, NOW + 2 * HOUR, NOW) == ()
    assert pairing.move_end(replace(GRANT, number=999), NOW + MINUTE, NOW) == ()
    assert pairing.due(NOW + HOUR) == ()
    assert pairing.due(NOW + 2 * HOUR) == (Ending("s1", Reason.PLANNED_END),)


def test_an_end_that_is_moved_into_the_past_ends_at_once() -> None:
    pairing = paired()

    assert pairing.move_end(GRANT, NOW, NOW) == (Ending("s1", Reason.PLANNED_END),)


def test_an_end_can_be_taken_away() -> None:
    pairing = paired(replace(GRANT, end=NOW + HOUR))
    pairing.move_end(GRANT, None, NOW)

    assert pairing.due(NOW + HOUR) == ()
    assert pairing.planned_end("s1") is None


@pytest.mark.parametrize("moved", [NOW + MINUTE, NOW + 3 * HOUR])
def test_a_token_signed_before_the_end_was_moved_does_not_move_it_back(moved: datetime) -> None:
    pairing = paired(replace(GRANT, end=NOW + HOUR))
    pairing.move_end(GRANT, moved, NOW + SECOND)
    pairing.arrive(claims(Role.CLIENT, "s2", replace(GRANT, end=NOW + HOUR), issued=NOW), NOW + 2 * SECOND)

    assert pairing.planned_end("s1") == moved


def test_a_token_signed_later_tells_the_end_even_if_the_message_was_lost() -> None:
    pairing = paired(replace(GRANT, end=NOW + HOUR))
    later = NOW + MINUTE
    pairing.arrive(claims(Role.CLIENT, "s2", replace(GRANT, end=NOW + 2 * HOUR), issued=later), later)

    assert pairing.planned_end("s1") == NOW + 2 * HOUR


def test_of_two_tokens_the_later_one_tells_the_end() -> None:
    pairing = table()
    pairing.arrive(claims(Role.CLIENT, "s1", replace(GRANT, end=NOW + 2 * HOUR), issued=NOW + MINUTE), NOW + MINUTE)
    pairing.arrive(claims(Role.CLIENT, "s2", replace(GRANT, end=NOW + HOUR), issued=NOW), NOW + MINUTE)

    assert pairing.planned_end("s1") == NOW + 2 * HOUR


def test_a_half_waits_as_long_as_its_token_lives() -> None:
    pairing = table()
    pairing.arrive(CLIENT, NOW)

    assert pairing.next_due() == CLIENT.expires
    assert pairing.due(CLIENT.expires - TICK) == ()
    assert pairing.due(CLIENT.expires) == (Ending("s1", Reason.UNPAIRED),)


def test_a_tunnel_outlives_its_tokens() -> None:
    assert paired().due(NOW + 10 * HOUR) == ()


def test_limits_refuse_as_busy_and_use_no_token_up() -> None:
    pairing = table()
    other = replace(GRANT, exporter="b2")
    pairing.arrive(claims(Role.CLIENT, "s1"), NOW)
    pairing.arrive(claims(Role.CLIENT, "s2"), NOW)
    assert refused(pairing.arrive(claims(Role.CLIENT, "s3"), NOW)) is Refusal.BUSY
    pairing.arrive(claims(Role.CLIENT, "s4", other), NOW)
    assert refused(pairing.arrive(claims(Role.CLIENT, "s5", other), NOW)) is Refusal.BUSY

    pairing.leave("s1", NOW)
    assert pairing.arrive(claims(Role.CLIENT, "s5", other), NOW).outcome == Waits(announce=True)


def test_a_tunnel_too_many_is_refused_and_its_first_half_waits_on() -> None:
    pairing = paired(stream="s2", under=paired())
    pairing.arrive(claims(Role.CLIENT, "s3"), NOW)
    assert refused(pairing.arrive(claims(Role.EXPORTER, "s3"), NOW)) is Refusal.BUSY

    pairing.leave("s1", NOW)
    assert pairing.arrive(claims(Role.EXPORTER, "s3"), NOW).outcome == Pairs(since=NOW)


def test_draining_ends_what_waits_refuses_what_comes_and_keeps_tunnels() -> None:
    pairing = paired()
    pairing.arrive(claims(Role.CLIENT, "s2"), NOW)

    assert pairing.drain(NOW) == (Ending("s2", Reason.DRAINED),)
    assert refused(pairing.arrive(claims(Role.CLIENT, "s3"), NOW)) is Refusal.BUSY
    assert pairing.end_all(NOW) == (Ending("s1", Reason.DRAINED),)
    assert (pairing.pending, pairing.tunnels) == (0, 0)


def test_leaving_twice_counts_once() -> None:
    pairing = paired()

    assert pairing.leave("s1", NOW)
    assert not pairing.leave("s1", NOW)
    assert pairing.tunnels == 0


def test_memory_is_given_back_when_nothing_can_come_of_it() -> None:
    pairing = table()
    for number in range(500):
        stream, when = f"s{number}", NOW + number * SECOND
        grant = replace(GRANT, exporter=f"b{number}", end=when + HOUR)
        pairing.arrive(claims(Role.CLIENT, stream, grant, issued=when), when)
        pairing.revoke(grant, client_only=False, now=when)
    later = NOW + 3 * HOUR
    pairing.due(later)
    pairing.arrive(claims(Role.CLIENT, "last", issued=later), later)

    assert pairing.remembered() == 3, "one fence, one waiting half, its deadline"


def test_an_open_tunnel_is_remembered_however_long_it_lasts() -> None:
    pairing = paired(replace(GRANT, end=NOW + 10 * HOUR))
    for hours in range(1, 10):
        pairing.revoke(replace(GRANT, exporter="other"), client_only=False, now=NOW + hours * HOUR)

    assert pairing.revoke(GRANT, client_only=False, now=NOW + 9 * HOUR) == (Ending("s1", Reason.REVOKED),)


def test_moving_the_end_again_and_again_does_not_grow_memory() -> None:
    pairing = paired()
    for number in range(5000):
        pairing.move_end(GRANT, NOW + HOUR + number * SECOND, NOW + number * TICK)

    assert pairing.remembered() < 200
    assert pairing.due(NOW + HOUR + 4999 * SECOND) == (Ending("s1", Reason.PLANNED_END),)
