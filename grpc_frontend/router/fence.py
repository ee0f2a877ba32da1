"""What a router knows of each exporter's newest grant: its number, its end, whom it no longer serves.

Of two grants of one exporter the higher number is the newer one, and the older one is over. So one record per exporter
is enough. Records without a live half are forgotten once no token that they could refuse can still be valid.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lablease.model.grant import Grant
from lablease.model.keys import Key
from lablease.tokens.router import LEEWAY, RouterClaims

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Fence:
    """The newest grant of one exporter.

    ``end`` is its planned end as last told and ``told`` the time up to which tokens cannot tell it better.
    ``refused`` has clients that lost the lease, with the time of issue up to which their tokens are worthless.
    ``live`` has the streams under this grant, waiting or paired, with their clients.
    """

    number: int
    forget: datetime
    revoked: bool = False
    end: datetime | None = None
    told: datetime = _NEVER
    refused: dict[str, datetime] = field(default_factory=dict[str, datetime])
    live: dict[str, str] = field(default_factory=dict[str, str])


class Fences:
    """The records of all exporters that this router heard of lately."""

    def __init__(self, memory: timedelta) -> None:
        self._memory = memory
        self._fences: OrderedDict[Key, Fence] = OrderedDict()

    def __len__(self) -> int:
        return len(self._fences)

    def __iter__(self) -> Iterator[tuple[Key, Fence]]:
        return iter(self._fences.items())

    def get(self, key: Key) -> Fence | None:
        """Return the record of one exporter if there is one."""
        return self._fences.get(key)

    def learn(self, grant: Grant, now: datetime) -> tuple[Fence, tuple[str, ...]]:
        """Hear of a grant; return the exporter's record and the streams of lower grants, which are over now.

        If the record's number is higher than the grant's, what was heard is old and changes nothing.
        """
        self.expire(now)
        key = Key(grant.namespace, grant.exporter)
        fence = self._fences.get(key)
        over: tuple[str, ...] = ()
        if fence is None or fence.number < grant.number:
            over = tuple(fence.live) if fence else ()
            fence = Fence(grant.number, now)
            self._fences[key] = fence
        fence.forget = now + self._memory
        self._fences.move_to_end(key)
        return fence, over

    def expire(self, now: datetime) -> None:
        """Forget what can refuse nothing any more. Records are in the order in which they were heard of last."""
        while self._fences:
            key, fence = next(iter(self._fences.items()))
            if fence.forget > now:
                return
            if fence.live:
                fence.forget = now + self._memory
                self._fences.move_to_end(key)
            else:
                del self._fences[key]


def problem(fence: Fence, claims: RouterClaims, now: datetime) -> str | None:
    """Say why a half with these claims is not served under what is known, None if it is.

    Only for claims that the record has learned of (``Fences.learn``) and whose end it has taken (``take_end``).
    """
    grant = claims.grant
    if grant.number < fence.number:
        return f"grant {grant.number} of exporter {grant.exporter} is over, {fence.number} is newer"
    if fence.revoked or (fence.end is not None and fence.end <= now):
        return f"lease {grant.lease} has ended"
    worthless = fence.refused.get(grant.client)
    if worthless is not None and (claims.issued is None or claims.issued <= worthless):
        return f"permission denied: client {grant.client} no longer holds lease {grant.lease}"
    return None


def take_end(fence: Fence, end: datetime | None, told: datetime) -> bool:
    """Set the planned end unless something later has told it; return whether it changed.

    A token tells it as of its time of issue. A message tells it as of now, and clocks may differ by the leeway:
    ``message_time`` makes it win over every token that may have been signed before it.
    """
    if told < fence.told:
        return False
    fence.told = told
    changed = fence.end != end
    fence.end = end
    return changed


def message_time(now: datetime) -> datetime:
    """Return the time of issue up to which a token is older than a message that arrives now."""
    return now + LEEWAY
