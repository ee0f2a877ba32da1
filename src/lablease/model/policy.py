"""The ExporterAccessPolicy CRD as a value."""

from dataclasses import dataclass
from datetime import timedelta

from lablease.errors import InvalidField
from lablease.model.durations import parse_duration
from lablease.model.fields import Json, as_bool, as_int, as_list, as_mapping, as_string
from lablease.model.keys import Key
from lablease.model.meta import Meta, parse_meta
from lablease.model.selector import EVERYTHING, Selector, parse_selector


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """Clients that match one of ``clients`` may have the policy's exporters, up to ``maximum`` (None: any length).

    An empty ``clients`` matches nobody.
    """

    description: str = ""
    priority: int = 0
    clients: tuple[Selector, ...] = ()
    maximum: timedelta | None = None
    spot: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. A rule that could not be read is left out and named in ``problems``: it grants nothing."""

    meta: Meta
    exporters: Selector = EVERYTHING
    rules: tuple[PolicyRule, ...] = ()
    problems: tuple[InvalidField, ...] = ()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.meta.key


def parse_policy(raw: Json) -> Policy:
    """Read a stored policy; if its ``exporterSelector`` is unreadable it has no rules at all."""
    spec = as_mapping(raw.get("spec"), "spec")
    problems: list[InvalidField] = []
    meta = parse_meta(raw)
    try:
        exporters = parse_selector(spec.get("exporterSelector"), "spec.exporterSelector")
        items = as_list(spec.get("policies"), "spec.policies")
    except InvalidField as problem:
        return Policy(meta, problems=(problem,))
    rules: list[PolicyRule] = []
    for index, item in enumerate(items):
        try:
            rules.append(_parse_rule(as_mapping(item, f"spec.policies[{index}]"), f"spec.policies[{index}]"))
        except InvalidField as problem:
            problems.append(problem)
    return Policy(meta, exporters, tuple(rules), tuple(problems))


def _parse_rule(raw: Json, field: str) -> PolicyRule:
    maximum = as_string(raw.get("maximumDuration"), f"{field}.maximumDuration")
    clients = [
        parse_selector(
            as_mapping(item, f"{field}.from[{index}]").get("clientSelector"), f"{field}.from[{index}].clientSelector"
        )
        for index, item in enumerate(as_list(raw.get("from"), f"{field}.from"))
    ]
    return PolicyRule(
        description=as_string(raw.get("description"), f"{field}.description"),
        priority=as_int(raw.get("priority"), f"{field}.priority"),
        clients=tuple(clients),
        maximum=parse_duration(maximum, f"{field}.maximumDuration") if maximum else None,
        spot=as_bool(raw.get("spotAccess"), f"{field}.spotAccess"),
    )
