"""Pages of a sorted list whose tokens stay right while the list changes: a token is the last name that was shown."""

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import TypeVar

from lablease.errors import InvalidField

T = TypeVar("T")

DEFAULT_SIZE = 500
LARGEST_SIZE = 1_000
"""A page must fit into the 4 MiB that peers receive by default."""


def page(items: Iterable[T], name_of: Callable[[T], str], size: int, token: str) -> tuple[list[T], str]:
    """Return the items after the token in the order of their names, and the token of the next page, empty at the end.

    Raises:
        InvalidField: the size is negative or the token none of ours.
    """
    if size < 0:
        raise InvalidField("page_size", f"must not be negative, is {size}")
    after = _read(token)
    limit = min(size or DEFAULT_SIZE, LARGEST_SIZE)
    rest = sorted((item for item in items if name_of(item) > after), key=name_of)
    shown = rest[:limit]
    return shown, _token(name_of(shown[-1])) if len(rest) > limit else ""


def _token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _read(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise InvalidField("page_token", "is not the next_page_token of an earlier answer") from None
