"""Reading single claims of a token whose signature was checked: wrong types are refused by name."""

from collections.abc import Mapping
from datetime import UTC, datetime

from lablease.errors import NotAuthenticated

_MAX_CHARACTERS = 8192


def check_shape(token: str) -> None:
    """Raise NotAuthenticated if no work should be done on the text: no token of ours comes near 8192 characters."""
    if len(token) > _MAX_CHARACTERS or not token.isascii():
        raise NotAuthenticated(f"token must be a compact JWT of at most {_MAX_CHARACTERS} characters")


def text(claims: Mapping[str, object], name: str) -> str:
    """Return the claim as text that is not empty, or raise NotAuthenticated."""
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise NotAuthenticated(f"token claim {name} must be a text that is not empty")
    return value


def whole(claims: Mapping[str, object], name: str) -> int:
    """Return the claim as a whole number from zero up, or raise NotAuthenticated."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise NotAuthenticated(f"token claim {name} must be a whole number from 0 up")
    return value


def instant(claims: Mapping[str, object], name: str) -> datetime:
    """Return the claim (seconds since 1970) as a time in UTC, or raise NotAuthenticated."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotAuthenticated(f"token claim {name} must be a number of seconds")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        raise NotAuthenticated(f"token claim {name} is out of range") from None
