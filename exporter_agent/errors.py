"""Errors of the agent."""

from lablease.errors import LableaseError


class ConfigProblem(LableaseError):
    """The configuration cannot be used: names the file, the field, and what would be right."""


class HostFailed(LableaseError):
    """A driver host did not come up, or ended by itself."""

    retryable = True


class ChannelProblem(LableaseError):
    """No TLS channel can be opened to an endpoint."""

    retryable = True
