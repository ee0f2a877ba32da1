"""What a user of the client library has to tell apart.

Every message is one line and complete: it is what the command line prints after ``Error:``.
"""

from __future__ import annotations

from pathlib import Path

from lablease.errors import LableaseError


class ClientError(LableaseError):
    """Base of everything the client raises on purpose."""


class ConfigError(ClientError):
    """A configuration file or variable is missing, unreadable or wrong.

    ``where`` is a file or the name of an environment variable, ``key`` the dotted key in it ("" for the whole).
    """

    def __init__(self, where: Path | str, key: str, problem: str) -> None:
        super().__init__(f"{where}: {key}: {problem}" if key else f"{where}: {problem}")
        self.where, self.key, self.problem = where, key, problem


class ServiceError(ClientError):
    """A call to the controller was refused or did not get through."""

    def __init__(self, operation: str, code: str, details: str) -> None:
        super().__init__(f"{operation}: {details or 'no details'} ({code})")
        self.operation, self.code, self.details = operation, code, details


class LeaseFailed(ClientError):
    """The lease cannot be had, or it ended while somebody waited for it."""

    def __init__(self, lease: str, reason: str, message: str) -> None:
        super().__init__(f"lease {lease}: {message or reason} ({reason})")
        self.lease, self.reason = lease, reason


class ExporterUnreachable(ClientError):
    """The lease is held but its exporter does not answer through the tunnel."""


class ExporterNotReady(ClientError):
    """The exporter answers, but does not serve drivers now (hook running or failed, lease over)."""


class DriverError(ClientError):
    """A driver call failed; ``code`` is the gRPC status name the exporter answered with."""

    def __init__(self, method: str, code: str, details: str) -> None:
        super().__init__(f"{method}: {details or code}" if code == "UNKNOWN" else f"{method}: {details} ({code})")
        self.method, self.code, self.details = method, code, details


class DriverMethodNotImplemented(DriverError):
    """The driver does not offer this method."""


class DriverInvalidArgument(DriverError, ValueError):
    """The driver refused an argument."""


class NoSuchDriver(ClientError):
    """The path names no driver of the exporter."""
