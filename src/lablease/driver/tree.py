"""What a session needs to know of a driver tree, whatever API its drivers are written for."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

from lablease.driver.bytestream import ByteStream, PipeEnd

CLIENT_LABEL: Final = "jumpstarter.dev/client"
NAME_LABEL: Final = "jumpstarter.dev/name"

_NAMESPACE: Final = UUID("6f0e0c2a-4bb0-5d4e-9a0c-6b1a55f0a9d3")


def driver_uuid(exporter: str, path: Iterable[str]) -> UUID:
    """Return the id of the driver at ``path`` (empty for the root): the same in every session of the exporter.

    A restarted host therefore keeps the tree that a client has read, and the ids sent with Register stay true.
    """
    return uuid.uuid5(_NAMESPACE, "/".join((exporter, *path)))


class NoSuchMethod(Exception):
    """The driver has no such method, or not of this kind."""


@dataclass(frozen=True, slots=True)
class Report:
    """One entry of GetReport; parents stand before children, and a ``ref`` repeats its target's id."""

    uuid: str
    parent_uuid: str | None
    labels: Mapping[str, str]
    description: str | None = None
    methods_description: Mapping[str, str] = field(default_factory=dict[str, str])


class Callee(Protocol):
    """One driver of the tree."""

    def unary(self, method: str) -> Callable[..., object]:
        """Return the exported method. Raises NoSuchMethod."""
        ...

    def streaming(self, method: str) -> Callable[..., object]:
        """Return the exported generator function. Raises NoSuchMethod."""
        ...

    def stream(self, method: str) -> Callable[[], AbstractAsyncContextManager[ByteStream]]:
        """Return the exported stream opener. Raises NoSuchMethod."""
        ...

    def add_resource(self, resource: UUID, end: PipeEnd) -> None:
        """Make an open resource stream known, so that a call can take it."""
        ...

    def drop_resource(self, resource: UUID) -> None:
        """Forget a resource stream that no call took."""
        ...


class Tree(Protocol):
    """A built driver tree. ``start``, ``reset`` and ``close`` may block and run in a thread."""

    @property
    def reports(self) -> tuple[Report, ...]: ...

    def callee(self, driver: str) -> Callee | None:
        """Return the driver with this id, None if there is none or the text is no id."""
        ...

    def start(self) -> None: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...
