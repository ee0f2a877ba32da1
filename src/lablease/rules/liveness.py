"""Is an exporter there? Derived from the Status stream that a front end holds for it, and from that front end's life."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from lablease.model.exporter import Exporter, ExporterCondition, ExporterStatus
from lablease.model.meta import Condition, Truth, condition, is_true

LAPSE = timedelta(seconds=6)
"""A front end that did not renew for so long is gone."""
RECONNECT_GRACE = timedelta(seconds=15)
"""How long an exporter may take to find another front end before it counts as offline."""
CLEANUP_TIMEOUT = timedelta(minutes=5)
"""A busy status that lasts longer than this after the end of a lease means that the exporter is stuck."""
FAILED_HOOK_GRACE = timedelta(seconds=5)
"""A failed hook counts as clean for the slot so long after the end: jmp 0.9.0 may never report more."""

_CLEAN = frozenset({None, ExporterStatus.AVAILABLE, ExporterStatus.UNSPECIFIED})
_GOING = frozenset({ExporterStatus.OFFLINE})
_FAILED = frozenset({ExporterStatus.BEFORE_LEASE_HOOK_FAILED, ExporterStatus.AFTER_LEASE_HOOK_FAILED})


@dataclass(frozen=True, slots=True)
class Presence:
    """What the observer of front ends knows about one exporter's session.

    ``lost`` is when its front end lapsed, on the observer's clock; None while it renews.
    """

    lost: datetime | None = None

    @property
    def deadline(self) -> datetime | None:
        """When the session stops to count, None while its front end lives."""
        return None if self.lost is None else self.lost + RECONNECT_GRACE


def connected(exporter: Exporter, presence: Presence, now: datetime) -> bool:
    """True if the exporter holds a session, or may still come back from a front end that has just gone."""
    return exporter.session is not None and (presence.deadline is None or now < presence.deadline)


def online(exporter: Exporter, *, connected: bool) -> bool:
    """True if the exporter can be given to somebody: connected, and not about to stop."""
    return connected and exporter.status not in _GOING


def ready(exporter: Exporter, *, connected: bool) -> bool:
    """True if a new lease may begin here, as far as the exporter itself is concerned."""
    return (
        online(exporter, connected=connected)
        and exporter.registered
        and exporter.status in _CLEAN
        and not is_true(exporter.conditions, ExporterCondition.STUCK)
    )


@dataclass(frozen=True, slots=True)
class Clean:
    """It may be emptied."""


@dataclass(frozen=True, slots=True)
class CleanAt:
    """It may be emptied then, whatever is reported until then."""

    when: datetime


@dataclass(frozen=True, slots=True)
class Busy:
    """The exporter has work left; it counts as stuck from ``stuck_at`` on."""

    stuck_at: datetime


Cleanliness = Clean | CleanAt | Busy
"""Whether the slot of a lease that is over may be emptied: now, from an instant on, or only after a report."""


def cleanliness(exporter: Exporter, *, connected: bool, over: datetime, now: datetime) -> Cleanliness:
    """Judge a slot whose lease was over at ``over``.

    An exporter that is not connected is clean: it begins anew when it returns.
    """
    if not connected or exporter.status in _CLEAN or exporter.status in _GOING:
        return Clean()
    if exporter.status in _FAILED:
        when = over + FAILED_HOOK_GRACE
        return Clean() if now >= when else CleanAt(when)
    return Busy(over + CLEANUP_TIMEOUT)


def exporter_conditions(exporter: Exporter, *, connected: bool, stuck: bool, now: datetime) -> tuple[Condition, ...]:
    """Return the conditions that an exporter should have; equal to those it has if nothing changed.

    ``Stuck`` appears only once it has been true; unknown conditions of others are kept, last.
    """
    here = online(exporter, connected=connected)
    wanted = [
        _condition(exporter, ExporterCondition.ONLINE, here, *_online_words(exporter, here), now),
        _registered(exporter, now),
    ]
    if stuck or condition(exporter.conditions, ExporterCondition.STUCK) is not None:
        words = (
            ("CleanupTimeout", f"still {exporter.status} long after its lease ended")
            if stuck
            else ("Clean", "is clean")
        )
        wanted.append(_condition(exporter, ExporterCondition.STUCK, stuck, *words, now))
    ours = {item.type for item in wanted} | {ExporterCondition.STUCK}
    return (*wanted, *(item for item in exporter.conditions if item.type not in ours))


def _online_words(exporter: Exporter, here: bool) -> tuple[str, str]:
    if here:
        return "Seen", "holds a session"
    if exporter.status in _GOING:
        return "Offline", exporter.status_message or "reported that it stops"
    return "Seen", "holds no session" if exporter.last_seen is not None else "never seen"


def _registered(exporter: Exporter, now: datetime) -> Condition:
    words = (
        ("Register", "has reported its devices") if exporter.registered else ("Unregister", "has reported no devices")
    )
    return _condition(exporter, ExporterCondition.REGISTERED, exporter.registered, *words, now)


def _condition(
    exporter: Exporter, kind: ExporterCondition, holds: bool, reason: str, message: str, now: datetime
) -> Condition:
    """Keep the stored condition while its truth is right: reason and message alone are not worth a write."""
    truth = Truth.TRUE if holds else Truth.FALSE
    stored = condition(exporter.conditions, kind)
    if stored is not None and stored.status is truth:
        return stored
    return Condition(kind, truth, reason, message, now, exporter.meta.generation)
