"""New names."""

import secrets
from datetime import datetime
from uuid import UUID

_MILLISECOND_BITS = 48


def uuid7(now: datetime, random_bits: int | None = None) -> str:
    """Return a UUID of version 7: names of leases sort by the time of their creation.

    ``random_bits`` (74 of them) are drawn if they are not given.
    """
    bits = secrets.randbits(74) if random_bits is None else random_bits
    milliseconds = int(now.timestamp() * 1000) & ((1 << _MILLISECOND_BITS) - 1)
    high, low = bits >> 62, bits & ((1 << 62) - 1)
    return str(UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low))
