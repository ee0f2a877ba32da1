"""Access policies, compiled once per change: may this client have this exporter, for how long, and how soon.

Without any policy every exporter is open to every client. With one, what no rule allows is refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from lablease.model.policy import Policy, PolicyRule
from lablease.model.selector import Selector
from lablease.rules.selectors import matches

_DESCRIPTION_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class Approval:
    """A rule lets a client have an exporter. A spot lease yields to any that is not; a higher priority goes first."""

    priority: int = 0
    spot: bool = False

    @property
    def rank(self) -> tuple[bool, int]:
        """Smaller is better."""
        return self.spot, -self.priority


Rules = tuple[int, ...]
"""Numbers of rules inside one ``Access``."""


class Access:
    """All policies of a namespace. A policy that could not be read grants nothing, but counts as one."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        ordered = sorted(policies, key=lambda policy: policy.key)
        self.open = not ordered
        self._rules: tuple[tuple[Selector, PolicyRule], ...] = tuple(
            (policy.exporters, rule) for policy in ordered for rule in policy.rules
        )

    def rules_for(self, client_labels: Mapping[str, str]) -> Rules:
        """Return the rules whose ``from`` names a client with these labels."""
        return tuple(
            number
            for number, (_, rule) in enumerate(self._rules)
            if any(matches(selector, client_labels) for selector in rule.clients)
        )

    def within(self, rules: Rules, length: timedelta) -> Rules:
        """Return those of the rules whose maximum admits the length; the maximum itself is admitted."""
        return tuple(number for number in rules if _admits(self._rules[number][1].maximum, length))

    def approval(self, rules: Rules, exporter_labels: Mapping[str, str]) -> Approval | None:
        """Return the best approval that these rules give for an exporter, None if none does."""
        if self.open:
            return Approval()
        found = [
            Approval(rule.priority, rule.spot)
            for exporters, rule in (self._rules[number] for number in rules)
            if matches(exporters, exporter_labels)
        ]
        return min(found, key=lambda approval: approval.rank, default=None)

    def longest(self, rules: Rules, exporters: Iterable[Mapping[str, str]]) -> timedelta | None:
        """Return the longest duration that these rules admit on any of the exporters, None if they have no say there."""
        labels = tuple(exporters)
        maxima = [
            rule.maximum
            for selector, rule in (self._rules[number] for number in rules)
            if rule.maximum is not None and any(matches(selector, item) for item in labels)
        ]
        return max(maxima, default=None)

    def described(self, rules: Rules) -> str:
        """Return what the rules that are not among ``rules`` are for, each text once, cut at 4096 characters."""
        texts = dict.fromkeys(
            rule.description for number, (_, rule) in enumerate(self._rules) if number not in rules and rule.description
        )
        return "; ".join(texts)[:_DESCRIPTION_CHARACTERS]


def _admits(maximum: timedelta | None, length: timedelta) -> bool:
    return maximum is None or length <= maximum
