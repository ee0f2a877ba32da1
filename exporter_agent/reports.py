"""Status reports on their way to the controller: in order, none overwritten, bounded."""

from dataclasses import dataclass
from typing import Final

from lablease.driver.session import Status

MAX_PENDING: Final = 64
"""A lease makes at most six reports, so this holds ten leases' worth of an outage."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the controller is told; ``grant`` 0 means that it is about no grant."""

    status: Status
    message: str
    grant: int = 0


def enqueue(pending: tuple[Report, ...], report: Report, limit: int = MAX_PENDING) -> tuple[Report, ...]:
    """Return the queue with ``report`` at its end.

    A repetition of the last one adds nothing. At the limit the oldest report of an older grant goes, and only if all are
    of one grant the oldest of all: the controller ignores reports of a grant that is over anyway.
    """
    if pending and pending[-1] == report:
        return pending
    if len(pending) >= limit:
        stale = next((index for index, old in enumerate(pending) if old.grant < report.grant), 0)
        pending = pending[:stale] + pending[stale + 1 :]
    return (*pending, report)
