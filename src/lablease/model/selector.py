"""Kubernetes label selectors as values. What they match is decided in ``lablease.rules.selectors``."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lablease.errors import InvalidField
from lablease.model.fields import as_list, as_mapping, as_string, as_string_map


class Operator(StrEnum):
    """The operators of ``matchExpressions``."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One condition on one label. ``values`` are sorted, without repetition, and empty for the two existence tests."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; without any it matches everything.

    ``match_labels`` and ``expressions`` are kept apart as their author wrote them, each sorted, so that equal
    selectors are equal values.
    """

    match_labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[Requirement, ...] = ()

    @property
    def empty(self) -> bool:
        """True if it names no requirement."""
        return not self.match_labels and not self.expressions


EVERYTHING = Selector()


def parse_selector(raw: object, field: str) -> Selector:
    """Read a ``LabelSelector`` object; None reads as the empty selector.

    Raises:
        InvalidField: unknown operator, values missing where they are needed or given where they mean nothing.
    """
    body = as_mapping(raw, field)
    labels = as_string_map(body.get("matchLabels"), f"{field}.matchLabels")
    expressions = [
        _parse_requirement(as_mapping(item, f"{field}.matchExpressions[{index}]"), f"{field}.matchExpressions[{index}]")
        for index, item in enumerate(as_list(body.get("matchExpressions"), f"{field}.matchExpressions"))
    ]
    return Selector(tuple(sorted(labels.items())), tuple(sorted(set(expressions))))


def _parse_requirement(raw: Mapping[str, object], field: str) -> Requirement:
    key = as_string(raw.get("key"), f"{field}.key")
    text = as_string(raw.get("operator"), f"{field}.operator")
    try:
        operator = Operator(text)
    except ValueError:
        known = ", ".join(Operator)
        raise InvalidField(f"{field}.operator", f"{text!r} is not an operator: use one of {known}") from None
    values = [as_string(value, f"{field}.values") for value in as_list(raw.get("values"), f"{field}.values")]
    if operator in (Operator.IN, Operator.NOT_IN):
        if not values:
            raise InvalidField(f"{field}.values", f"operator {operator} needs at least one value")
    elif values:
        raise InvalidField(f"{field}.values", f"operator {operator} takes no values")
    return Requirement(key, operator, tuple(sorted(set(values))))


def to_selector(selector: Selector) -> dict[str, object]:
    """Return the ``LabelSelector`` object of a selector."""
    body: dict[str, object] = {}
    if selector.match_labels:
        body["matchLabels"] = dict(selector.match_labels)
    if selector.expressions:
        body["matchExpressions"] = [
            {"key": item.key, "operator": str(item.operator), **({"values": list(item.values)} if item.values else {})}
            for item in selector.expressions
        ]
    return body
