"""Local listeners whose connections end with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]
Carry = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def listening(
    start: Callable[[Accept], Awaitable[asyncio.Server]], carry: Carry
) -> AsyncGenerator[asyncio.Server]:
    """Run ``carry`` as a task for each connection of the server that ``start`` makes, until the context ends.

    asyncio's own tasks for coroutine callbacks are not used: Python 3.11 prints a traceback for each that is cancelled.
    """
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(carry(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    server = await start(accept)
    try:
        yield server
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()
