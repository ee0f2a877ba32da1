"""Power switches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from lablease.client.drivers.base import DriverClient


@dataclass(frozen=True, slots=True)
class PowerReading:
    """Volt and ampere at one moment."""

    voltage: float
    current: float

    @property
    def apparent_power(self) -> float:
        """Return their product in volt-ampere."""
        return self.voltage * self.current


class PowerClient(DriverClient):
    """Switches a device on and off."""

    async def on(self) -> None:
        """Switch on."""
        await self.call("on")

    async def off(self) -> None:
        """Switch off."""
        await self.call("off")

    async def cycle(self, wait_seconds: float = 2.0) -> None:
        """Switch off, wait, switch on."""
        await self.off()
        await asyncio.sleep(wait_seconds)
        await self.on()

    async def rescue(self) -> None:
        """Start the device in rescue mode, where the driver can."""
        await self.call("rescue")

    async def read(self) -> AsyncGenerator[PowerReading]:
        """Yield readings as the driver makes them.

        Raises:
            DriverMethodNotImplemented: the switch does not measure.
        """
        async for reading in self.streaming_call("read"):
            match reading:
                case {"voltage": int() | float() as voltage, "current": int() | float() as current}:
                    yield PowerReading(voltage, current)
                case _:
                    raise self.unexpected("read", reading)


class VirtualPowerClient(PowerClient):
    """Switches a virtual device, which can be destroyed on power-off."""

    async def off(self, destroy: bool = False) -> None:
        """Switch off; ``destroy`` forgets the device's state."""
        await self.call("off", destroy)
