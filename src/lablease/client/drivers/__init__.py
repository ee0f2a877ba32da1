"""Typed clients for the drivers that are known, a generic one for the rest.

``client_for`` picks the class by the label that the exporter reports (``jumpstarter.dev/client``); the table
names upstream's labels, which native drivers of ours report too. Modules are imported when they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TypeVar

from lablease.client.drivers.base import DriverClient
from lablease.client.errors import NoSuchDriver
from lablease.client.session import Session
from lablease.client.tree import DriverNode

_HERE = "lablease.client.drivers"

CLASSES: Mapping[str, str] = {
    "jumpstarter_driver_composite.client.CompositeClient": f"{_HERE}.composite:CompositeClient",
    "jumpstarter_driver_power.client.PowerClient": f"{_HERE}.power:PowerClient",
    "jumpstarter_driver_power.client.VirtualPowerClient": f"{_HERE}.power:VirtualPowerClient",
    "jumpstarter_driver_network.client.NetworkClient": f"{_HERE}.network:NetworkClient",
    "jumpstarter_driver_pyserial.client.PySerialClient": f"{_HERE}.serial:SerialClient",
    "jumpstarter_driver_opendal.client.FlasherClient": f"{_HERE}.flasher:FlasherClient",
    "jumpstarter.client.flasher.FlasherClient": f"{_HERE}.flasher:FlasherClient",
    "jumpstarter_driver_opendal.client.StorageMuxClient": f"{_HERE}.flasher:StorageMuxClient",
    "jumpstarter_driver_opendal.client.StorageMuxFlasherClient": f"{_HERE}.flasher:StorageMuxFlasherClient",
    "jumpstarter_driver_opendal.client.OpendalClient": f"{_HERE}.opendal:OpendalClient",
    "jumpstarter_driver_shell.client.ShellClient": f"{_HERE}.shell:ShellClient",
}
_GENERIC = f"{_HERE}.generic:GenericClient"

Client = TypeVar("Client", bound=DriverClient)


def client_for(session: Session, node: DriverNode) -> DriverClient:
    """Return the client of a driver, of the class that its label names."""
    module, _, name = CLASSES.get(node.client, _GENERIC).partition(":")
    client: DriverClient = getattr(import_module(module), name)(session, node)
    return client


def driver(session: Session, path: str, kind: type[Client]) -> Client:
    """Return the client of the driver at a dotted path.

    Raises:
        NoSuchDriver: nothing is there, or it is of another kind.
    """
    client = client_for(session, session.root.find(path))
    if not isinstance(client, kind):
        raise NoSuchDriver(f"driver {path} is a {type(client).__name__} ({client.node.client}), not a {kind.__name__}")
    return client
