"""Bytes that no two places share, so that a swapped, lost or repeated piece cannot look right."""

import hashlib

BLOCK = 64


def payload(name: str, size: int) -> bytes:
    """Return ``size`` bytes that depend on ``name`` and position: block n is the hash of (name, n)."""
    seed = hashlib.sha256(name.encode()).digest()
    blocks = [hashlib.blake2b(seed + index.to_bytes(8, "big")).digest() for index in range(size // BLOCK + 1)]
    return b"".join(blocks)[:size]


def digest(data: bytes) -> str:
    """Return the SHA-256 in hex, for messages and for comparing what another process saw."""
    return hashlib.sha256(data).hexdigest()
