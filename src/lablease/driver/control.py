"""What agent and driver host say to each other: one JSON object per line over a socket pair.

The agent decides (status, whom the session serves, when it ends); the host serves and tells.
"""

import asyncio
import socket
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, Discriminator, Field, TypeAdapter, ValidationError

from lablease.driver.config import Entry

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""A tree of thousands of drivers with help texts fits; a peer that sends more is broken."""


Message = TypeVar("Message")


class ControlLost(ConnectionError):
    """The other side is gone, or said what is no message."""


class Identity(BaseModel):
    """Whom the session serves."""

    op: Literal["identity"] = "identity"
    lease: str = ""
    client: str = ""
    grant: int = 0


class Preload(BaseModel):
    """Import the modules of these driver classes, so that building later takes no time. Failures are told by Build."""

    op: Literal["preload"] = "preload"
    types: list[str]


class Classify(BaseModel):
    """Tell which of these classes are native drivers."""

    op: Literal["classify"] = "classify"
    types: list[str]


class Build(BaseModel):
    """Build the tree and serve it on two unix sockets."""

    op: Literal["build"] = "build"
    exporter: str
    exporter_uuid: str
    labels: dict[str, str] = Field(default_factory=dict)
    description: str | None = None
    motd: str = ""
    export: dict[str, Entry]
    main_socket: str
    hook_socket: str
    identity: Identity


class SetStatus(BaseModel):
    """What GetStatus answers from now on, and what the gate goes by."""

    op: Literal["status"] = "status"
    status: int
    message: str = ""
    version: int
    previous: int | None = None


class AddLog(BaseModel):
    """A line of a hook or of the agent for the session's log."""

    op: Literal["log"] = "log"
    severity: str
    source: int
    message: str


class SessionEnded(BaseModel):
    """Answer to EndSession: the session has ended, or it goes on ending."""

    op: Literal["session_ended"] = "session_ended"
    success: bool
    message: str


class Shutdown(BaseModel):
    """Close the drivers and leave."""

    op: Literal["shutdown"] = "shutdown"


class Ready(BaseModel):
    """The host has imported what it needs."""

    op: Literal["ready"] = "ready"


class Classified(BaseModel):
    """Those of the asked classes that are native drivers."""

    op: Literal["classified"] = "classified"
    native: list[str]


class ReportEntry(BaseModel):
    """One entry of the tree."""

    uuid: str
    parent_uuid: str | None
    labels: dict[str, str]
    description: str | None
    methods_description: dict[str, str]


class Built(BaseModel):
    """The session is served. ``error``: the tree could not be built, and an empty one is served."""

    op: Literal["built"] = "built"
    error: str = ""
    reports: list[ReportEntry]


class EndSession(BaseModel):
    """A client asks for the end of the session."""

    op: Literal["end_session"] = "end_session"


class StatusRead(BaseModel):
    """A client has read a failed status."""

    op: Literal["status_read"] = "status_read"
    status: int


ToHost = Preload | Classify | Build | Identity | SetStatus | AddLog | SessionEnded | Shutdown
ToAgent = Ready | Classified | Built | EndSession | StatusRead

to_host: Final[TypeAdapter[ToHost]] = TypeAdapter(Annotated[ToHost, Discriminator("op")])
to_agent: Final[TypeAdapter[ToAgent]] = TypeAdapter(Annotated[ToAgent, Discriminator("op")])


class Channel:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> "Channel":
        """Take over ``end``."""
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=MAX_LINE_BYTES)
        return cls(reader, writer)

    def send(self, message: ToHost | ToAgent) -> None:
        """Queue a message. What is sent to a peer that is gone is lost; ``receive`` tells of that."""
        if not self._writer.is_closing():
            self._writer.write(message.model_dump_json().encode() + b"\n")

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was sent. Raises OSError when it is gone."""
        await self._writer.drain()

    async def receive_at_host(self) -> ToHost:
        """Return the agent's next message. Raises ControlLost."""
        return _parse(to_host, await self._line())

    async def receive_at_agent(self) -> ToAgent:
        """Return the host's next message. Raises ControlLost."""
        return _parse(to_agent, await self._line())

    def close(self) -> None:
        self._writer.close()

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readline()
        except (OSError, ValueError) as error:
            raise ControlLost(f"control channel: {error}") from error
        if not line.endswith(b"\n"):
            raise ControlLost("control channel: the other side is gone")
        return line


def _parse(adapter: TypeAdapter[Message], line: bytes) -> Message:
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        raise ControlLost(f"control channel: not a message: {error.error_count()} problems") from error
