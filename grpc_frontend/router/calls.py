"""Small things that both services of the router need of an RPC."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Protocol, TypeVar

from lablease.errors import NotAuthenticated

T = TypeVar("T")


class Readable(Protocol):
    """The reading half of ``grpc.aio.ServicerContext``."""

    async def read(self) -> object:
        """Return the next message, or ``grpc.aio.EOF``."""
        ...


def bearer(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Return the bearer token of a call.

    Raises:
        NotAuthenticated: there is none.
    """
    for key, value in metadata or ():
        if key == "authorization" and isinstance(value, str) and value[:7].lower() == "bearer ":
            return value[7:].strip()
    raise NotAuthenticated("metadata authorization must be: Bearer <token>")


async def undisturbed(operation: Coroutine[None, None, T]) -> T:
    """Await an operation on an RPC; if the RPC is cancelled, let the operation end by itself.

    gRPC's core writes to the operation's memory until it has ended.
    """
    return await asyncio.shield(asyncio.ensure_future(operation))
