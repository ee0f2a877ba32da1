"""A board that is a process: it boots when the power comes on and talks on a serial console. For demos and tests."""

import asyncio
import os
import pty
import subprocess
import sys
import tty
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lablease.clock import utc_now
from lablease.driver.base import Driver, export
from lablease.driver.devicelog import record
from lablease.driver.power import Power, PowerReading
from lablease.driver.serial import Console
from lablease.driver.storage import FileFlasher

FIRMWARE: Final = Path(__file__).with_name("board_firmware.py")


class Wires:
    """What the board's parts share: the console's pty, and the process while the power is on."""

    def __init__(self) -> None:
        self.controller, self._board = pty.openpty()
        tty.setraw(self._board)
        os.set_blocking(self.controller, False)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def powered(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def power_on(self, name: str) -> None:
        """Boot, unless it runs already."""
        if self.powered:
            return
        command = (sys.executable, "-I", "-S", "-u", str(FIRMWARE), name)
        self._process = subprocess.Popen(command, stdin=self._board, stdout=self._board, stderr=self._board)

    def power_off(self) -> None:
        """Cut the power: the process gets no chance to say goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.power_off()
        os.close(self.controller)
        os.close(self._board)


@dataclass(kw_only=True)
class BoardPower(Power):
    """The board's power switch."""

    wires: Wires
    log: Path | None

    @export
    async def on(self) -> None:
        """Turn the board on: it boots."""
        await asyncio.to_thread(self.wires.power_on, self.name.rpartition(".")[0] or "board")
        await self._record("on")

    @export
    async def off(self) -> None:
        """Turn the board off."""
        await asyncio.to_thread(self.wires.power_off)
        await self._record("off")

    @export
    async def read(self) -> AsyncIterator[PowerReading]:
        """Measure once."""
        await self._record("read")
        yield PowerReading(voltage=5.0, current=0.7) if self.wires.powered else PowerReading(voltage=0, current=0)

    async def _record(self, method: str) -> None:
        self.logger.info("power %s", method)
        if self.log is not None:
            facts = {"power": self.wires.powered}
            await asyncio.to_thread(
                record, self.log, now=utc_now(), device=self.name, method=method, who=self.lease, **facts
            )


@dataclass(kw_only=True)
class BoardConsole(Console):
    """The board's serial console."""

    wires: Wires

    def open_port(self) -> int:
        fd = os.dup(self.wires.controller)
        os.set_blocking(fd, False)
        return fd


@dataclass(kw_only=True)
class DemoBoard(Driver):
    """A board with ``power``, ``serial`` and ``storage``; no hardware needed.

    ``log``: file for the device log of the power switch. ``storage``: directory for flashed images; without it the
    board has no storage.
    """

    client_class = "jumpstarter_driver_composite.client.CompositeClient"

    log: Path | None = None
    storage: Path | None = None
    wires: Wires = field(init=False, repr=False)

    def parts(self) -> Mapping[str, Driver]:
        self.wires = Wires()
        parts: dict[str, Driver] = {
            "power": BoardPower(wires=self.wires, log=self.log),
            "serial": BoardConsole(wires=self.wires),
        }
        if self.storage is not None:
            parts["storage"] = FileFlasher(root=self.storage)
        return parts

    def reset(self) -> None:
        self.wires.power_off()

    def stop(self) -> None:
        self.wires.close()
