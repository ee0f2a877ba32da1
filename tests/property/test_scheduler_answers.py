"""The scheduler's answer, checked against its own definition by a scheduler that is tiny and obviously right."""

from datetime import timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from lablease.model.exporter import Exporter
from lablease.model.lease import Lease
from lablease.model.testing import NOON, Raw, client, exporter, lease, metadata, policy, rule
from lablease.rules.allocation import Room, assign, claim, offer, taste, turn_of
from lablease.rules.lifecycle import Queue, lease_step
from lablease.rules.policy import Approval
from lablease.rules.world import World

BOARDS, TEAMS, SITES = ("rpi4", "x86"), ("red", "blue"), ("a", "b")

boards = st.sampled_from(BOARDS)


@st.composite
def leases(draw: st.DrawFn) -> list[Lease]:
    made: list[Lease] = []
    for number in range(draw(st.integers(0, 9))):
        spec: Raw = {
            "clientRef": {"name": draw(st.sampled_from(TEAMS))},
            "duration": draw(st.sampled_from(("1h", "3h"))),
        }
        match draw(st.sampled_from(("board", "pin", "all", "site"))):
            case "board":
                spec["selector"] = {"matchLabels": {"board": draw(boards)}}
            case "pin":
                spec |= {"selector": {}, "exporterRef": {"name": f"e{draw(st.integers(0, 5))}"}}
            case "site":
                spec["selector"] = {"matchLabels": {"site": draw(st.sampled_from(SITES))}}
            case _:
                spec["selector"] = {"matchExpressions": [{"key": "board", "operator": "Exists"}]}
        created = NOON + timedelta(seconds=draw(st.integers(0, 3000)))
        made.append(lease(f"l{number}", meta=metadata(f"l{number}", created=created), **spec))
    return made


@st.composite
def exporters(draw: st.DrawFn) -> list[Exporter]:
    made: list[Exporter] = []
    for number in range(draw(st.integers(0, 6))):
        labels = {"board": draw(boards), "site": draw(st.sampled_from(SITES))}
        name = f"e{number}"
        made.append(exporter(name, meta=metadata(name, labels=labels), grant=draw(st.integers(0, 2))))
    return made


@st.composite
def policies(draw: st.DrawFn) -> list[Raw]:
    made: list[Raw] = []
    for _ in range(draw(st.integers(0, 3))):
        team = draw(st.sampled_from((None, *TEAMS)))
        fields: Raw = {"priority": draw(st.integers(0, 3)), "spotAccess": draw(st.booleans())}
        longest = draw(st.sampled_from((None, "2h")))
        if longest is not None:
            fields["maximumDuration"] = longest
        site = draw(st.sampled_from((None, *SITES)))
        made.append({"rule": rule(None if team is None else {"team": team}, **fields), "site": site})
    return made


def build(there: list[Exporter], rules: list[Raw]) -> World:
    world = World("lab")
    for team in TEAMS:
        world.clients[team] = client(team, labels={"team": team})
    for item in there:
        world.put_exporter(item)
    for number, entry in enumerate(rules):
        site = None if entry["site"] is None else {"site": entry["site"]}
        world.put_policy(policy(f"p{number}", entry["rule"], exporters=site))
    return world


def wishes(world: World, waiting: list[Lease]) -> dict[str, dict[str, Approval]]:
    steps = {item.key.name: lease_step(item, world, NOON) for item in waiting}
    return {name: dict(step.choices) for name, step in steps.items() if isinstance(step, Queue)}


def fast(world: World, waiting: list[Lease]) -> dict[str, str]:
    room = Room()
    for item in waiting:
        step = lease_step(item, world, NOON)
        if isinstance(step, Queue):
            room.put(item, step.request)
    offers = [offer(line, world.choices_for(line.request), world.exporters) for line in room.lines]
    return {match.lease: match.exporter for match in assign(offers)}


def slow(world: World, waiting: list[Lease]) -> dict[str, str]:
    """Every lease asks for the best that it was not refused yet; each exporter keeps the best who asked."""
    asked = wishes(world, waiting)
    turns = {item.key.name: turn_of(item) for item in waiting}
    lists = {
        name: sorted(options, key=lambda on: taste(options[on], world.exporters[on])) for name, options in asked.items()
    }
    holder: dict[str, str] = {}
    idle = sorted(lists, reverse=True)
    while idle:
        name = idle.pop()
        if not lists[name]:
            continue
        on = lists[name].pop(0)
        rivals = [name] + ([holder[on]] if on in holder else [])
        winner = min(rivals, key=lambda rival: claim(asked[rival][on], turns[rival]))
        holder[on] = winner
        idle += [rival for rival in rivals if rival != winner]
    return {name: on for on, name in holder.items()}


@settings(max_examples=400, deadline=None)
@given(leases(), exporters(), policies())
def test_the_fast_scheduler_agrees_with_the_obvious_one(
    waiting: list[Lease], there: list[Exporter], rules: list[Raw]
) -> None:
    world = build(there, rules)
    assert fast(world, waiting) == slow(world, waiting)


@settings(max_examples=200, deadline=None)
@given(leases(), exporters(), policies())
def test_nobody_is_passed_over(waiting: list[Lease], there: list[Exporter], rules: list[Raw]) -> None:
    world = build(there, rules)
    got, asked = fast(world, waiting), wishes(world, waiting)
    turns = {item.key.name: turn_of(item) for item in waiting}
    holder = {on: name for name, on in got.items()}
    assert len(holder) == len(got), "one exporter, one lease"
    for name, options in asked.items():
        for on, approval in options.items():
            mine = taste(options[got[name]], world.exporters[got[name]]) if name in got else None
            if mine is not None and mine <= taste(approval, world.exporters[on]):
                continue
            assert on in holder, f"{on} is idle beside {name}"
            assert claim(asked[holder[on]][on], turns[holder[on]]) < claim(approval, turns[name])


@settings(max_examples=100, deadline=None)
@given(leases(), exporters(), policies(), st.randoms(use_true_random=False))
def test_the_order_of_listing_never_matters(
    waiting: list[Lease], there: list[Exporter], rules: list[Raw], chance: Random
) -> None:
    expected = fast(build(there, rules), waiting)
    for _ in range(3):
        chance.shuffle(waiting)
        chance.shuffle(there)
        assert fast(build(there, rules), waiting) == expected
