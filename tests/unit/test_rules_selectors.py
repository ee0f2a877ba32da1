"""Selectors: what the text grammar accepts, the canonical text, and what matches."""

import pytest

from lablease.errors import InvalidField
from lablease.model.selector import EVERYTHING, Operator, Requirement, Selector
from lablease.rules.selectors import canonical, matches, misses, parse

CANONICAL = [
    ("", "<none>"),
    ("   ", "<none>"),
    ("board=rpi4", "board=rpi4"),
    ("board==rpi4", "board=rpi4"),
    (" b = 2 , a = 1 ", "a=1,b=2"),
    ("a=1,a=1", "a=1"),
    ("a=", "a="),
    ("a!=1", "a notin (1)"),
    ("a!=2,a!=1,a notin (3,1)", "a notin (1,2,3)"),
    ("a in (y, x,y)", "a in (x,y)"),
    ("a in ()", "a in ()"),
    ("a in (,x)", "a in (,x)"),
    ("a!=", "a notin ()"),
    ("a", "a"),
    ("!a", "!a"),
    ("! a", "!a"),
    ("lab.example/site notin (berlin)", "lab.example/site notin (berlin)"),
    ("in=1,notin=2", "in=1,notin=2"),
    ("c,!b,a=1", "a=1,!b,c"),
]


@pytest.mark.parametrize(("text", "expected"), CANONICAL)
def test_equal_selectors_have_one_text(text: str, expected: str) -> None:
    assert canonical(parse(text, "selector")) == expected


def test_the_canonical_text_reads_as_the_same_selector() -> None:
    for text, _ in CANONICAL[2:]:
        selector = parse(text, "selector")
        assert parse(canonical(selector), "selector") == selector


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a=1,", "the end"),
        (",a=1", "','"),
        ("a=1 b=2", "'b'"),
        ("a=1,a=2", "both '1' and '2'"),
        ("a>1", "< and > are not supported"),
        ("a<1", "< and > are not supported"),
        ("a in x", "'x'"),
        ("a in (x", "the end"),
        ("a in (x y)", "'y'"),
        ("a notin", "the end"),
        ("a)", "')'"),
        ("a(", "'('"),
        ("=1", "'='"),
        ("!", "the end"),
        ("!=1", "'!='"),
        ("!!a", "unexpected '!'"),
        ("==1", "unexpected '=='"),
        ("<a", "unexpected '<'"),
        (">a", "unexpected '>'"),
        ("a=<1", "unexpected '<'"),
        ("a in (>1)", "unexpected '>'"),
        ("a b", "'b'"),
        ("/a=1", "not a label key"),
        ("a/=1", "not a label key"),
        ("A/b=1", "not a label key"),
        ("a/b/c=1", "not a label key"),
        ("-a=1", "not a label key"),
        (f"{'k' * 64}=1", "not a label key"),
        ("a=_x", "not a label value"),
        (f"a={'v' * 64}", "not a label value"),
        ("a in (x,y/z)", "not a label value"),
        ("a" * 16_385, "at most 16384"),
    ],
)
def test_a_text_that_is_no_selector_is_refused_with_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(InvalidField, match=r"lease\.selector") as caught:
        parse(text, "lease.selector")
    assert words in caught.value.problem


@pytest.mark.parametrize(("text", "found"), [("a in (x", "the end"), ("a=1,", "the end"), ("a b", "'b'")])
def test_a_syntax_error_says_what_was_found_and_gives_an_example(text: str, found: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse(text, "s")
    assert str(caught.value) == f"s: unexpected {found}: write for example board=rpi4,site in (lab1,lab2),!broken"


def test_the_longest_text_is_read() -> None:
    text = ",".join([f"k{number}={'v' * 60}" for number in range(240)]).ljust(16_384)
    assert len(parse(text, "s").match_labels) == 240


LABELS = {"board": "rpi4", "site": ""}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ("board=rpi4", True),
        ("board=rpi5", False),
        ("site=", True),
        ("none=", False),
        ("board in (rpi3,rpi4)", True),
        ("board in (rpi3)", False),
        ("none in (x)", False),
        ("board!=rpi5", True),
        ("board!=rpi4", False),
        ("none!=x", True),
        ("board", True),
        ("none", False),
        ("!none", True),
        ("!board", False),
        ("board=rpi4,!board", False),
    ],
)
def test_what_a_selector_matches(text: str, holds: bool) -> None:
    selector = parse(text, "s")
    assert matches(selector, LABELS) is holds
    assert (misses(selector, LABELS) == ()) is holds


def test_a_near_miss_says_what_the_label_is_instead() -> None:
    selector = parse("board=rpi5,none=x,site in (a),!board", "s")
    assert misses(selector, LABELS) == (
        "board=rpi5 (it has board=rpi4)",
        "none=x (it has no none)",
        "!board (it has board=rpi4)",
        "site in (a) (it has site=)",
    )


def test_an_absent_label_is_not_the_empty_one() -> None:
    assert not matches(Selector(expressions=(Requirement("none", Operator.IN, ("",)),)), LABELS)
    assert matches(EVERYTHING, {})
