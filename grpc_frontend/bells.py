"""Waking whoever waits for a change of an exporter or a lease. A bell says "look again", never what changed."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from lablease.model.keys import Key


class About(StrEnum):
    """What a bell is about."""

    EXPORTER = "exporter"
    LEASE = "lease"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Topic:
    """One object that somebody waits for."""

    about: About
    key: Key


class Bells:
    """Events by topic. Costs memory only while somebody listens."""

    def __init__(self) -> None:
        self._events: dict[Topic, set[asyncio.Event]] = {}

    def ring(self, topic: Topic) -> None:
        """Wake all who listen to a topic."""
        for event in self._events.get(topic, ()):
            event.set()

    def ring_all(self) -> None:
        """Wake everybody, as when the server drains."""
        for events in self._events.values():
            for event in events:
                event.set()

    @contextmanager
    def listen(self, *topics: Topic) -> Generator[asyncio.Event]:
        """Give an event that is set by each change of a topic from now on; the listener clears it before it looks."""
        event = asyncio.Event()
        for topic in topics:
            self._events.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            for topic in topics:
                events = self._events[topic]
                events.discard(event)
                if not events:
                    del self._events[topic]
