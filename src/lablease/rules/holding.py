"""Who holds an exporter: the one question that Status, Listen, Dial and the operator ask with the same words."""

from datetime import datetime

from lablease.model.exporter import Exporter
from lablease.model.grant import Grant
from lablease.model.lease import Lease
from lablease.rules.times import planned_end


def held(exporter: Exporter, lease: Lease | None) -> bool:
    """True if ``lease`` holds ``exporter``: slot and lease name each other under one grant, and it has not ended.

    Between the two writes of a grant it is false, and from the end on, although the slot may still name the lease.
    A lease that jumpstarter's own controller granted has the grant 0 on both sides.
    """
    return (
        lease is not None
        and exporter.lease == lease.key.name
        and exporter.key.namespace == lease.key.namespace
        and lease.status.exporter == exporter.key.name
        and lease.status.grant == exporter.grant
        and not lease.status.ended
    )


def grant_of(exporter: Exporter, lease: Lease | None) -> Grant | None:
    """Return the fence of the lease that holds the exporter, None if none does."""
    if lease is None or not held(exporter, lease):
        return None
    return Grant(
        namespace=exporter.key.namespace,
        exporter=exporter.key.name,
        lease=lease.key.name,
        number=exporter.grant,
        client=lease.spec.client,
        end=planned_end(lease),
    )


def next_grant(exporter: Exporter, now: datetime) -> int:
    """Return the number of the next grant: it only grows, also over a restore or a re-creation of the exporter."""
    return max(exporter.grant + 1, int(now.timestamp() * 1000))
