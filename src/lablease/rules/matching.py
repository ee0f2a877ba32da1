"""Which exporters may serve a request at all, whoever holds them now; and if none may, why and what would help."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from lablease.model.client import Client
from lablease.model.durations import format_duration
from lablease.model.exporter import Exporter
from lablease.model.lease import Lease, LeaseReason
from lablease.model.selector import Selector
from lablease.rules.policy import Access, Approval, Rules
from lablease.rules.selectors import canonical, matches, misses
from lablease.rules.times import length

_NEAR_MISSES = 3


@dataclass(frozen=True, slots=True)
class Request:
    """What decides about the candidates of a lease; leases with equal requests form one group."""

    selector: Selector
    client: str
    exporter: str | None
    allow_disabled: bool
    rules: Rules
    """The rules for this client that admit the length."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """No exporter may serve the request. ``message`` names near misses and what would help."""

    reason: LeaseReason
    message: str


class Fleet(Protocol):
    """The exporters of a namespace, by name and by label."""

    @property
    def exporters(self) -> Mapping[str, Exporter]:
        """All of them."""
        ...

    def with_label(self, key: str, value: str) -> Iterable[str]:
        """Return the names of those that carry a label."""
        ...


Choices = Mapping[str, Approval]
"""The candidates of a request: name of the exporter -> the best approval for it."""


def request_of(lease: Lease, client: Client, access: Access) -> Request:
    """Return the group of a lease."""
    rules = access.within(access.rules_for(client.meta.labels), length(lease.spec, lease.meta.created))
    pin = lease.spec.exporter
    return Request(lease.spec.selector, lease.spec.client, pin, lease.spec.allow_disabled and pin is not None, rules)


def choices(request: Request, fleet: Fleet, access: Access) -> dict[str, Approval]:
    """Return every exporter that may serve the request, online or not, held or not."""
    found: dict[str, Approval] = {}
    for name in _names(request, fleet):
        exporter = fleet.exporters.get(name)
        approval = None if exporter is None else choice(request, exporter, access)
        if approval is not None:
            found[name] = approval
    return found


def choice(request: Request, exporter: Exporter, access: Access) -> Approval | None:
    """Return the approval if this one exporter may serve the request."""
    if request.exporter is not None and request.exporter != exporter.key.name:
        return None
    if not (exporter.enabled or request.allow_disabled) or exporter.meta.deleting:
        return None
    if not matches(request.selector, exporter.meta.labels):
        return None
    return access.approval(request.rules, exporter.meta.labels)


def _names(request: Request, fleet: Fleet) -> Iterable[str]:
    """Return a superset of the candidates' names: the pin, or those with the rarest label that is asked for."""
    if request.exporter is not None:
        return (request.exporter,)
    if not request.selector.match_labels:
        return tuple(fleet.exporters)
    sets = [tuple(fleet.with_label(key, value)) for key, value in request.selector.match_labels]
    return min(sets, key=len)


def refusal(lease: Lease, client: Client, fleet: Fleet, access: Access) -> Refusal:
    """Say why a request has no candidates. Call it only then."""
    spec = lease.spec
    pin = spec.exporter
    if pin is not None:
        exporter = fleet.exporters.get(pin)
        if exporter is None:
            return _not_found(pin, fleet)
        wrong = misses(spec.selector, exporter.meta.labels)
        if wrong:
            return Refusal(LeaseReason.SELECTOR_MISMATCH, f"exporter {pin} does not have {', '.join(wrong)}")
        if not (exporter.enabled or spec.allow_disabled):
            text = f"exporter {pin} is disabled; set allowDisabled to lease it all the same"
            return Refusal(LeaseReason.EXPORTER_DISABLED, text)
        return _no_access(lease, client, (exporter,), access)
    matching = [item for item in fleet.exporters.values() if matches(spec.selector, item.meta.labels)]
    if not matching:
        return _mismatch(spec.selector, fleet)
    enabled = [item for item in matching if item.enabled]
    if not enabled:
        names = _list([item.key.name for item in matching])
        return Refusal(LeaseReason.ALL_DISABLED, f"every exporter that matches is disabled: {names}")
    return _no_access(lease, client, enabled, access)


def _not_found(pin: str, fleet: Fleet) -> Refusal:
    near = get_close_matches(pin, fleet.exporters, n=_NEAR_MISSES)
    hint = f"; there is {_list(near)}" if near else ""
    return Refusal(LeaseReason.EXPORTER_NOT_FOUND, f"there is no exporter {pin}{hint}")


def _mismatch(selector: Selector, fleet: Fleet) -> Refusal:
    scored = sorted((misses(selector, item.meta.labels), name) for name, item in fleet.exporters.items())
    nearest = sorted(scored, key=lambda entry: len(entry[0]))[:_NEAR_MISSES]
    hint = "".join(f"; {name} lacks {', '.join(wrong)}" for wrong, name in nearest)
    text = f"none of {len(fleet.exporters)} exporters matches {canonical(selector)}{hint}"
    return Refusal(LeaseReason.SELECTOR_MISMATCH, text)


def _no_access(lease: Lease, client: Client, exporters: Sequence[Exporter], access: Access) -> Refusal:
    rules = access.rules_for(client.meta.labels)
    asked = length(lease.spec, lease.meta.created)
    longest = access.longest(rules, (item.meta.labels for item in exporters))
    if longest is not None:
        text = f"{format_duration(asked)} is too long: at most {format_duration(longest)} for client {client.key.name}"
        return Refusal(LeaseReason.DURATION_TOO_LONG, text)
    described = access.described(rules)
    hint = f"; policies are for: {described}" if described else ""
    names = _list([item.key.name for item in exporters])
    return Refusal(LeaseReason.NO_ACCESS, f"no policy lets client {client.key.name} have {names}{hint}")


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:_NEAR_MISSES])
    return shown if len(names) <= _NEAR_MISSES else f"{shown} and {len(names) - _NEAR_MISSES} more"
