"""Get a lease, keep it while it is used, give it back."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from lablease.client.durations import format_duration
from lablease.client.errors import ClientError, LeaseFailed, ServiceError
from lablease.client.resources import LeaseInfo, LeaseRequest
from lablease.client.service import Controller, time_ordered_uuid
from lablease.client.waiting import Acquired, Refused, Waiting, judge

log = logging.getLogger(__name__)

HOLD = timedelta(seconds=10)
"""How long a server that can do so is asked to hold back an answer while the lease waits."""
FIRST_HOLD = timedelta(seconds=1)
"""The same for the first look, so that somebody who has to wait is soon told why."""

_QUICK_SECONDS = 0.5  # an answer faster than this was not held: then the pause between looks is ours
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_RELEASE_SECONDS = 30.0
_OVER = frozenset({"NOT_FOUND", "FAILED_PRECONDITION"})

OnWait = Callable[[LeaseInfo, Waiting], None]


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease that has its exporter. ``mine``: made here, so it ends here."""

    controller: Controller
    info: LeaseInfo
    mine: bool


def ignore_wait(info: LeaseInfo, waiting: Waiting) -> None:
    """Tell nobody."""


@asynccontextmanager
async def hold(
    controller: Controller, request: LeaseRequest, on_wait: OnWait = ignore_wait, limit: timedelta | None = None
) -> AsyncGenerator[HeldLease]:
    """Create a lease, wait for its exporter, and release it at the end, also when the waiting is cut short.

    Raises:
        LeaseFailed: refused, ended meanwhile, or no exporter within ``limit`` (default: the configuration's).
    """
    lease_id = request.lease_id or str(time_ordered_uuid(time.time_ns(), os.urandom(10)))
    try:
        created = await controller.create_lease(replace(request, lease_id=lease_id))
        info = await acquire(controller, created.name, on_wait, limit)
        yield HeldLease(controller, info, mine=True)
    finally:
        await asyncio.shield(_release(controller, lease_id))


@asynccontextmanager
async def borrow(
    controller: Controller, name: str, on_wait: OnWait = ignore_wait, limit: timedelta | None = None
) -> AsyncGenerator[HeldLease]:
    """Use a lease that somebody else made and will end.

    Raises:
        LeaseFailed: it is another client's, or as for ``hold``.
    """
    info = await controller.get_lease(name)
    if info.client and info.client != controller.client:
        raise LeaseFailed(name, "NotYours", f"belongs to client {info.client}, this is client {controller.client}")
    yield HeldLease(controller, await acquire(controller, name, on_wait, limit), mine=False)


async def acquire(
    controller: Controller, name: str, on_wait: OnWait = ignore_wait, limit: timedelta | None = None
) -> LeaseInfo:
    """Wait until a lease has its exporter. A controller that is away meanwhile is waited for too.

    Raises:
        LeaseFailed: it will not get one, or not within ``limit``.
    """
    seconds = controller.config.leases.acquisition_timeout if limit is None else limit.total_seconds()
    try:
        async with asyncio.timeout(seconds):
            return await _wait(controller, name, on_wait)
    except TimeoutError:
        within = format_duration(timedelta(seconds=seconds))
        raise LeaseFailed(name, "AcquisitionTimeout", f"got no exporter within {within}") from None


async def _wait(controller: Controller, name: str, on_wait: OnWait) -> LeaseInfo:
    clock = asyncio.get_running_loop().time
    pause = _FIRST_PAUSE
    info: LeaseInfo | None = None
    while True:
        asked = clock()
        try:
            info = await controller.get_lease(name, HOLD if info else FIRST_HOLD)
        except ServiceError as error:
            if error.code != "UNAVAILABLE" or info is None:
                raise
            outlook: Waiting | Acquired | Refused = Waiting("ControllerAway", error.details, 0, None)
        else:
            outlook = judge(info)
        match outlook:
            case Acquired():
                return info
            case Refused():
                raise LeaseFailed(name, outlook.reason, outlook.message)
            case Waiting():
                on_wait(info, outlook)
        if clock() - asked >= _QUICK_SECONDS:
            pause = _FIRST_PAUSE
            continue
        await asyncio.sleep(pause)
        pause = min(1.5 * pause, _LONGEST_PAUSE)


async def _release(controller: Controller, name: str) -> None:
    """End the lease; that it ended before is fine, that it cannot be told is a warning and no error."""
    try:
        async with asyncio.timeout(_RELEASE_SECONDS):
            await controller.delete_lease(name)
    except ServiceError as error:
        if error.code not in _OVER:
            log.warning("lease %s was not released, it ends at its planned time: %s", name, error)
    except (ClientError, TimeoutError) as error:
        log.warning("lease %s was not released, it ends at its planned time: %s", name, error or "no answer")
