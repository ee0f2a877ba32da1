"""Power switches."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from lablease.clock import utc_now
from lablease.driver.base import Driver, export
from lablease.driver.devicelog import record


class PowerReading(BaseModel):
    """Volts and amperes."""

    voltage: float
    current: float


class Power(Driver):
    """What clients of a power switch rely on: ``on``, ``off``, ``read``. Base of power drivers."""

    client_class = "jumpstarter_driver_power.client.PowerClient"


@dataclass(kw_only=True)
class MockPower(Power):
    """A switch with no device behind it.

    ``log``: file that gets one JSON line per call: when, which method, for which lease, client and grant.
    """

    log: Path | None = None

    def start(self) -> None:
        self.is_on = False

    @export
    async def on(self) -> None:
        """Turn the power on."""
        self.is_on = True
        await self._record("on")

    @export
    async def off(self) -> None:
        """Turn the power off."""
        self.is_on = False
        await self._record("off")

    @export
    async def read(self) -> AsyncIterator[PowerReading]:
        """Measure: two readings."""
        await self._record("read")
        yield PowerReading(voltage=0.0, current=0.0)
        yield PowerReading(voltage=5.0, current=2.0)

    async def _record(self, method: str) -> None:
        self.logger.info("power %s", method)
        if self.log is not None:
            await asyncio.to_thread(
                record, self.log, now=utc_now(), device=self.name, method=method, who=self.lease, power=self.is_on
            )
