"""When a token is signed, under which generation, and what the status of its owner says about it.

The Secret comes first and the status after it, so nobody reads a name that leads nowhere. Dropping the Secret is a
rotation: the next token has a higher generation, and from the status write on the older ones are refused.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from lablease.model.meta import Condition, Truth, condition

TOKEN_EXPIRING = "TokenExpiring"
_LEVELS = ((timedelta(days=7), "ExpiresWithin7Days"), (timedelta(days=30), "ExpiresWithin30Days"))


@dataclass(frozen=True, slots=True)
class Published:
    """What the status of a client or an exporter says."""

    secret: str | None
    generation: int
    endpoint: str
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of the token in the Secret.

    ``ours``: signed by the current key for exactly this owner. ``generation`` and ``expires`` mean something only then.
    """

    ours: bool
    generation: int = 0
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign a token of this generation; ``replace`` the one in the Secret, or create the Secret."""

    generation: int
    replace: bool


@dataclass(frozen=True, slots=True)
class Publish:
    """Say in the status what the Secret holds, all in one write."""

    generation: int
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class Fine:
    """Secret and status agree. Look again at ``until``."""

    until: datetime | None


def credential_step(
    published: Published, token: Token | None, *, secret: str, endpoint: str, lifetime: timedelta, now: datetime
) -> Sign | Publish | Fine:
    """Decide about the credential of one owner.

    Args:
        published: what its status says.
        token: what its Secret holds, None without a Secret.
        secret: the name that the Secret must have.
        endpoint: what the status must say about where to connect.
        lifetime: of new tokens; one is replaced when a tenth of it is left.
        now: the time.
    """
    if token is None:
        return Sign(published.generation + 1, replace=False)
    floor = max(published.generation, 1)
    if not token.ours or token.generation < published.generation:
        return Sign(floor, replace=True)
    renew = None if token.expires is None else token.expires - lifetime / 10
    if renew is not None and renew <= now:
        return Sign(token.generation, replace=True)
    if published != Published(secret, token.generation, endpoint, token.expires):
        return Publish(token.generation, token.expires)
    return Fine(renew)


def expiry_condition(stored: tuple[Condition, ...], *, expires: datetime, generation: int, now: datetime) -> Condition:
    """Return the ``TokenExpiring`` condition that a client should have; the stored one while its reason is right."""
    left = expires - now
    if left <= timedelta(0):
        holds, reason = True, "Expired"
    else:
        reason = next((word for limit, word in _LEVELS if left <= limit), "Valid")
        holds = reason != "Valid"
    old = condition(stored, TOKEN_EXPIRING)
    if old is not None and old.reason == reason:
        return old
    truth = Truth.TRUE if holds else Truth.FALSE
    since = old.last_transition if old is not None and old.status is truth else now
    message = f"the token expires at {expires:%Y-%m-%d}"
    return Condition(TOKEN_EXPIRING, truth, reason, message, since, generation)


def next_level(expires: datetime, now: datetime) -> datetime:
    """Return when the condition changes next; the expiry itself when no level lies ahead."""
    ahead = [expires - limit for limit, _ in _LEVELS if expires - limit > now]
    return min(ahead, default=expires)
