"""Builds a tree of native drivers from the ``export`` section of an exporter's configuration."""

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, cast
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from lablease.driver.base import (
    STREAM,
    STREAMING,
    UNARY,
    Driver,
    DriverConfigError,
    LeaseHolder,
    export_kind,
)
from lablease.driver.bytestream import ByteStream, PipeEnd
from lablease.driver.composite import Composite
from lablease.driver.config import Composed, DriverEntry, Entry, Reference
from lablease.driver.tree import CLIENT_LABEL, NAME_LABEL, Callee, NoSuchMethod, Report, driver_uuid

Path = tuple[str, ...]
MAX_REPORTS: Final = 10_000
"""References that multiply each other are refused before they fill memory."""


class NativeTree:
    """A tree of native drivers (a ``Tree``)."""

    def __init__(self, root: Driver, refs: Mapping[Path, Path], description: str | None) -> None:
        self._root = root
        self._refs = refs
        self._by_id: dict[str, Driver] = {}
        reports: list[Report] = []
        for report, driver in self._walk(root, None, None, (), frozenset()):
            if len(reports) >= MAX_REPORTS:
                raise DriverConfigError(f"export: more than {MAX_REPORTS} entries; do references contain each other?")
            self._by_id[report.uuid] = driver
            reports.append(report)
        first = reports[0]
        reports[0] = Report(first.uuid, None, first.labels, description, first.methods_description)
        self.reports: tuple[Report, ...] = tuple(reports)
        self._started: list[Driver] = []

    def callee(self, driver: str) -> Callee | None:
        found = self._by_id.get(driver)
        return None if found is None else _NativeCallee(found)

    def start(self) -> None:
        self._start(self._root)

    def reset(self) -> None:
        for driver in _parents_first(self._root):
            driver.reset()

    def close(self) -> None:
        """Close every driver that was started; one that fails does not keep the others open."""
        for driver in reversed(self._started):
            try:
                driver.stop()
            except Exception:  # code of a driver's author: whatever it raises must not leave other devices open
                driver.logger.exception("stop failed")
        self._started.clear()

    def _start(self, driver: Driver) -> None:
        for child in driver.children.values():
            self._start(child)
        driver.start()
        self._started.append(driver)

    def _walk(
        self, driver: Driver, parent: str | None, name: str | None, path: Path, seen: frozenset[Path]
    ) -> Iterator[tuple[Report, Driver]]:
        identity = str(driver.uuid)
        labels = driver.labels() | {CLIENT_LABEL: driver.client_class}
        if name is not None:
            labels[NAME_LABEL] = name
        yield Report(identity, parent, labels, driver.description, driver.help_texts()), driver
        for child_name, child in driver.children.items():
            yield from self._walk(child, identity, child_name, (*path, child_name), seen)
        for alias_path, target in self._refs.items():
            if alias_path[:-1] != path:
                continue
            if target in seen or alias_path[: len(target)] == target:
                raise DriverConfigError(f"export.{'.'.join(alias_path)}.ref: {'.'.join(target)} contains itself")
            found = _resolve(self._root, self._refs, target, alias_path)
            yield from self._walk(found, identity, alias_path[-1], target, seen | {target})


def build(exporter: str, export: Mapping[str, Entry], holder: LeaseHolder, description: str | None) -> NativeTree:
    """Make the objects of the tree; nothing is opened before ``start``.

    Raises:
        DriverConfigError: an entry names no class, no driver class, a wrong field, or a reference to nothing.
    """
    refs: dict[Path, Path] = {}
    root = _build(exporter, (), Composed(children=dict(export)), holder, refs)
    return NativeTree(root, refs, description)


def load_class(dotted: str, where: str) -> type[Driver]:
    """Import a driver class.

    Raises:
        DriverConfigError: no such module or class, or it is no native driver.
    """
    module_name, _, class_name = dotted.rpartition(".")
    if not module_name:
        raise DriverConfigError(f"{where}.type: {dotted!r} is no dotted path like package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise DriverConfigError(f"{where}.type: cannot import {module_name}: {error}") from error
    found = cast("object", getattr(module, class_name, None))
    if not (isinstance(found, type) and issubclass(found, Driver)):
        raise DriverConfigError(f"{where}.type: {dotted} is no driver class (subclass of lablease.driver.Driver)")
    return found


def _build(exporter: str, path: Path, entry: Entry, holder: LeaseHolder, refs: dict[Path, Path]) -> Driver:
    where = ".".join(("export", *path))
    children: dict[str, Driver] = {}
    description, methods = None, dict[str, str]()
    match entry:
        case DriverEntry():
            driver = _construct(load_class(entry.type, where), entry.config, where)
            description, methods = entry.description, entry.methods_description
        case Composed():
            driver = Composite()
        case Reference():
            raise DriverConfigError(f"{where}: the root cannot be a reference")
    for name, child in entry.children.items():
        if isinstance(child, Reference):
            refs[(*path, name)] = tuple(child.ref.split("."))
        else:
            children[name] = _build(exporter, (*path, name), child, holder, refs)
    _place(driver, exporter, path, children, holder)
    driver.description, driver.methods_description = description, methods
    return driver


def _place(driver: Driver, exporter: str, path: Path, children: Mapping[str, Driver], holder: LeaseHolder) -> None:
    """Tell a driver where it stands in the tree; its own parts come before configured children."""
    parts = driver.parts()
    for name, part in parts.items():
        _place(part, exporter, (*path, name), {}, holder)
    if clash := parts.keys() & children.keys():
        raise DriverConfigError(
            f"{'.'.join(('export', *path))}.children: {sorted(clash)} are made by the driver itself"
        )
    driver.name = ".".join(path)
    driver.uuid = driver_uuid(exporter, path)
    driver.children = {**parts, **children}
    driver.holder = holder
    driver.description, driver.methods_description = None, {}
    driver.resources = {}
    driver.logger = logging.getLogger(".".join(("driver", *path)))


def _construct(cls: type[Driver], config: Mapping[str, object], where: str) -> Driver:
    try:
        return TypeAdapter(cls).validate_python(dict(config))
    except ValidationError as error:
        problems = "; ".join(f"{where}.config.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DriverConfigError(problems) from error


def _resolve(root: Driver, refs: Mapping[Path, Path], target: Path, alias: Path) -> Driver:
    driver = root
    for depth, name in enumerate(target, start=1):
        child = driver.children.get(name)
        if child is None:
            hint = "it is itself a reference" if target[:depth] in refs else "there is none"
            raise DriverConfigError(f"export.{'.'.join(alias)}.ref: no driver {'.'.join(target)} ({hint})")
        driver = child
    return driver


def _parents_first(driver: Driver) -> Iterator[Driver]:
    yield driver
    for child in driver.children.values():
        yield from _parents_first(child)


class _NativeCallee:
    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def unary(self, method: str) -> Callable[..., object]:
        return self._method(method, UNARY)

    def streaming(self, method: str) -> Callable[..., object]:
        return self._method(method, STREAMING)

    def stream(self, method: str) -> Callable[[], AbstractAsyncContextManager[ByteStream]]:
        return cast("Callable[[], AbstractAsyncContextManager[ByteStream]]", self._method(method, STREAM))

    def add_resource(self, resource: UUID, end: PipeEnd) -> None:
        self._driver.resources[resource] = end

    def drop_resource(self, resource: UUID) -> None:
        self._driver.resources.pop(resource, None)

    def _method(self, name: str, wanted: str) -> Callable[..., object]:
        kind = export_kind(getattr(type(self._driver), name, None))
        if kind is None:
            raise NoSuchMethod(f"method {name} not found on driver {self._driver.name or 'root'}")
        if kind != wanted:
            raise NoSuchMethod(f"method {name} of driver {self._driver.name} is exported as {kind}, not as {wanted}")
        return cast("Callable[..., object]", getattr(self._driver, name))
