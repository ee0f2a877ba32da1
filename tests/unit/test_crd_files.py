"""The CRD files themselves: `kubectl explain` has a sentence for every field."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

FILES = sorted((Path(__file__).resolve().parents[2] / "crds").glob("*.yaml"))
TOLD_BY_KUBECTL = {"apiVersion", "kind", "metadata"}


def undescribed(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        if not field.get("description", "").endswith(".") and not (path == "" and name in TOLD_BY_KUBECTL):
            yield here
        yield from undescribed(field, here)
    if "items" in schema:
        yield from undescribed(schema["items"], f"{path}[]")


def test_the_four_kinds_are_there() -> None:
    assert [path.stem for path in FILES] == ["clients", "exporteraccesspolicies", "exporters", "leases"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_field_is_explained_in_a_sentence(path: Path) -> None:
    (version,) = yaml.safe_load(path.read_text())["spec"]["versions"]

    assert list(undescribed(version["schema"]["openAPIV3Schema"])) == []
