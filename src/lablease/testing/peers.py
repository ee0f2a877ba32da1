"""What a device offers on the far side of a driver: TCP servers whose traffic a test can look at."""

import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

CHUNK = 65536


@dataclass(slots=True)
class Conversation:
    """One connection that was accepted. Times are ``time.time``."""

    received: bytearray = field(default_factory=bytearray)
    arrivals: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    eof_at: float | None = None
    sent: int = 0
    closed_at: float | None = None
    """When the server noticed that the other side is gone (EOF or reset)."""


class Peer:
    """A TCP server on loopback: one thread per connection, behaviour in ``serve``.

    Used as a context manager; leaving it closes all connections.
    """

    def __init__(self) -> None:
        self.conversations: list[Conversation] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, name="peer", daemon=True)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def serve(self, connection: socket.socket, conversation: Conversation) -> None:
        """Talk on one connection until it ends; OSError ends it too."""
        raise NotImplementedError

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
            conversation = Conversation()
            self.conversations.append(conversation)
            threading.Thread(target=self._converse, args=(connection, conversation), daemon=True).start()

    def _converse(self, connection: socket.socket, conversation: Conversation) -> None:
        with connection:
            try:
                self.serve(connection, conversation)
            except OSError:
                conversation.closed_at = conversation.closed_at or time.time()

    @staticmethod
    def read_all(connection: socket.socket, conversation: Conversation) -> None:
        """Read to EOF, noting what arrived when."""
        while data := connection.recv(CHUNK):
            conversation.received += data
            conversation.arrivals.append((time.time(), len(data)))
        conversation.eof_at = conversation.closed_at = time.time()


class Exchange(Peer):
    """Sends ``answer`` while it reads to EOF, then closes: both directions at once, with a half-close between them."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self._answer = answer

    def serve(self, connection: socket.socket, conversation: Conversation) -> None:
        """Read in one thread, write in another."""
        reader = threading.Thread(target=self._read, args=(connection, conversation), daemon=True)
        reader.start()
        connection.sendall(self._answer)
        conversation.sent = len(self._answer)
        reader.join()
        connection.shutdown(socket.SHUT_WR)

    def _read(self, connection: socket.socket, conversation: Conversation) -> None:
        try:
            self.read_all(connection, conversation)
        except OSError:
            conversation.closed_at = time.time()


class Echo(Peer):
    """Sends back what it gets."""

    def serve(self, connection: socket.socket, conversation: Conversation) -> None:
        """Echo until EOF."""
        while data := connection.recv(CHUNK):
            conversation.received += data
            conversation.arrivals.append((time.time(), len(data)))
            connection.sendall(data)
            conversation.sent += len(data)
        conversation.eof_at = conversation.closed_at = time.time()


class Ticker(Peer):
    """Sends a line ``<time> <number>`` every ``period_seconds`` and notes what arrives, until it is cut off."""

    def __init__(self, period_seconds: float = 0.01) -> None:
        super().__init__()
        self._period_seconds = period_seconds

    def serve(self, connection: socket.socket, conversation: Conversation) -> None:
        """Tick and read."""
        reader = threading.Thread(target=self._read, args=(connection, conversation), daemon=True)
        reader.start()
        pause = threading.Event()
        number = 0
        while conversation.closed_at is None:
            connection.sendall(f"{time.time():.4f} {number}\n".encode())
            conversation.sent += 1
            number += 1
            pause.wait(self._period_seconds)

    def _read(self, connection: socket.socket, conversation: Conversation) -> None:
        try:
            self.read_all(connection, conversation)
        except OSError:
            conversation.closed_at = time.time()
