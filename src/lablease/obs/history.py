"""``lablease history``: reads what the API server and the devices wrote down, and says where the contract was broken.

Exit status: 0 when every sentence holds, 1 when one was broken, 2 when a log cannot be read.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path

import click

from lablease.obs.audit import Access, DeviceCall, Json, Unreadable, mapping_at, read_lines
from lablease.obs.contract import check, final_objects
from lablease.obs.counts import Cost, Counts, LeaseCost, count
from lablease.obs.replay import Broken, Tolerance
from lablease.obs.timeline import Write, order


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checker says about a record."""

    accesses: int
    calls: int
    writes: tuple[Write, ...]
    broken: tuple[Broken, ...]
    counts: Counts

    def cost(self, kind: Cost) -> list[int]:
        """Return how often each lease that was granted and has ended was written or read, in ascending order."""
        return sorted(cost.total(kind, ours=kind is Cost.READ) for cost in self.finished())

    def finished(self) -> list[LeaseCost]:
        """Return the costs of the leases that were granted and have ended."""
        return [cost for cost in self.counts.leases.values() if cost.granted and cost.ended]


def judge(logs: Iterable[Path], *, final: Iterable[Path] = (), tolerance: Tolerance | None = None) -> Verdict:
    """Read logs of either kind and judge the record that they are together.

    Args:
        logs: audit logs and device logs, rotated or not, in any order.
        final: files with what is there at the end (``kubectl get -o json``).
        tolerance: what to overlook.

    Raises:
        Unreadable: a line of a log, or a file of the final state, is not what it should be.
        OSError: a file cannot be read.
    """
    accesses: list[Access] = []
    calls: list[DeviceCall] = []
    for path in logs:
        with path.open(encoding="utf-8") as lines:
            for entry in read_lines(lines, path.name):
                if isinstance(entry, Access):
                    accesses.append(entry)
                else:
                    calls.append(entry)
    objects = [item for path in final for item in final_objects(_read_json(path))]
    writes = order(accesses)
    until = max((one.answered for one in accesses), default=None)
    broken = check(writes, calls, final=objects or None, until=until, tolerance=tolerance)
    return Verdict(len(accesses), len(calls), writes, tuple(broken), count(accesses, writes))


def _read_json(path: Path) -> Json:
    try:
        found = mapping_at(json.loads(path.read_text()))
    except ValueError:
        raise Unreadable(f"{path.name}: not JSON") from None
    if not found:
        raise Unreadable(f"{path.name}: must be an object or a List of objects")
    return found


def as_json(verdict: Verdict) -> str:
    """Return the verdict for a program."""
    leases = [
        {
            "lease": str(key),
            "granted": cost.granted,
            "ended": cost.ended,
            **{kind.value: cost.total(kind) for kind in Cost},
            "read_by_services": cost.total(Cost.READ, ours=True),
        }
        for (key, _), cost in verdict.counts.leases.items()
    ]
    accounts = [
        {"user": user, "agent": agent, "verb": verb, "resource": resource, "requests": number}
        for (user, agent, verb, resource), number in verdict.counts.accounts.most_common()
    ]
    broken = [
        {
            "sentence": int(one.sentence),
            "name": one.sentence.name.lower().replace("_", "-"),
            "where": one.where,
            "time": one.time.isoformat() if one.time else None,
            "problem": one.problem,
        }
        for one in verdict.broken
    ]
    whole = {"broken": broken, "leases": leases, "accounts": accounts, "device_calls": verdict.calls}
    return json.dumps(whole, indent=2)


def as_text(verdict: Verdict) -> str:
    """Return the verdict for a person."""
    asked = f"{verdict.accesses} requests, {len(verdict.writes)} writes to our objects, {verdict.calls} device calls"
    lines = [f"{asked}, {len(verdict.counts.leases)} leases, {len(verdict.finished())} granted and ended"]
    for kind, name in (
        (Cost.WRITE, "writes"),
        (Cost.NO_OP, "writes without effect"),
        (Cost.REFUSED, "refused writes"),
        (Cost.READ, "live reads by services"),
    ):
        found = verdict.cost(kind)
        if found:
            spread = f"median {statistics.median(found):g}, lowest {found[0]}, highest {found[-1]}"
            lines.append(f"{name} of a lease: {spread}")
    for one in verdict.broken:
        when = one.time.isoformat() if one.time else "-"
        lines.append(f"BROKEN {int(one.sentence)} ({_words(one)})  {when}  {one.where}\n    {one.problem}")
    lines.append(f"{len(verdict.broken)} places broken" if verdict.broken else "the contract holds")
    return "\n".join(lines)


def _words(one: Broken) -> str:
    return one.sentence.name.lower().replace("_", " ")


def _tolerance(given: Sequence[str]) -> Tolerance:
    """Read ``name=seconds`` settings."""
    allowed = Tolerance()
    for setting in given:
        name, _, seconds = setting.partition("=")
        names = [found.name.replace("_", "-") for found in fields(Tolerance)]
        try:
            allowed = replace(allowed, **{name.replace("-", "_"): timedelta(seconds=float(seconds))})
        except (TypeError, ValueError):
            raise click.BadParameter(f"{setting}: must be NAME=SECONDS with a name of {', '.join(names)}") from None
    return allowed


@click.command("history", help="Check audit and device logs against the contract.")
@click.argument("logs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--audit", multiple=True, type=click.Path(path_type=Path), help="An audit log; may be given again.")
@click.option("--device", multiple=True, type=click.Path(path_type=Path), help="A device's log; may be given again.")
@click.option("--final", multiple=True, type=click.Path(path_type=Path), help="JSON of all objects at the end.")
@click.option("--tolerate", multiple=True, metavar="NAME=SECONDS", help="Overlook more, or less, of one kind.")
@click.option("--json", "machine", is_flag=True, help="Print JSON, with the costs of every lease and account.")
def main(
    logs: tuple[Path, ...],
    audit: tuple[Path, ...],
    device: tuple[Path, ...],
    final: tuple[Path, ...],
    tolerate: tuple[str, ...],
    machine: bool,
) -> None:
    """Judge a record; logs may also be given without saying which kind they are."""
    paths = (*logs, *audit, *device)
    if not paths:
        raise click.UsageError("give at least one log: lablease history AUDIT_LOG... [DEVICE_LOG...]")
    try:
        verdict = judge(paths, final=final, tolerance=_tolerance(tolerate))
    except Unreadable as error:
        click.echo(f"lablease history: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        click.echo(f"lablease history: cannot read {error.filename}: {error.strerror}", err=True)
        sys.exit(2)
    click.echo(as_json(verdict) if machine else as_text(verdict))
    sys.exit(1 if verdict.broken else 0)


if __name__ == "__main__":
    main()
