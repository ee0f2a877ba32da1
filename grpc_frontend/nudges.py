"""Making a stuck exporter of release 0.9.0 start anew: refuse its Status until its worker gives up and registers again.

After six refusals without a message in between, the worker of jmp 0.9.0 ends, and its parent starts another one.
"""

from collections.abc import Callable

import structlog

from lablease import clock
from lablease.errors import Unavailable
from lablease.model.exporter import Exporter, ExporterCondition
from lablease.model.keys import Key
from lablease.model.meta import is_true

AGAIN_SECONDS = 3600.0
"""Between two attempts with one exporter; if one does not help, a person must."""
LASTS_SECONDS = 60.0
"""An exporter that does not register within this is one that only waits, and is served again."""

log = structlog.get_logger(__name__)


class Nudges:
    """Which exporters are refused now. Remembers one entry per exporter that was ever stuck."""

    def __init__(self, monotonic: Callable[[], float] = clock.monotonic) -> None:
        self._monotonic = monotonic
        self._begun: dict[Key, float] = {}
        self._done: set[Key] = set()

    def check(self, exporter: Exporter) -> None:
        """Raise Unavailable while the exporter is to be refused."""
        if not is_true(exporter.conditions, ExporterCondition.STUCK):
            return
        now = self._monotonic()
        begun = self._begun.get(exporter.key)
        if begun is None or now - begun >= AGAIN_SECONDS:
            log.warning("exporter.nudged", exporter=exporter.key.name)
            self._begun[exporter.key] = begun = now
            self._done.discard(exporter.key)
        if exporter.key not in self._done and now - begun < LASTS_SECONDS:
            raise Unavailable(f"exporter {exporter.key.name} is stuck after its last lease: register again")

    def registered(self, key: Key) -> None:
        """The exporter began anew."""
        if key in self._begun:
            self._done.add(key)
