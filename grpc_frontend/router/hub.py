"""What the router tells front ends: every event goes to every control stream, and none can make memory grow."""

import asyncio

from lablease.model.grant import Grant
from lablease.wire.internal.v1 import router_control_pb2 as pb

_BACKLOG = 8192
"""Events that one front end may be behind; a slower one is disconnected and hears all again when it comes back."""


class Listener:
    """The events for one control stream, in order."""

    def __init__(self) -> None:
        self.overrun = False
        self.closed = False
        self._events: asyncio.Queue[pb.ControlEvent | None] = asyncio.Queue(_BACKLOG)

    def put(self, event: pb.ControlEvent) -> None:
        """Add an event; too many end the stream."""
        if self.closed:
            return
        if self._events.qsize() >= _BACKLOG - 1:
            self.overrun = True
            self.close()
        else:
            self._events.put_nowait(event)

    def close(self) -> None:
        """Let ``next`` return None when what is queued was taken."""
        if not self.closed:
            self.closed = True
            self._events.put_nowait(None)  # the last place in the queue is kept for this

    async def next(self) -> pb.ControlEvent | None:
        """Return the next event, None at the end."""
        return await self._events.get()


class Hub:
    """All control streams of one router."""

    def __init__(self, router: str) -> None:
        self._router = router
        self._listeners: set[Listener] = set()

    def __len__(self) -> int:
        return len(self._listeners)

    def join(self) -> Listener:
        """Add a control stream."""
        listener = Listener()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Remove a control stream."""
        self._listeners.discard(listener)

    def close(self) -> None:
        """End all control streams."""
        for listener in self._listeners:
            listener.close()

    def ready(self, *, draining: bool, tunnels: int, only: Listener | None = None) -> None:
        """Say what state the router is in."""
        event = pb.ControlEvent(ready=pb.Ready(router=self._router, draining=draining, tunnels=tunnels))
        self._tell(event, only)

    def waiting(self, stream: str, grant: Grant, only: Listener | None = None) -> None:
        """Say that a client's half waits."""
        self._tell(pb.ControlEvent(waiting=pb.Waiting(stream=stream, grant=grant_message(grant))), only)

    def paired(self, stream: str) -> None:
        """Say that both halves are there."""
        self._tell(pb.ControlEvent(paired=pb.Paired(stream=stream)), None)

    def gone(self, stream: str) -> None:
        """Say that a half left or a tunnel ended."""
        self._tell(pb.ControlEvent(gone=pb.Gone(stream=stream)), None)

    def _tell(self, event: pb.ControlEvent, only: Listener | None) -> None:
        for listener in (only,) if only else self._listeners:
            listener.put(event)


def grant_message(grant: Grant) -> pb.Grant:
    """Return the message for a grant; its end has a message of its own."""
    return pb.Grant(
        namespace=grant.namespace,
        exporter=grant.exporter,
        lease=grant.lease,
        grant=grant.number,
        client=grant.client,
    )
