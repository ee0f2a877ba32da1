"""Label selectors: the text grammar, the canonical text, and what a selector matches."""

import re
from collections.abc import Iterator, Mapping

from lablease.errors import InvalidField
from lablease.model.selector import Operator, Requirement, Selector
from lablease.rules.names import check_label_key, check_label_value

NONE_TEXT = "<none>"
"""How jmp 0.9.0 and kubectl print a selector without requirements."""
_TOKEN = re.compile(r"([^\s,()!=<>]+)|(==|!=|[=!<>,()])")
_SIGNS = frozenset({"==", "!=", "=", "!", "<", ">", ",", "(", ")"})
_MAXIMUM_CHARACTERS = 16_384
"""No selector that a person writes comes near; it bounds what a peer can make us parse."""


def parse(text: str, field: str) -> Selector:
    """Read ``a=1,b!=2,c in (x,y),d notin (z),e,!f``; empty text is the empty selector.

    ``==`` means ``=``. All ``!=`` and ``notin`` of one key become one requirement.

    Raises:
        InvalidField: a syntax error, an invalid key or value, ``<`` or ``>``, or two different ``=`` on one key.
    """
    if len(text) > _MAXIMUM_CHARACTERS:
        raise InvalidField(field, f"must have at most {_MAXIMUM_CHARACTERS} characters")
    labels: dict[str, str] = {}
    excluded: dict[str, set[str]] = {}
    others: set[Requirement] = set()
    for key, operator, values in _Reader(text, field).requirements():
        check_label_key(key, field)
        for value in values:
            check_label_value(value, field)
        if operator == "=":
            if labels.setdefault(key, values[0]) != values[0]:
                raise InvalidField(field, f"{key} cannot be both {labels[key]!r} and {values[0]!r}")
        elif operator is Operator.NOT_IN:
            excluded.setdefault(key, set()).update(values)
        else:
            others.add(Requirement(key, Operator(operator), tuple(sorted(set(values)))))
    others |= {Requirement(key, Operator.NOT_IN, tuple(sorted(values))) for key, values in excluded.items()}
    return Selector(tuple(sorted(labels.items())), tuple(sorted(others)))


class _Reader:
    """A scanner over the text of one selector."""

    def __init__(self, text: str, field: str) -> None:
        self._field = field
        self._tokens = [word or sign for word, sign in _TOKEN.findall(text)]
        self._next = 0

    def requirements(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yield key, operator (``=`` or an Operator) and values of each requirement."""
        while self._next < len(self._tokens):
            yield self._requirement()
            if self._next < len(self._tokens):
                self._expect(",")
                if self._next == len(self._tokens):
                    raise self._error("")

    def _requirement(self) -> tuple[str, str, tuple[str, ...]]:
        if self._peek() == "!":
            self._take()
            return self._word(), Operator.DOES_NOT_EXIST, ()
        key = self._word()
        match self._peek():
            case "" | ",":
                return key, Operator.EXISTS, ()
            case "=" | "==":
                self._take()
                return key, "=", (self._optional_word(),)
            case "!=":
                self._take()
                return key, Operator.NOT_IN, (self._optional_word(),)
            case "in":
                self._take()
                return key, Operator.IN, self._values()
            case "notin":
                self._take()
                return key, Operator.NOT_IN, self._values()
            case "<" | ">":
                raise InvalidField(self._field, f"{key}: < and > are not supported: list the values with in (...)")
            case other:
                raise self._error(other)

    def _values(self) -> tuple[str, ...]:
        self._expect("(")
        values = [self._optional_word()]
        while self._peek() == ",":
            self._take()
            values.append(self._optional_word())
        self._expect(")")
        return tuple(values)

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _word(self) -> str:
        if self._peek() in _SIGNS or not self._peek():
            raise self._error(self._peek())
        return self._take()

    def _optional_word(self) -> str:
        return "" if self._peek() in _SIGNS or not self._peek() else self._take()

    def _expect(self, sign: str) -> None:
        if self._peek() != sign:
            raise self._error(self._peek())
        self._take()

    def _error(self, found: str) -> InvalidField:
        near = repr(found) if found else "the end"
        return InvalidField(self._field, f"unexpected {near}: write for example board=rpi4,site in (lab1,lab2),!broken")


def canonical(selector: Selector) -> str:
    """Return the one text of all equal selectors: requirements by key, values sorted, ``<none>`` for the empty one."""
    parts = [(key, f"{key}={value}") for key, value in selector.match_labels]
    parts += [(item.key, _text(item)) for item in selector.expressions]
    return ",".join(text for _, text in sorted(parts)) or NONE_TEXT


def _text(item: Requirement) -> str:
    if item.operator is Operator.IN:
        return f"{item.key} in ({','.join(item.values)})"
    if item.operator is Operator.NOT_IN:
        return f"{item.key} notin ({','.join(item.values)})"
    return item.key if item.operator is Operator.EXISTS else f"!{item.key}"


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """True if all requirements hold. ``NotIn`` holds also where the label is absent."""
    return all(labels.get(key) == value for key, value in selector.match_labels) and all(
        _holds(item, labels) for item in selector.expressions
    )


def misses(selector: Selector, labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return the requirements that do not hold, as text with what the label is instead."""
    failed = [
        f"{key}={value} (it has {_has(key, labels)})"
        for key, value in selector.match_labels
        if labels.get(key) != value
    ]
    failed += [
        f"{_text(item)} (it has {_has(item.key, labels)})" for item in selector.expressions if not _holds(item, labels)
    ]
    return tuple(failed)


def _has(key: str, labels: Mapping[str, str]) -> str:
    return f"{key}={labels[key]}" if key in labels else f"no {key}"


def _holds(item: Requirement, labels: Mapping[str, str]) -> bool:
    if item.operator is Operator.IN:
        return labels.get(item.key) in item.values
    if item.operator is Operator.NOT_IN:
        return labels.get(item.key) not in item.values
    return (item.key in labels) is (item.operator is Operator.EXISTS)
