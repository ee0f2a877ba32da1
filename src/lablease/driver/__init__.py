"""Native drivers: what their authors import. ``docs/drivers.md`` shows how to write one."""

from lablease.driver.base import Driver, DriverConfigError, LeaseInfo, export, exportstream
from lablease.driver.bytestream import BrokenStream, ByteStream

__all__ = ["BrokenStream", "ByteStream", "Driver", "DriverConfigError", "LeaseInfo", "export", "exportstream"]
