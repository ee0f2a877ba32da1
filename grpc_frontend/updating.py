"""What an UpdateLease changes, as pure functions."""

from dataclasses import dataclass
from datetime import datetime

from lablease.errors import InvalidField, NotAllowed, NotNow
from lablease.model.client import Client
from lablease.model.durations import format_duration, format_time
from lablease.model.exporter import Exporter
from lablease.model.keys import Key
from lablease.model.lease import Lease
from lablease.rules.policy import Access
from lablease.rules.times import Times, amend, normalise, times_of
from lablease.wire.codec_client import CLIENTS, parse_resource_name, read_times
from lablease.wire.jumpstarter.client.v1 import client_pb2

_TIMES = frozenset({"begin_time", "end_time", "duration"})
_CHANGEABLE = _TIMES | {"client"}
_FIXED = frozenset({"name", "selector", "exporter_name", "tags", "context", "allow_disabled"})


@dataclass(frozen=True, slots=True)
class Update:
    """New times (absent: as they are), times to be cleared, and a new owner."""

    times: Times
    cleared: frozenset[str] = frozenset()
    client: Key | None = None


def read_update(request: client_pb2.UpdateLeaseRequest) -> Update:
    """Read which fields are meant: those of the mask, or without a mask those that are present.

    A time that the mask names and the lease does not have is cleared.

    Raises:
        InvalidField: the mask names a field that cannot be changed.
    """
    lease = request.lease
    paths = set(request.update_mask.paths)
    whole = not paths or "*" in paths
    for path in sorted(paths - {"*"} - _CHANGEABLE):
        problem = "cannot be changed" if path in _FIXED else "is no field that can be changed"
        raise InvalidField("update_mask", f"{path[:100]} {problem}: use {', '.join(sorted(_CHANGEABLE))}")
    present = {name for name in _TIMES if lease.HasField(name)}  # type: ignore[arg-type]
    given = read_times(lease)
    meant = present if whole else present & paths
    times = Times(
        begin=given.begin if "begin_time" in meant else None,
        end=given.end if "end_time" in meant else None,
        duration=given.duration if "duration" in meant else None,
    )
    client = None
    if lease.client and (whole or "client" in paths):
        client = parse_resource_name(lease.client, CLIENTS, "lease.client")
    elif "client" in paths:
        raise InvalidField("lease.client", "must name the new owner")
    return Update(times, frozenset((paths & _TIMES) - present), client)


def new_times(lease: Lease, update: Update) -> Times:
    """Return the times of the lease after the update.

    Raises:
        InvalidField: they cannot be what the update asks for.
    """
    stored = times_of(lease.spec)
    if not update.cleared and not update.times.given:
        return stored
    kept = Times(
        begin=None if "begin_time" in update.cleared else stored.begin,
        end=None if "end_time" in update.cleared else stored.end,
        duration=None if "duration" in update.cleared else stored.duration,
    )
    assigned = lease.status.exporter is not None
    if assigned and "begin_time" in update.cleared and stored.begin is not None:
        raise InvalidField("lease.begin_time", "cannot change any more: the lease has an exporter")
    return amend(kept, update.times, assigned=assigned) if update.times.given else normalise(kept)


def check_transfer(lease: Lease, client: Key) -> None:
    """Raise unless the lease can go to another client of its namespace."""
    if client.namespace != lease.key.namespace:
        raise InvalidField("lease.client", f"must be in namespace {lease.key.namespace}")
    if lease.status.exporter is None:
        raise NotNow(f"lease {lease.key.name} has no exporter yet: only then it can go to another client")


def check_policy(lease: Lease, times: Times, client: Client, exporter: Exporter | None, access: Access) -> None:
    """Raise unless the client may have the lease's exporter for the new length; a shorter one is always allowed.

    Args:
        lease: as stored.
        times: those that it would have.
        client: the owner that it would have.
        exporter: the one that it has; without one the operator decides later.
        access: the policies.
    """
    if exporter is None:
        return
    rules = access.rules_for(client.meta.labels)
    labels = exporter.meta.labels
    same_owner = client.key.name == lease.spec.client
    if not same_owner and access.approval(rules, labels) is None:
        raise NotAllowed(f"no policy lets client {client.key.name} have exporter {exporter.key.name}")
    length = times.duration
    stored = lease.spec.duration
    if length is None or (same_owner and stored is not None and length <= stored):
        return
    if access.approval(access.within(rules, length), labels) is None:
        longest = access.longest(rules, (labels,))
        allowed = f"at most {format_duration(longest)}" if longest is not None else "no time at all"
        raise InvalidField(
            "lease.duration",
            f"{format_duration(length)} is too long: policies allow client {client.key.name} {allowed}",
        )


def spec_patch(lease: Lease, times: Times, client: str) -> dict[str, object]:
    """Return the merge patch of ``spec``: only what changes."""
    patch: dict[str, object] = {}
    if client != lease.spec.client:
        patch["clientRef"] = {"name": client}
    if times.duration != lease.spec.duration:
        patch["duration"] = None if times.duration is None else format_duration(times.duration)
    if times.begin != lease.spec.begin:
        patch["beginTime"] = _time(times.begin)
    if times.end != lease.spec.end:
        patch["endTime"] = _time(times.end)
    return patch


def handed_over(lease: Lease, update: Update) -> bool:
    """True if an update that gives the lease to another client has been done, times included."""
    return (
        update.client is not None
        and lease.spec.client == update.client.name
        and not spec_patch(lease, new_times(lease, update), lease.spec.client)
    )


def _time(value: datetime | None) -> str | None:
    return None if value is None else format_time(value)
