"""What ``lablease call DRIVER`` can do with each kind of driver, one click group per client class.

The commands are coroutine functions: the group returns the coroutine, ``lablease call`` awaits it. A number that
comes out is the exit status.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import click

from lablease.client.values import Json

if TYPE_CHECKING:
    from lablease.client.drivers.base import DriverClient

_HERE = "lablease.cli.verbs"

GROUPS: Mapping[str, str] = {
    "CompositeClient": f"{_HERE}.composite:group",
    "PowerClient": f"{_HERE}.power:group",
    "VirtualPowerClient": f"{_HERE}.power:virtual",
    "NetworkClient": f"{_HERE}.network:group",
    "SerialClient": f"{_HERE}.serial:group",
    "FlasherClient": f"{_HERE}.storage:flasher",
    "StorageMuxClient": f"{_HERE}.storage:mux",
    "StorageMuxFlasherClient": f"{_HERE}.storage:mux_flasher",
    "OpendalClient": f"{_HERE}.opendal:group",
    "ShellClient": f"{_HERE}.shell:group",
    "GenericClient": f"{_HERE}.generic:group",
}


def group_for(client: DriverClient) -> click.Group:
    """Return the commands for a driver."""
    module, _, attribute = GROUPS[type(client).__name__].partition(":")
    group: click.Group = getattr(import_module(module), attribute)
    return group


def print_result(result: Json) -> None:
    """Print what a driver answered: nothing for null, text as it is, the rest as JSON."""
    if isinstance(result, str):
        click.echo(result)
    elif result is not None:
        click.echo(json.dumps(result))
