"""A driver whose client class is not known here: its methods by name."""

from __future__ import annotations

from collections.abc import Mapping

from lablease.client.drivers.base import DriverClient


class GenericClient(DriverClient):
    """Any driver. What it can do is known only as far as the exporter describes it."""

    @property
    def methods(self) -> Mapping[str, str]:
        """Return described method names with their help texts; a driver may offer more than it describes."""
        return self.node.methods
