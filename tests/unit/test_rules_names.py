"""Names of objects, labels and tags, and the object name of an external user."""

import pytest

from lablease.errors import InvalidField
from lablease.rules.names import (
    check_label_key,
    check_label_value,
    check_object_name,
    check_tags,
    is_internal,
    object_name,
)


@pytest.mark.parametrize("name", ["a", "a-b", "a.b-c.0", "x" * 63, ".".join(["x" * 63] * 3 + ["x" * 61])])
def test_a_dns_name_may_name_an_object(name: str) -> None:
    assert check_object_name(name, "lease_id") == name


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "a-", "a..b", ".a", "a_b", "a/b", "a\n", ".".join(["x" * 63] * 3 + ["x" * 62])]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidField, match="lease_id"):
        check_object_name(name, "lease_id")


def test_the_error_says_what_a_name_may_be() -> None:
    with pytest.raises(InvalidField) as caught:
        check_object_name("A", "lease_id")
    assert caught.value.problem == "'A' must be lower-case letters, digits, '-' and '.', at most 253 characters"


@pytest.mark.parametrize("key", ["a", "A.b_c-d", "x" * 63, "lab.example/a", "9"])
def test_label_keys(key: str) -> None:
    assert check_label_key(key, "k") == key


@pytest.mark.parametrize("value", ["", "a", "A.b_c-d", "x" * 63])
def test_label_values(value: str) -> None:
    assert check_label_value(value, "v") == value


@pytest.mark.parametrize("value", ["-a", "a-", "x" * 64, "a b", "a/b", "ä"])
def test_other_label_values_are_refused(value: str) -> None:
    with pytest.raises(InvalidField, match="v: "):
        check_label_value(value, "v")


@pytest.mark.parametrize(
    ("value", "quoted"), [("x" * 100, f"'{'x' * 100}' is"), ("x" * 101, f"'{'x' * 100}...' is"), ("_", "'_' is")]
)
def test_a_text_of_more_than_100_characters_is_quoted_in_short(value: str, quoted: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check_label_value(value, "v")
    assert caught.value.problem.startswith(quoted)


def test_tags_up_to_the_maximum_are_fine() -> None:
    check_tags({f"t{number}": "x" for number in range(10)}, "tags")
    check_tags({}, "tags", maximum=0)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({f"t{number}": "x" for number in range(11)}, "at most 10 tags, not 11"),
        ({"jumpstarter.dev/a": "x"}, "reserved"),
        ({"metadata.jumpstarter.dev/a": "x"}, "reserved"),
        ({"lab.example/a": "x"}, "no '/'"),
        ({"": "x"}, "not a tag name"),
        ({"x" * 64: "x"}, "not a tag name"),
        ({"a": "x y"}, "not a label value"),
    ],
)
def test_a_tag_that_could_be_no_label_is_refused(tags: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check_tags(tags, "tags")
    assert caught.value.field == "tags"
    assert words in caught.value.problem


def test_a_lab_may_allow_fewer_tags() -> None:
    with pytest.raises(InvalidField, match="at most 1 tags, not 2"):
        check_tags({"a": "1", "b": "2"}, "tags", maximum=1)


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("dex:alice", "alice"),
        ("dex:Alice.Doe@lab", "alice-doe-lab"),
        ("dex:a:b", "a-b"),
        ("alice", "alice"),
        ("dex:--a__b--", "a-b"),
        ("dex:é", ""),
        ("dex:", ""),
        ("k8s:system:serviceaccount:ci:runner", "ci-runner"),
        ("dex:x:system:serviceaccount:ci:runner", "x-system-serviceaccount-ci-runner"),
        (f"dex:{'a' * 70}", "a" * 63),
        (f"dex:{'a' * 62}-b", "a" * 62),
        ("dex:Xaver-X", "xaver-x"),
    ],
)
def test_the_object_name_of_a_user(user: str, name: str) -> None:
    assert object_name(user) == name


@pytest.mark.parametrize(
    ("user", "internal"),
    [
        ("internal:client:lab:alice:uid", True),
        ("k8s:system:serviceaccount:ci:runner", True),
        ("dex:alice", False),
        ("dex:system:serviceaccount:ci", False),
        ("dex:x:system:serviceaccount:ci:runner", False),
        ("internals:x", False),
    ],
)
def test_some_users_must_say_which_object_they_are(user: str, internal: bool) -> None:
    assert is_internal(user) is internal
