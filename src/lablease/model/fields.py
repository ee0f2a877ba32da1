"""Typed access to the parsed JSON of Kubernetes objects: a value of the wrong type is an error that names the field."""

from collections.abc import Mapping, Sequence
from typing import cast

from lablease.errors import InvalidField

Json = Mapping[str, object]


def as_mapping(value: object, field: str) -> Json:
    """Return a JSON object; None reads as the empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidField(field, "must be an object")
    return cast("Json", value)


def as_list(value: object, field: str) -> Sequence[object]:
    """Return a JSON array; None reads as the empty one."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidField(field, "must be a list")
    return cast("list[object]", value)


def as_string(value: object, field: str) -> str:
    """Return a string; None reads as the empty one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidField(field, "must be a string")
    return value


def as_int(value: object, field: str) -> int:
    """Return an integer; None reads as 0."""
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidField(field, "must be an integer")
    return value


def as_bool(value: object, field: str, *, default: bool = False) -> bool:
    """Return a boolean; None reads as the default."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidField(field, "must be true or false")
    return value


def as_string_map(value: object, field: str) -> dict[str, str]:
    """Return a map of strings to strings; None reads as the empty one."""
    return {key: as_string(item, f"{field}[{key}]") for key, item in as_mapping(value, field).items()}


def ref_name(value: object, field: str) -> str | None:
    """Return the name in a ``LocalRef``; an absent reference and an empty name read as None."""
    return as_string(as_mapping(value, field).get("name"), f"{field}.name") or None
