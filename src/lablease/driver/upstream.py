"""A tree of drivers written for upstream's driver API. Only to be imported in a host started by ``upstream_host.py``."""

import functools
import importlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NoReturn, Protocol, cast
from uuid import UUID

from pydantic import ValidationError

from lablease.driver.base import DriverConfigError, LeaseHolder
from lablease.driver.bytestream import BrokenStream, ByteStream, PipeEnd
from lablease.driver.config import Composed, DriverEntry, Entry, Reference
from lablease.driver.host import run
from lablease.driver.tree import Callee, NoSuchMethod, Report, driver_uuid


class UpstreamReport(Protocol):
    """The part of upstream's report message that is read."""

    uuid: str
    parent_uuid: str
    labels: Mapping[str, str]
    description: str
    methods_description: Mapping[str, str]

    def HasField(self, name: str) -> bool: ...


class UpstreamDriver(Protocol):
    """The part of upstream's driver objects that is used."""

    uuid: UUID
    children: Mapping[str, "UpstreamDriver"]
    resources: dict[UUID, object]

    def reset(self) -> None: ...
    def close(self) -> None: ...
    def enumerate(self) -> list[tuple[UUID, object, str | None, "UpstreamDriver"]]: ...
    def report(self, *, parent: object, name: str | None) -> UpstreamReport: ...


class AnyioStream(Protocol):
    """The part of an anyio byte stream that is used."""

    async def receive(self) -> bytes: ...
    async def send(self, item: bytes) -> None: ...
    async def aclose(self) -> None: ...


class UpstreamTree:
    """A built tree (a ``Tree``)."""

    def __init__(self, root: UpstreamDriver, description: str | None) -> None:
        self._root = root
        self._by_id: dict[str, UpstreamDriver] = {}
        reports: list[Report] = []
        for identity, parent, name, driver in root.enumerate():
            self._by_id[str(identity)] = driver
            reports.append(_read_report(driver.report(parent=parent, name=name)))
        if description is not None:
            first = reports[0]
            reports[0] = Report(first.uuid, None, first.labels, description, first.methods_description)
        self.reports = tuple(reports)

    def callee(self, driver: str) -> Callee | None:
        found = self._by_id.get(driver)
        return None if found is None else _UpstreamCallee(found)

    def start(self) -> None:
        """Nothing: drivers of this API take hold of the device when they are constructed."""

    def reset(self) -> None:
        self._root.reset()

    def close(self) -> None:
        self._root.close()


def build(exporter: str, export: Mapping[str, Entry], _holder: LeaseHolder, description: str | None) -> UpstreamTree:
    """Construct the drivers.

    Raises:
        DriverConfigError: a class that is not there, or a configuration that it does not take.
    """
    root = _construct(Composed(children=dict(export)), "export")
    _identify(root, exporter, ())
    return UpstreamTree(root, description)


def _construct(entry: Entry, where: str) -> UpstreamDriver:
    arguments: dict[str, object] = {}
    match entry:
        case DriverEntry():
            arguments = {
                "description": entry.description,
                "methods_description": entry.methods_description,
                **entry.config,
            }
            dotted = entry.type
        case Composed():
            dotted = "jumpstarter_driver_composite.driver.Composite"
        case Reference():
            dotted = "jumpstarter_driver_composite.driver.Proxy"
            arguments = {"ref": entry.ref}
    if not isinstance(entry, Reference):
        arguments["children"] = {name: _construct(child, f"{where}.{name}") for name, child in entry.children.items()}
    make = _load(dotted, where)
    try:
        return make(**arguments)
    except (ValidationError, TypeError) as error:
        raise DriverConfigError(f"{where}: {dotted} does not take this configuration: {error}") from error


def _load(dotted: str, where: str) -> Callable[..., UpstreamDriver]:
    module_name, _, class_name = dotted.rpartition(".")
    try:
        found = cast("object", getattr(importlib.import_module(module_name), class_name))
    except (ImportError, AttributeError, ValueError) as error:
        raise DriverConfigError(f"{where}.type: {dotted} is not installed: {error}") from error
    return cast("Callable[..., UpstreamDriver]", found)


def _identify(driver: UpstreamDriver, exporter: str, path: tuple[str, ...]) -> None:
    """Give every driver the id that it had in every earlier session."""
    driver.uuid = driver_uuid(exporter, path)
    for name, child in driver.children.items():
        _identify(child, exporter, (*path, name))


def _read_report(report: UpstreamReport) -> Report:
    return Report(
        uuid=report.uuid,
        parent_uuid=report.parent_uuid if report.HasField("parent_uuid") else None,
        labels=dict(report.labels),
        description=report.description if report.HasField("description") else None,
        methods_description=dict(report.methods_description),
    )


class _UpstreamCallee:
    def __init__(self, driver: UpstreamDriver) -> None:
        self._driver = driver

    def unary(self, method: str) -> Callable[..., object]:
        return _in_anyio_thread(self._method(method, "MARKER_DRIVERCALL"))

    def streaming(self, method: str) -> Callable[..., object]:
        return self._method(method, "MARKER_STREAMING_DRIVERCALL")

    def stream(self, method: str) -> Callable[[], AbstractAsyncContextManager[ByteStream]]:
        opener = self._method(method, "MARKER_STREAMCALL")
        return lambda: _opened(cast("AbstractAsyncContextManager[AnyioStream]", opener()))

    def add_resource(self, resource: UUID, end: PipeEnd) -> None:
        self._driver.resources[resource] = _anyio_end(end)

    def drop_resource(self, resource: UUID) -> None:
        self._driver.resources.pop(resource, None)

    def _method(self, name: str, marker: str) -> Callable[..., object]:
        """Return the method if it carries the mark that upstream's decorators leave for this kind of call."""
        decorators = importlib.import_module("jumpstarter.driver.decorators")
        method = cast("Callable[..., object] | None", getattr(self._driver, name, None))
        if method is None:
            raise NoSuchMethod(f"method {name} not found on driver")
        if getattr(method, getattr(decorators, marker), None) != decorators.MARKER_MAGIC:
            raise NoSuchMethod(f"method {name} is not exported for this kind of call")
        return method


def _in_anyio_thread(method: Callable[..., object]) -> Callable[..., object]:
    """Let plain functions run in a thread from which anyio can call back to the loop, as these drivers expect."""
    if inspect.iscoroutinefunction(method):
        return method
    threads = importlib.import_module("anyio.to_thread")
    run_sync = cast("Callable[..., Awaitable[object]]", threads.run_sync)

    @functools.wraps(method)
    async def call(*args: object) -> object:
        return await run_sync(method, *args)

    return call


@asynccontextmanager
async def _opened(manager: AbstractAsyncContextManager[AnyioStream]) -> AsyncGenerator[ByteStream]:
    async with manager as stream:
        yield _FromAnyio(stream)


class _FromAnyio:
    """An anyio byte stream as a ``ByteStream``."""

    def __init__(self, inner: AnyioStream) -> None:
        self._inner = inner

    async def receive(self) -> bytes:
        anyio = importlib.import_module("anyio")
        try:
            while not (data := await self._inner.receive()):
                continue
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise BrokenStream(str(error) or "the device closed the stream") from error
        return data

    async def send(self, data: bytes) -> None:
        anyio = importlib.import_module("anyio")
        try:
            await self._inner.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise BrokenStream(str(error) or "the device closed the stream") from error

    async def send_eof(self) -> None:
        end = getattr(self._inner, "send_eof", None)
        if end is not None:
            await end()

    async def aclose(self) -> None:
        await self._inner.aclose()


def _anyio_end(end: PipeEnd) -> object:
    """Return the driver's end of a resource stream as the anyio stream that these drivers expect."""
    anyio = importlib.import_module("anyio")
    base = cast("type", importlib.import_module("anyio.abc").ObjectStream)

    async def receive(_self: object) -> bytes:
        try:
            data = await end.receive()
        except BrokenStream as error:
            raise anyio.BrokenResourceError from error
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(_self: object, item: bytes) -> None:
        try:
            await end.send(item)
        except BrokenStream as error:
            raise anyio.BrokenResourceError from error

    async def send_eof(_self: object) -> None:
        await end.send_eof()

    async def aclose(_self: object) -> None:
        await end.aclose()

    methods = {"receive": receive, "send": send, "send_eof": send_eof, "aclose": aclose}
    return cast("object", type("ResourceEnd", (base,), methods)())


def main() -> NoReturn:
    """Run a host of such drivers. They are built on the event loop, as their own exporter does."""
    run(build, lambda _dotted: False, on_loop=True)
