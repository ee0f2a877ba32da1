"""Clients' halves that wait at routers, and the Listen streams through which exporters are invited to join them.

A router announces each waiting half again every two seconds, so nothing here needs to be durable.
"""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from lablease.grpc_frontend.bells import About, Bells, Topic
from lablease.grpc_frontend.telling import Held
from lablease.model.exporter import ExporterStatus
from lablease.model.grant import Grant
from lablease.model.keys import Key

PER_EXPORTER = 64
IN_ALL = 10_000
SILENT_SECONDS = 10.0
"""A half that was not announced for so long is gone, whatever was missed."""
AGAIN_SECONDS = 5.0
"""An exporter that is ready and still has not joined gets another token after this."""


@dataclass(frozen=True, slots=True)
class Half:
    """A client's half that waits at a router. ``seen``: monotonic seconds of the last announcement."""

    stream: str
    router: str
    grant: Grant
    seen: float

    @property
    def exporter(self) -> Key:
        """The exporter whose half is missing."""
        return Key(self.grant.namespace, self.grant.exporter)


class WaitingHalves:
    """What the routers announced and nobody joined yet; bounded per exporter and in all."""

    def __init__(self, bells: Bells) -> None:
        self._bells = bells
        self._by_exporter: dict[Key, dict[str, Half]] = {}
        self._exporter_of: dict[str, Key] = {}

    def announce(self, half: Half) -> None:
        """Take in an announcement; what does not fit is left out, since it is announced again."""
        halves = self._by_exporter.setdefault(half.exporter, {})
        known = half.stream in halves
        if not known and (len(halves) >= PER_EXPORTER or len(self._exporter_of) >= IN_ALL):
            self._drop_silent(half.seen)
            halves = self._by_exporter.setdefault(half.exporter, {})
            if len(halves) >= PER_EXPORTER or len(self._exporter_of) >= IN_ALL:
                self._tidy(half.exporter)
                return
        halves[half.stream] = half
        self._exporter_of[half.stream] = half.exporter
        if not known:
            self._bells.ring(Topic(About.EXPORTER, half.exporter))

    def gone(self, stream: str) -> None:
        """Forget a half that was joined or left."""
        exporter = self._exporter_of.pop(stream, None)
        if exporter is not None:
            self._by_exporter[exporter].pop(stream, None)
            self._tidy(exporter)

    def router_lost(self, router: str) -> None:
        """Forget what a router announced; it announces everything again when it is back."""
        for half in [half for halves in self._by_exporter.values() for half in halves.values()]:
            if half.router == router:
                self.gone(half.stream)

    def of(self, exporter: Key, now: float) -> tuple[Half, ...]:
        """Return what waits for an exporter."""
        halves = tuple(self._by_exporter.get(exporter, {}).values())
        return tuple(half for half in halves if now - half.seen <= SILENT_SECONDS)

    def count(self) -> int:
        """Return how many wait in all."""
        return len(self._exporter_of)

    def _drop_silent(self, now: float) -> None:
        silent = [
            half.stream
            for halves in self._by_exporter.values()
            for half in halves.values()
            if now - half.seen > SILENT_SECONDS
        ]
        for stream in silent:
            self.gone(stream)

    def _tidy(self, exporter: Key) -> None:
        if not self._by_exporter.get(exporter):
            self._by_exporter.pop(exporter, None)


class Listeners:
    """The open Listen streams. Of several for one lease of one exporter the newest gets the tunnels."""

    def __init__(self, bells: Bells) -> None:
        self._bells = bells
        self._open: dict[tuple[Key, str], list[object]] = {}

    @contextmanager
    def open(self, exporter: Key, lease: str) -> Generator[object]:
        """Enter a stream; gives a mark for ``current``."""
        mark = object()
        marks = self._open.setdefault((exporter, lease), [])
        marks.append(mark)
        try:
            yield mark
        finally:
            marks.remove(mark)
            if not marks:
                del self._open[exporter, lease]
            self._bells.ring(Topic(About.EXPORTER, exporter))

    def current(self, exporter: Key, lease: str, mark: object) -> bool:
        """True if this stream is the newest."""
        marks = self._open.get((exporter, lease))
        return marks is not None and marks[-1] is mark


def to_invite(
    halves: Iterable[Half],
    held: Held | None,
    lease: str,
    status: ExporterStatus | None,
    invited: Mapping[str, float],
    now: float,
) -> tuple[Half, ...]:
    """Return the halves for which the exporter gets a token now.

    One invitation each; another one only to an exporter that is ready, because jmp 0.9.0 stores up to ten of them until
    its hook before the lease is done, and joins them all.
    """
    if held is None or held.lease != lease:
        return ()
    fitting = [half for half in halves if half.grant.number == held.grant and half.grant.client == held.client]
    again = status is ExporterStatus.LEASE_READY
    return tuple(
        half
        for half in fitting
        if half.stream not in invited or (again and now - invited[half.stream] >= AGAIN_SECONDS)
    )
