"""From a held lease to a session that serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

from lablease.client.errors import ClientError, LeaseFailed, ServiceError
from lablease.client.lease import HeldLease
from lablease.client.session import READY_LIMIT, ExporterState, Session, open_session
from lablease.client.tunnel import Tunnel, open_tunnel

T = TypeVar("T")


@asynccontextmanager
async def connect_exporter(
    held: HeldLease,
    on_state: Callable[[ExporterState], None] | None = None,
    on_trouble: Callable[[ClientError], None] | None = None,
    limit: timedelta = READY_LIMIT,
) -> AsyncGenerator[tuple[Session, Tunnel]]:
    """Open a tunnel and a session, wait until the exporter serves this lease, and fetch its driver tree.

    ``on_trouble`` is told of tunnels that failed and are going to be tried again.

    Raises:
        LeaseFailed: the lease is over, or was transferred to another client.
        ExporterNotReady, ExporterUnreachable: as ``Session.wait_ready``.
    """
    controller, name = held.controller, held.info.name
    within = timedelta(seconds=controller.config.leases.dial_timeout)
    async with (
        open_tunnel(controller, name, controller.trust, within, on_trouble) as tunnel,
        open_session(str(tunnel.path)) as session,
    ):
        await _unless_refused(session.wait_ready(limit, on_state), tunnel, name)
        await _unless_refused(session.load(), tunnel, name)
        yield session, tunnel


async def _unless_refused(work: Coroutine[Any, Any, T], tunnel: Tunnel, lease: str) -> T:
    """Wait for ``work``, but not once a tunnel was refused for good."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task, tunnel.refused), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        error = tunnel.refused.result()
        if isinstance(error, ServiceError) and "permission denied" in error.details.lower():
            raise LeaseFailed(lease, "Transferred", "it belongs to another client now")
        raise error
    finally:
        task.cancel()
