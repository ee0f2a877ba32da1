"""State of one session: its tree, its status, its log. One per host process; the agent decides the status."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from lablease.driver.base import LeaseHolder
from lablease.driver.faults import NotReady, UnknownDriver
from lablease.driver.logring import LogRing
from lablease.driver.tree import Callee, Tree


class Status(IntEnum):
    """Numbers of ``jumpstarter.v1.ExporterStatus``."""

    UNSPECIFIED = 0
    OFFLINE = 1
    AVAILABLE = 2
    BEFORE_LEASE_HOOK = 3
    LEASE_READY = 4
    AFTER_LEASE_HOOK = 5
    BEFORE_LEASE_HOOK_FAILED = 6
    AFTER_LEASE_HOOK_FAILED = 7


FAILED: Final = frozenset({Status.BEFORE_LEASE_HOOK_FAILED, Status.AFTER_LEASE_HOOK_FAILED})
"""Statuses that a client must have seen before the agent may go on."""

_CLIENT_CALLS: Final = frozenset({Status.LEASE_READY})
_HOOK_CALLS: Final = frozenset({Status.LEASE_READY, Status.BEFORE_LEASE_HOOK, Status.AFTER_LEASE_HOOK})


@dataclass(frozen=True, slots=True)
class StatusView:
    """What GetStatus answers. ``version`` grows with every change and never restarts within a lease."""

    status: Status
    message: str = ""
    version: int = 0
    previous: Status | None = None


@dataclass(frozen=True, slots=True)
class EndAnswer:
    """What EndSession answers."""

    success: bool
    message: str


class Session:
    """Everything that the services of one host share.

    Args:
        end_session: asks the agent to end the session, and returns when that is done or when it takes too long.
        status_read: told when a client has read a failed status.
    """

    def __init__(
        self,
        *,
        tree: Tree,
        exporter_uuid: str,
        labels: dict[str, str],
        motd: str,
        log: LogRing,
        holder: LeaseHolder,
        end_session: Callable[[], Awaitable[EndAnswer]],
        status_read: Callable[[Status], None],
    ) -> None:
        self.tree = tree
        self.exporter_uuid = exporter_uuid
        self.labels = labels
        self.motd = motd
        self.log = log
        self.holder = holder
        self.end_session = end_session
        self.status_read = status_read
        self._view = StatusView(Status.AVAILABLE)
        self._streams: dict[asyncio.Task[None], bool] = {}

    @property
    def view(self) -> StatusView:
        return self._view

    def set_status(self, view: StatusView) -> None:
        """Take the agent's status. Outside LEASE_READY the byte streams of clients end: hooks need the devices."""
        self._view = view
        if view.status not in _CLIENT_CALLS:
            for task, via_hook in self._streams.items():
                if not via_hook:
                    task.cancel()

    def admit(self, *, via_hook: bool) -> None:
        """Pass, or refuse a driver call or stream.

        Raises:
            NotReady: clients are served in LEASE_READY only; hooks also while they run.
        """
        status = self._view.status
        if status not in (_HOOK_CALLS if via_hook else _CLIENT_CALLS):
            raise NotReady(f"exporter is not ready for driver calls: status is {status.name}")

    def callee(self, driver: str) -> Callee:
        """Return the driver with this id. Raises UnknownDriver."""
        found = self.tree.callee(driver)
        if found is None:
            raise UnknownDriver(f"no driver {driver!r} in this session")
        return found

    def track(self, task: asyncio.Task[None], *, via_hook: bool) -> None:
        """Remember the task of an open byte stream until it ends."""
        self._streams[task] = via_hook
        task.add_done_callback(self._streams.pop)

    async def close_streams(self) -> None:
        """End every byte stream and wait until the drivers have let go of them."""
        streams = [task for task in self._streams if task is not asyncio.current_task()]
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

    async def reset(self) -> None:
        """Close the streams, then bring the devices back to a known state."""
        await self.close_streams()
        await asyncio.to_thread(self.tree.reset)
