"""How long to wait before the next attempt."""

from typing import Final

FIRST_SECONDS: Final = 0.1
LIMIT_SECONDS: Final = 10.0


def delay_seconds(failures: int, chance: float, *, limit: float = LIMIT_SECONDS) -> float:
    """Return the pause after the ``failures``-th failure in a row (1 is the first).

    Doubles from 0.1 s up to ``limit``; ``chance`` in [0, 1) takes away up to half, so that agents that lost the same
    controller do not come back together.
    """
    longest = min(limit, FIRST_SECONDS * 2.0 ** min(failures - 1, 30))
    return longest * (1 - chance / 2)
