"""The ``export`` section of an exporter's configuration: which drivers make up the tree.

Source: ExporterConfig of jmp 0.9.0, whose three forms of an entry are tried in this order: with ``type``, with ``ref``
(only without ``type``), else a group of children.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag


class DriverEntry(BaseModel):
    """A driver: its class, its configuration, its children."""

    model_config = ConfigDict(extra="ignore")

    type: str
    description: str | None = None
    methods_description: dict[str, str] = Field(default_factory=dict)
    config: dict[str, object] = Field(default_factory=dict)
    children: dict[str, "Entry"] = Field(default_factory=dict)


class Reference(BaseModel):
    """The driver at another dotted path of the tree, under a second name."""

    model_config = ConfigDict(extra="forbid")

    ref: str = Field(min_length=1)


class Composed(BaseModel):
    """A group without a driver of its own."""

    model_config = ConfigDict(extra="forbid")

    children: dict[str, "Entry"] = Field(default_factory=dict)


def _form(entry: object) -> str:
    if isinstance(entry, BaseModel):
        return "driver" if isinstance(entry, DriverEntry) else "ref" if isinstance(entry, Reference) else "group"
    keys = set(cast("Mapping[str, object]", entry)) if isinstance(entry, Mapping) else set[str]()
    return "driver" if "type" in keys else "ref" if "ref" in keys else "group"


Entry = Annotated[
    Annotated[DriverEntry, Tag("driver")] | Annotated[Reference, Tag("ref")] | Annotated[Composed, Tag("group")],
    Discriminator(_form),
]

DriverEntry.model_rebuild()
Composed.model_rebuild()


def driver_types(export: Mapping[str, Entry], path: str = "export") -> Iterator[tuple[str, str]]:
    """Yield (path of the entry, dotted class) of every driver in the tree."""
    for name, entry in export.items():
        where = f"{path}.{name}"
        if isinstance(entry, DriverEntry):
            yield where, entry.type
        if not isinstance(entry, Reference):
            yield from driver_types(entry.children, f"{where}.children")
