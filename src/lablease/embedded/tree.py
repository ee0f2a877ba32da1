"""Read nested JSON and YAML of others: whatever is not as expected counts as absent."""

from collections.abc import Mapping, Sequence
from typing import cast

Object = Mapping[str, object]


def at(value: object, *path: str | int) -> object:
    """Return what stands at the path, None if a step of it is missing or is no mapping or list."""
    for step in path:
        if isinstance(step, str) and isinstance(value, Mapping):
            value = cast("Mapping[str, object]", value).get(step)
        elif isinstance(step, int) and isinstance(value, list) and step < len(cast("list[object]", value)):
            value = cast("list[object]", value)[step]
        else:
            return None
    return value


def text(value: object, *path: str | int) -> str:
    """Return the string at the path, empty if there is none."""
    found = at(value, *path)
    return found if isinstance(found, str) else ""


def elements(value: object, *path: str | int) -> Sequence[object]:
    """Return the list at the path, empty if there is none."""
    found = at(value, *path)
    return cast("list[object]", found) if isinstance(found, list) else ()


def mapping(value: object, *path: str | int) -> Object:
    """Return the mapping at the path, empty if there is none."""
    found = at(value, *path)
    return cast("Object", found) if isinstance(found, Mapping) else {}
