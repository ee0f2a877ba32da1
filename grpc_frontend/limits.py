"""Bounds for what a peer can cause."""

from collections import OrderedDict
from collections.abc import Callable

from lablease import clock


class Allowance:
    """So many occasions per key at once, and so many a second after that; remembers a bounded number of keys."""

    def __init__(
        self, burst: float, per_second: float, keys: int = 10_000, monotonic: Callable[[], float] = clock.monotonic
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._keys = keys
        self._monotonic = monotonic
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> bool:
        """Use one occasion; False if none is left now."""
        now = self._monotonic()
        left, since = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_second)
        allowed = left >= 1
        self._left[key] = (left - 1 if allowed else left, now)
        if len(self._left) > self._keys:
            self._left.popitem(last=False)
        return allowed
