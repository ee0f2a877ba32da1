"""What a driver author writes against: one base class and two decorators.

A driver is a dataclass with keyword-only fields: they are its ``config``, checked by pydantic. Methods with ``@export``
are callable by clients under their own name; a generator gives a streaming call. ``@exportstream`` marks an async context
manager that yields a ``ByteStream``. Docstrings become the help texts of clients.
"""

import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar, cast
from uuid import UUID

from pydantic import ConfigDict

from lablease.driver.bytestream import ByteStream, PipeEnd
from lablease.driver.resources import open_resource

_KIND: Final = "__lablease_export__"
UNARY: Final = "unary"
STREAMING: Final = "streaming"
STREAM: Final = "stream"

Function = TypeVar("Function", bound=Callable[..., object])
StreamOpener = Callable[..., AbstractAsyncContextManager[ByteStream]]
Opener = TypeVar("Opener", bound=StreamOpener)


class DriverConfigError(Exception):
    """A driver cannot be built as configured: names the entry and what would be right."""


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """Whom the session serves; ``grant`` is 0 when the controller sends none. Changes when a lease is transferred."""

    exporter: str = ""
    lease: str = ""
    client: str = ""
    grant: int = 0


class LeaseHolder:
    """The current ``LeaseInfo`` of a session, shared by all drivers of its tree. Written by the host only."""

    def __init__(self, info: LeaseInfo) -> None:
        self.info = info


def export(function: Function) -> Function:
    """Let clients call the method. A generator function gives a streaming call, any other function a plain one."""
    streaming = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    setattr(function, _KIND, STREAMING if streaming else UNARY)
    return function


def exportstream(function: Opener) -> Opener:
    """Let clients open the byte stream that the async context manager yields."""
    setattr(function, _KIND, STREAM)
    return function


def export_kind(function: object) -> str | None:
    """Return UNARY, STREAMING or STREAM, or None for what is not exported."""
    return cast("str | None", getattr(function, _KIND, None))


class Driver:
    """Base class of native drivers.

    ``client_class`` is the dotted path of the client class that clients load; take one of upstream's where its contract
    fits, so that every client can use the driver. Set by the builder before ``start``: ``name`` (dotted path in the
    tree), ``uuid``, ``children``, ``logger``, ``holder``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    client_class: ClassVar[str]

    name: str
    uuid: UUID
    children: Mapping[str, "Driver"]
    logger: logging.Logger
    holder: LeaseHolder
    description: str | None
    methods_description: Mapping[str, str]
    resources: dict[UUID, PipeEnd]

    @property
    def lease(self) -> LeaseInfo:
        """Whom the session serves at this moment."""
        return self.holder.info

    def start(self) -> None:
        """Take hold of the device; runs once, children first, before anything is called. May block."""

    def reset(self) -> None:
        """Bring the device back to a known state: at the start of a session and on the client's Reset. May block."""

    def stop(self) -> None:
        """Let go of the device. Runs once, parents first. May block."""

    def parts(self) -> Mapping[str, "Driver"]:
        """Return drivers that belong to this one without being configured; they become its children."""
        return {}

    def labels(self) -> dict[str, str]:
        """Return labels beyond client class and name."""
        return {}

    def help_texts(self) -> dict[str, str]:
        """Return help text per exported method: its docstring, unless the configuration says something else."""
        texts: dict[str, str] = {}
        for name in dir(type(self)):
            function = getattr(type(self), name, None)
            if export_kind(function) is not None and (text := inspect.getdoc(function)):
                texts[name] = text
        return texts | dict(self.methods_description)

    @asynccontextmanager
    async def resource(self, handle: object, *, timeout_seconds: float = 7200) -> AsyncGenerator[ByteStream]:
        """Open what a client passed as a file: read it to its end, or write it and leave the block.

        Raises:
            ValueError: ``handle`` is no resource handle, or none that is open.
            BrokenStream: the client went away in the middle.
            TimeoutError: an HTTP transfer took longer than ``timeout_seconds``.
        """
        async with open_resource(self.resources, handle, timeout_seconds=timeout_seconds) as stream:
            yield stream
