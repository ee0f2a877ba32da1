"""A driver that only groups others."""

from __future__ import annotations

from lablease.client.drivers.base import DriverClient


class CompositeClient(DriverClient):
    """Has no methods of its own; ``node.children`` are what it is for."""
