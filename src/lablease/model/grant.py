"""The fence: which lease holds which exporter, under which number, for whom and until when."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """One grant of an exporter to a lease.

    ``number`` only grows per exporter; of two grants of one exporter the higher one is the newer.
    ``client`` is who may use it now: a transfer keeps the number and changes the client.
    ``end`` is the planned end as last told, None when the lease has no known end.
    """

    namespace: str
    exporter: str
    lease: str
    number: int
    client: str
    end: datetime | None = None
