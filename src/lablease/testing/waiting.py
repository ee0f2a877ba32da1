"""Wait for a condition, with a bound."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.05


class NeverHappened(AssertionError):
    """What was waited for did not come in time."""


def eventually(look: Callable[[], T | None], what: str, within_seconds: float = 15.0) -> T:
    """Return the first answer of ``look`` that is neither None nor False.

    Raises:
        NeverHappened: it did not come; says ``what``, and the last answer.
    """
    deadline = time.monotonic() + within_seconds
    while True:
        answer = look()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            raise NeverHappened(f"not within {within_seconds} s: {what} (last look: {answer!r})")
        time.sleep(POLL_SECONDS)
