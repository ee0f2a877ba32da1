"""A power switch for the stock exporter that keeps the record which our native one keeps: who called, and when.

The stock exporter does not tell its drivers for which lease they work, so these lines name no lease.
"""
# Runs in the interpreter that has the published packages, not in the project's.
# mypy: ignore-errors
# pyright: basic, reportMissingImports=false

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime

from jumpstarter.driver import export
from jumpstarter_driver_power.driver import MockPower


@dataclass(kw_only=True)
class LoggedPower(MockPower):
    """``log``: the file; ``exporter``: the name to write into it."""

    log: str
    exporter: str

    @export
    async def on(self) -> None:
        self._record("on")
        self.logger.info("power on")

    @export
    async def off(self) -> None:
        self._record("off")
        self.logger.info("power off")

    def _record(self, method: str) -> None:
        time = datetime.now(UTC).isoformat(timespec="microseconds")  # noqa: TID251 - no clock.py here
        line = {"time": time, "exporter": self.exporter, "device": "power", "method": method}
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, json.dumps(line).encode() + b"\n")
        finally:
            os.close(descriptor)
