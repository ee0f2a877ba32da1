"""Groups of drivers."""

from dataclasses import dataclass

from lablease.driver.base import Driver


@dataclass(kw_only=True)
class Composite(Driver):
    """A named group: has children and no methods of its own."""

    client_class = "jumpstarter_driver_composite.client.CompositeClient"
