"""What the services share, put together once by ``main``."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from lablease.grpc_frontend.auth import Authenticator
from lablease.grpc_frontend.leases import LeaseDesk
from lablease.grpc_frontend.nudges import Nudges
from lablease.grpc_frontend.routers import Router
from lablease.grpc_frontend.sessions import Sessions
from lablease.grpc_frontend.store import Store
from lablease.grpc_frontend.tunnels import Listeners, WaitingHalves


@dataclass(frozen=True, slots=True)
class Waits:
    """How long calls are held at most."""

    dial: timedelta = timedelta(seconds=30)
    """For the exporter to be ready; jmp 0.9.0 sets no deadline of its own and tries for as long."""
    decision: timedelta = timedelta(seconds=2)
    """For the first decision about a lease."""
    longest: timedelta = timedelta(minutes=5)
    """Where the caller asks for more."""
    rotation: timedelta = timedelta(seconds=10)
    """For the operator to issue a new token."""
    store: timedelta = timedelta(seconds=5)
    """For the API server to come back, in calls whose callers can bear an error after that."""


@dataclass(frozen=True, slots=True)
class Parts:
    """One front end."""

    store: Store
    authenticator: Authenticator
    leases: LeaseDesk
    sessions: Sessions
    listeners: Listeners
    waiting: WaitingHalves
    routers: Callable[[], tuple[Router, ...]]
    """The routers that take new tunnels now."""
    router_key: bytes = field(repr=False)
    nudges: Nudges = field(default_factory=Nudges)
    waits: Waits = Waits()
    draining: asyncio.Event = field(default_factory=asyncio.Event)


async def rung(bell: asyncio.Event, seconds: float | None) -> None:
    """Wait for a bell, or until so many seconds have passed."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await bell.wait()
