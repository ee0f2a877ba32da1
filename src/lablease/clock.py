"""The one module that reads clocks; everything else takes ``now`` as an argument."""

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the wall-clock time, timezone-aware, in UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Return seconds of a clock that never steps; only differences mean something."""
    return time.monotonic()
