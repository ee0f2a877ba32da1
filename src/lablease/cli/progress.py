"""What a person reads on standard error while a lease is waited for and used."""

from __future__ import annotations

import asyncio
from datetime import datetime

import click

from lablease.client.durations import format_duration
from lablease.client.resources import LeaseInfo
from lablease.client.session import ExporterState
from lablease.client.waiting import Waiting
from lablease.clock import utc_now

_PATIENCE_SECONDS = 3.0
_STATES = {
    "BEFORE_LEASE_HOOK": "exporter prepares the device (beforeLease hook)",
    "AFTER_LEASE_HOOK": "exporter cleans up (afterLease hook)",
}


class Progress:
    """Says a thing once, and again only when it has changed. ``quiet`` says nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._last = ""
        self._later: asyncio.TimerHandle | None = None

    def say(self, text: str) -> None:
        """Print one line."""
        if not self._quiet and text != self._last:
            click.echo(f"lablease: {text}", err=True)
        self._last = text

    def waiting(self, lease: LeaseInfo, waiting: Waiting) -> None:
        """Say why a lease waits, at which place, and until when probably."""
        place = f", place {waiting.position} in the queue" if waiting.position else ""
        estimate = f", probably at {local_time(waiting.estimate)}" if waiting.estimate else ""
        self.say(f"lease {lease.name} waits: {waiting.message or waiting.reason} ({waiting.reason}){place}{estimate}")

    def acquired(self, lease: LeaseInfo) -> None:
        """Say which exporter it is, and until when."""
        end = lease.planned_end
        until = f" until {local_time(end)} ({format_duration(end - utc_now())})" if end else ""
        self.say(f"lease {lease.name} has exporter {lease.exporter}{until}")

    def state(self, state: ExporterState) -> None:
        """Say what the exporter does while nobody can use it; AVAILABLE, which is normal for a moment, only later."""
        if self._later:
            self._later.cancel()
        if text := _STATES.get(state.status):
            self.say(text)
        elif state.status == "AVAILABLE":
            text = f"exporter does not serve this lease yet ({state.message or state.status})"
            self._later = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self.say, text)
        elif state.message.startswith("[HOOK_WARNING] "):
            self.say(f"warning: {state.message.removeprefix('[HOOK_WARNING] ')}")

    def trouble(self, error: Exception) -> None:
        """Say why a tunnel did not come to be; it is tried again."""
        self.say(f"no tunnel yet: {error}")


def local_time(instant: datetime) -> str:
    """Return the time of day, with the date if it is another day."""
    local = instant.astimezone()
    same_day = local.date() == utc_now().astimezone().date()
    return local.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S")
