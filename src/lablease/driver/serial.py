"""Serial consoles."""

import errno
import fcntl
import os
import struct
import termios
import tty
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from lablease.driver.base import Driver, DriverConfigError, export, exportstream
from lablease.driver.bytestream import ByteStream
from lablease.driver.serialport import SerialPort

_NO_LINES: Final = frozenset({errno.ENOTTY, errno.EINVAL, errno.EIO})


class Console(Driver):
    """What clients of a serial console rely on. Base of console drivers: a subclass says how to open the port.

    Any number of connections may be open: each sees all output, and input of all goes to the device.
    """

    client_class = "jumpstarter_driver_pyserial.client.PySerialClient"

    def start(self) -> None:
        self._port: SerialPort | None = None
        self._fd = -1

    def open_port(self) -> int:
        """Return a new non-blocking descriptor of the device. Raises OSError."""
        raise NotImplementedError

    def chars_per_second(self) -> float | None:
        """Return the throttle for writes."""
        return None

    @exportstream
    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[ByteStream]:
        """Open the console."""
        stream = self._open().connect()
        try:
            yield stream
        finally:
            await stream.aclose()

    @export
    async def close(self) -> None:
        """End all connections to the console."""
        if self._port is not None:
            self._port.close()

    @export
    async def set_dtr(self, value: bool) -> None:
        """Set the line DTR."""
        self._set_line(termios.TIOCM_DTR, value)

    @export
    async def set_rts(self, value: bool) -> None:
        """Set the line RTS."""
        self._set_line(termios.TIOCM_RTS, value)

    def stop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> SerialPort:
        if self._port is None:
            self._fd = self.open_port()
            self._port = SerialPort(self._fd, chars_per_second=self.chars_per_second(), emptied=self._release)
        return self._port

    def _release(self) -> None:
        self._port = None
        self.stop()

    def _set_line(self, line: int, value: bool) -> None:
        fd = self._fd if self._fd >= 0 else self.open_port()
        try:
            fcntl.ioctl(fd, termios.TIOCMBIS if value else termios.TIOCMBIC, struct.pack("I", line))
        except OSError as error:
            if error.errno in _NO_LINES:
                raise NotImplementedError("the device has no modem control lines") from error
            raise
        finally:
            if fd != self._fd:
                os.close(fd)


def open_tty(path: str, baudrate: int) -> int:
    """Open a terminal device in raw mode. Raises OSError, or ValueError for a speed that does not exist."""
    speed = getattr(termios, f"B{baudrate}", None)
    if speed is None:
        raise ValueError(f"baudrate {baudrate} is not supported by the system")
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        tty.setraw(fd)
        attributes = termios.tcgetattr(fd)
        attributes[2] |= termios.CLOCAL | termios.CREAD
        attributes[4] = attributes[5] = speed
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
    except (OSError, termios.error) as error:
        os.close(fd)
        raise OSError(f"{path}: no terminal: {error}") from error
    return fd


@dataclass(kw_only=True)
class SerialConsole(Console):
    """A console on a terminal device: a serial port, or a pty.

    ``url``: path of the device. ``check_present``: refuse to start without it. ``cps``: characters per second that are
    written at most, for devices that lose input.
    """

    url: str
    baudrate: Annotated[int, Field(gt=0)] = 115200
    check_present: bool = True
    cps: Annotated[float, Field(gt=0)] | None = None

    def start(self) -> None:
        super().start()
        if self.check_present and not os.path.exists(self.url):
            raise DriverConfigError(f"{self.name}.config.url: no device {self.url} (check_present: false skips this)")

    def open_port(self) -> int:
        return open_tty(self.url, self.baudrate)

    def chars_per_second(self) -> float | None:
        return self.cps
