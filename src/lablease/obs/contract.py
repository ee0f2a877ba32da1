"""The contract, sentence by sentence, against the record. Pure: the record goes in, what was broken comes out.

1. At most one holder per exporter at any time; the number of the grant only grows.
2. Every grant has an end, and no call of the old holder is served 1 s after it was told, nor after the planned end.
3. Among leases of equal priority that may have the same exporter: first come first served (creation, then name).
4. Nothing is lost: every lease gets a decision.
5. Every refusal and every end names its reason, with a message.
6. What was acknowledged is durable.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from lablease.obs.audit import DeviceCall, Json, list_at, mapping_at, text_at
from lablease.obs.replay import Broken, Grant, Replay, Sentence, Tolerance
from lablease.obs.timeline import EXPORTERS, LEASES, Write, revision, uid

T = TypeVar("T")

_KINDS = {
    LEASES: "Lease",
    EXPORTERS: "Exporter",
    "clients.jumpstarter.dev": "Client",
    "exporteraccesspolicies.jumpstarter.dev": "ExporterAccessPolicy",
}


def check(
    writes: Sequence[Write],
    calls: Iterable[DeviceCall] = (),
    *,
    final: Iterable[Json] | None = None,
    until: datetime | None = None,
    tolerance: Tolerance | None = None,
) -> list[Broken]:
    """Return every place where the contract was broken, in the order of the sentences.

    Args:
        writes: the record in order (``timeline.order``).
        calls: what the devices carried out, in any order.
        final: every object that is there at the end, to compare with what was acknowledged; None to skip that.
        until: when the record ends; None: with the last write.
        tolerance: what to overlook.
    """
    allowed = tolerance or Tolerance()
    replay = Replay(writes, allowed)
    last = until or max((write.access.answered for write in writes), default=None)
    broken = [*replay.broken, *_devices(replay, calls, allowed)]
    if last is not None:
        broken += _unfinished(replay, last, allowed)
    if final is not None:
        broken += _durability(writes, final)
    return sorted(broken, key=lambda found: (found.sentence, found.time is None, found.time, found.where))


def _unfinished(replay: Replay, last: datetime, allowed: Tolerance) -> list[Broken]:
    broken: list[Broken] = []
    for key, lease in sorted(replay.leases.items()):
        where, when = replay.seen[key].access.where, replay.seen[key].access.answered
        if lease.holds and lease.planned_end and lease.planned_end + allowed.overdue < last:
            problem = f"lease {key} has not ended, its planned end was {lease.planned_end.isoformat()}"
            broken.append(Broken(Sentence.EVERY_GRANT_ENDS, where, when, problem))
        if not lease.conditions and not lease.ended and lease.created and lease.created + allowed.overdue < last:
            problem = f"lease {key} was never decided"
            broken.append(Broken(Sentence.NOTHING_LOST, where, when, problem))
    return broken


def _devices(replay: Replay, calls: Iterable[DeviceCall], allowed: Tolerance) -> list[Broken]:
    by_exporter: dict[str, list[Grant]] = {}
    for grant in replay.grants:
        by_exporter.setdefault(grant.exporter.name, []).append(grant)
    hooks = {key.name: spans for key, spans in replay.hooks.items()}
    broken: list[Broken] = []
    for call in calls:
        problem = _call_problem(call, by_exporter.get(call.exporter, []), hooks.get(call.exporter, []), allowed)
        if problem:
            name = f"{call.device}.{call.method}" if call.device else call.method
            said = f"exporter {call.exporter}: {name} {problem}"
            broken.append(Broken(Sentence.EVERY_GRANT_ENDS, call.where, call.time, said))
    return broken


def _call_problem(
    call: DeviceCall, grants: Sequence[Grant], hooks: Sequence[tuple[datetime, bool]], allowed: Tolerance
) -> str | None:
    """Say what is wrong with one call, None if nothing. A device that knows no lease is judged by the time alone."""
    known = call.grant is not None or call.lease is not None
    mine = [
        grant
        for grant in grants
        if (call.grant is None or grant.number == call.grant) and (call.lease is None or grant.lease.name == call.lease)
    ]
    if not mine:
        if known:
            return f"was called for lease {call.lease} under grant {call.grant}, which never had it"
        return None if _runs_hook(hooks, call.time) else "was called, and no lease ever had it"
    if not known and _runs_hook(hooks, call.time):
        return None
    problems = {grant.start: _late(call, grant, allowed) for grant in mine}
    if None in problems.values():
        return None
    return problems[max((start for start in problems if start <= call.time), default=min(problems))]


def _late(call: DeviceCall, grant: Grant, allowed: Tolerance) -> str | None:
    if call.time < grant.start:
        return f"was called {(grant.start - call.time).total_seconds():.3f} s before lease {grant.lease} had it"
    if grant.told is not None and call.time > grant.told + allowed.end_told:
        late = (call.time - grant.told).total_seconds()
        return f"was called {late:.3f} s after the end of lease {grant.lease} (grant {grant.number}) was told"
    plans = _in_force(grant.plans, call.time, allowed.end_told)
    if plans and None not in plans:
        planned = max(plan for plan in plans if plan is not None)
        if call.time > planned + allowed.planned_end:
            late = (call.time - planned).total_seconds()
            return f"was called {late:.3f} s after the planned end of lease {grant.lease} (grant {grant.number})"
    clients = _in_force(grant.clients, call.time, allowed.end_told)
    if call.client is not None and clients and call.client not in clients:
        return f"was called by {call.client}, and lease {grant.lease} was {clients[-1]}'s"
    return None


def _in_force(told: Sequence[tuple[datetime, T]], time: datetime, grace: timedelta) -> list[T]:
    """Return what was in force at a time: what was told last before it, and what was replaced less than grace ago."""
    found: list[T] = []
    for index, (since, value) in enumerate(told):
        replaced = told[index + 1][0] if index + 1 < len(told) else None
        if (since <= time or index == 0) and (replaced is None or time <= replaced + grace):
            found.append(value)
    return found


def _runs_hook(spans: Sequence[tuple[datetime, bool]], time: datetime) -> bool:
    running = False
    for since, hook in spans:
        if since > time:
            break
        running = hook
    return running


def _durability(writes: Sequence[Write], final: Iterable[Json]) -> list[Broken]:
    there: Mapping[tuple[str, str, str], Json] = {
        (
            f"{text_at(found, 'kind')}",
            text_at(found, "metadata", "namespace"),
            text_at(found, "metadata", "name"),
        ): found
        for found in final
    }
    last = {(write.access.resource, write.key): write for write in writes}
    broken: list[Broken] = []
    for write in last.values():
        kind = _KINDS.get(write.access.resource, "")
        found = there.get((kind, write.key.namespace, write.key.name))
        if problem := _not_durable(write, found):
            said = f"{kind} {write.key} {problem}"
            broken.append(Broken(Sentence.DURABLE, write.access.where, write.access.answered, said))
    return broken


def _not_durable(write: Write, found: Json | None) -> str | None:
    if write.after is None:
        deleted = uid(write.before)
        return "was deleted and is there" if found and deleted and uid(found) == deleted else None
    if found is None:
        return "was acknowledged and is not there"
    if uid(found) != uid(write.after):
        return "was acknowledged and another one is there"
    if revision(found) < revision(write.after):
        return f"is at revision {revision(found)}, {revision(write.after)} was acknowledged"
    if revision(found) == revision(write.after) and _body(found) != _body(write.after):
        return "is not what was acknowledged under the same revision"
    return None


def _body(found: Json) -> Json:
    """The object without the one part that the audit log leaves out."""
    metadata = {name: value for name, value in mapping_at(found, "metadata").items() if name != "managedFields"}
    return {"metadata": metadata, "spec": found.get("spec"), "status": found.get("status")}


def final_objects(listed: Json) -> list[Json]:
    """Return the objects of a List (``kubectl get leases,exporters -A -o json``), or the one object that it is."""
    return [mapping_at(item) for item in list_at(listed, "items")] if "items" in listed else [listed]
