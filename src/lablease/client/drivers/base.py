"""What the clients of all drivers share."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager

from lablease.client.errors import ClientError
from lablease.client.frames import FrameStream
from lablease.client.session import Session
from lablease.client.tree import DriverNode
from lablease.client.values import Json


class DriverClient:
    """One driver of a session, by the names that are on the wire. Subclasses add typed methods."""

    def __init__(self, session: Session, node: DriverNode) -> None:
        self.session = session
        self.node = node

    async def call(self, method: str, *args: object) -> Json:
        """Call an exported unary method; see ``Session.call`` for what is raised."""
        return await self.session.call(self.node.uuid, method, *args)

    def streaming_call(self, method: str, *args: object) -> AsyncGenerator[Json]:
        """Call an exported streaming method."""
        return self.session.streaming_call(self.node.uuid, method, *args)

    def stream(self, method: str = "connect") -> AbstractAsyncContextManager[FrameStream]:
        """Open a byte stream of the driver; cancel-safe, closed with the context."""
        return self.session.stream(self.node.uuid, method)

    def unexpected(self, method: str, answer: Json) -> ClientError:
        """Return the error for an answer that the driver's contract does not allow."""
        return ClientError(f"{'.'.join(self.node.path)}: {method} answered {answer!r}, which is not its contract")
