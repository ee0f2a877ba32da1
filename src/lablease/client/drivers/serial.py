"""Serial consoles."""

from __future__ import annotations

from lablease.client.drivers.network import StreamClient


class SerialClient(StreamClient):
    """A serial port; ``stream()`` are its raw bytes, and the port is open as long as that stream is."""

    async def disconnect(self) -> None:
        """Make the exporter close the port, whoever has it open."""
        await self.call("close")

    async def set_dtr(self, level: bool) -> None:
        """Set the DTR line."""
        await self.call("set_dtr", level)

    async def set_rts(self, level: bool) -> None:
        """Set the RTS line."""
        await self.call("set_rts", level)
