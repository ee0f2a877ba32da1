"""What stands on the bench: the ``export`` sections of the exporters that the tests run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Export = Mapping[str, Any]


def stock_drivers(exporter: str, device_log: Path, port: int | None = None) -> dict[str, Any]:
    """Return upstream driver packages; the switch is upstream's mock with a record."""
    export: dict[str, Any] = {
        "power": {"type": "lab_device.LoggedPower", "config": {"log": str(device_log), "exporter": exporter}},
        "flasher": {"type": "jumpstarter_driver_opendal.driver.MockFlasher"},
    }
    if port is not None:
        export["net"] = {
            "type": "jumpstarter_driver_network.driver.TcpNetwork",
            "config": {"host": "127.0.0.1", "port": port},
        }
    return export


def native_drivers(device_log: Path, folder: Path, port: int | None = None, console: str | None = None) -> Export:
    """Return native drivers of ours."""
    export: dict[str, Any] = {
        "power": {"type": "lablease.driver.power.MockPower", "config": {"log": str(device_log)}},
        "flasher": {"type": "lablease.driver.storage.FileFlasher", "config": {"root": str(folder)}},
    }
    if port is not None:
        export["net"] = {
            "type": "lablease.driver.network.TcpNetwork",
            "config": {"host": "127.0.0.1", "port": port},
        }
    if console is not None:
        export["console"] = {"type": "lablease.driver.serial.SerialConsole", "config": {"url": console}}
    return export
