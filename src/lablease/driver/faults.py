"""What a failed driver call looks like on the wire: one table."""

import grpc

from lablease.driver.tree import NoSuchMethod


class BadArguments(ValueError):
    """The arguments do not fit the method's signature."""


class NotReady(Exception):
    """The session does not serve calls in its present status."""


class UnknownDriver(Exception):
    """No driver of the tree has that id."""


_CODES: tuple[tuple[type[BaseException], grpc.StatusCode], ...] = (
    (NotReady, grpc.StatusCode.FAILED_PRECONDITION),
    (UnknownDriver, grpc.StatusCode.NOT_FOUND),
    (NoSuchMethod, grpc.StatusCode.NOT_FOUND),
    (NotImplementedError, grpc.StatusCode.UNIMPLEMENTED),
    (ValueError, grpc.StatusCode.INVALID_ARGUMENT),
    (TimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),  # before OSError, of which it is a kind
    (ConnectionError, grpc.StatusCode.UNAVAILABLE),
    (OSError, grpc.StatusCode.INTERNAL),
)


def status_code(error: BaseException) -> grpc.StatusCode:
    """Return the code for what a driver raised; the details are ``str(error)``.

    jmp 0.9.0 turns UNIMPLEMENTED, INVALID_ARGUMENT, NOT_FOUND and FAILED_PRECONDITION into errors of their own.
    """
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.UNKNOWN


def details(error: BaseException) -> str:
    """Return the text for the peer; an error without words is named by its class."""
    return str(error) or type(error).__name__
