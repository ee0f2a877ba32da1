"""A cache of one collection that follows the API server: list, watch, list again after a gap.

What the cache does not have may still exist (a watch lags): a caller that must be sure makes one live ``get``.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import structlog

from lablease import clock
from lablease.errors import Gone, InvalidField, LableaseError, NotAllowed, NotAuthenticated, NotFound, Unavailable
from lablease.kube.api import KubeApi, RawObject
from lablease.kube.resources import Resource
from lablease.model.keys import Key

T = TypeVar("T")
Listener = Callable[[T | None, T | None], None]
"""Called as ``listener(old, new)`` after the cache has changed; None stands for absent."""

_BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Between attempts while the API server is away; the last repeats for ever."""

log = structlog.get_logger(__name__)


class Informer(Generic[T]):
    """The objects of one resource in one namespace (None: all), parsed, indexed, and followed.

    Args:
        parse: reads one object; an object that it refuses with ``InvalidField`` is left out and logged.
        indexes: name -> function that gives the values under which an object is found by ``by``.
        name: follow only the object of this name, for which alone there may be a permission.
    """

    def __init__(
        self,
        api: KubeApi,
        resource: Resource,
        namespace: str | None,
        parse: Callable[[RawObject], T],
        indexes: Mapping[str, Callable[[T], Iterable[Hashable]]] | None = None,
        name: str | None = None,
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self.last_contact = clock.monotonic()
        """Monotonic seconds of the last event, bookmark or list: the age of what we know."""
        self._api = api
        self._namespace = namespace
        self._name = name
        self._parse = parse
        self._objects: dict[Key, T] = {}
        self._versions: dict[Key, int] = {}
        self._tombstones: dict[Key, int] = {}
        self._last_bookmark = 0
        self._index_functions = dict(indexes or {})
        self._indexes: dict[str, defaultdict[Hashable, dict[Key, T]]] = {
            name: defaultdict(dict) for name in self._index_functions
        }
        self._listeners: list[Listener[T]] = []
        self._waiters: defaultdict[Key, set[asyncio.Future[None]]] = defaultdict(set)

    def get(self, key: Key) -> T | None:
        """Return the newest known state of an object."""
        return self._objects.get(key)

    def values(self) -> Iterable[T]:
        """Return all objects, in no particular order; do not await while iterating."""
        return self._objects.values()

    def by(self, index: str, value: Hashable) -> tuple[T, ...]:
        """Return the objects that an index has under a value."""
        found = self._indexes[index].get(value)
        return tuple(found.values()) if found else ()

    def add_listener(self, listener: Listener[T]) -> Callable[[], None]:
        """Call a function after each change, from the loop; the result removes it again. It must not raise."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def changed(self, key: Key) -> None:
        """Wait until an object changes, appears or disappears."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[key].add(waiter)
        try:
            await waiter
        finally:
            waiters = self._waiters.get(key)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[key]

    async def read(self, key: Key) -> T:
        """Return an object from the API server itself, and remember it.

        Raises:
            NotFound, Unavailable: of the API server.
            InvalidField: it exists and cannot be read.
        """
        try:
            raw = await self._api.get(self.resource, key)
        except NotFound:
            self._forget(key, self._versions.get(key, 0))
            raise
        return self.insert(raw)

    def insert(self, raw: RawObject) -> T:
        """Take in an object that a read or a write returned; the newer of two versions stays. Returns it parsed."""
        parsed = self._parse(raw)
        key, version = _key(raw), _version(raw)
        if version > self._versions.get(key, -1) and version > self._tombstones.get(key, -1):
            self._store(key, version, parsed)
        return parsed

    async def run(self) -> None:
        """Follow the collection until cancelled."""
        version = ""
        failures = 0
        while True:
            try:
                if not version:
                    version = await self._list()
                    failures = 0
                async for event in self._api.watch(self.resource, self._namespace, version, self._name):
                    version = event.object["metadata"]["resourceVersion"]
                    self.last_contact = clock.monotonic()
                    failures = 0
                    self._take(event.type, event.object)
            except Gone:
                version = ""
            except (Unavailable, NotAllowed, NotAuthenticated, NotFound) as error:
                await self._pause(error, failures)
                failures += 1

    async def _pause(self, error: LableaseError, failures: int) -> None:
        if failures % 20 == 0:
            log.warning("informer.away", resource=self.resource.plural, reason=str(error), attempts=failures + 1)
        await asyncio.sleep(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])

    async def _list(self) -> str:
        listing = await self._api.list(self.resource, self._namespace, name=self._name)
        version = int(listing.resource_version)
        present: set[Key] = set()
        for raw in listing.items:
            present.add(_key(raw))
            self._take("ADDED", raw)
        for key in [key for key, seen in self._versions.items() if key not in present and seen <= version]:
            self._forget(key, version)
        self._bookmark(version)
        self.last_contact = clock.monotonic()
        self.synced.set()
        return listing.resource_version

    def _take(self, kind: str, raw: RawObject) -> None:
        if kind == "BOOKMARK":
            self._bookmark(_version(raw))
        elif kind == "DELETED":
            self._forget(_key(raw), _version(raw))
        else:
            try:
                self.insert(raw)
            except InvalidField as problem:
                log.warning(
                    "informer.unreadable", resource=self.resource.plural, name=str(_key(raw)), reason=str(problem)
                )
                self._forget(_key(raw), _version(raw))

    def _bookmark(self, version: int) -> None:
        """Forget deletions older than the bookmark before: answers of writes do not take that long."""
        self._tombstones = {key: seen for key, seen in self._tombstones.items() if seen > self._last_bookmark}
        self._last_bookmark = version

    def _store(self, key: Key, version: int, new: T) -> None:
        old = self._objects.get(key)
        self._objects[key] = new
        self._versions[key] = version
        self._reindex(key, old, new)
        self._tell(key, old, new)

    def _forget(self, key: Key, version: int) -> None:
        """Drop an object up to a version; a late answer of an older write must not bring it back."""
        if self._versions.get(key, -1) > version:
            return
        self._tombstones[key] = version
        self._versions.pop(key, None)
        old = self._objects.pop(key, None)
        if old is not None:
            self._reindex(key, old, None)
            self._tell(key, old, None)

    def _reindex(self, key: Key, old: T | None, new: T | None) -> None:
        for name, values_of in self._index_functions.items():
            index = self._indexes[name]
            for value in set(values_of(old)) if old is not None else ():
                index[value].pop(key, None)
                if not index[value]:
                    del index[value]
            for value in set(values_of(new)) if new is not None else ():
                index[value][key] = new  # type: ignore[assignment]

    def _tell(self, key: Key, old: T | None, new: T | None) -> None:
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)
        for listener in tuple(self._listeners):
            listener(old, new)


def _key(raw: Mapping[str, Any]) -> Key:
    meta = raw["metadata"]
    return Key(meta.get("namespace", ""), meta["name"])


def _version(raw: Mapping[str, Any]) -> int:
    """Versions of one kind are ordered integers: etcd revisions, and by contract of the API since Kubernetes 1.35."""
    return int(raw["metadata"]["resourceVersion"])
