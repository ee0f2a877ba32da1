"""What can go wrong on the way up, said so that the reader knows what to do next."""

from lablease.errors import LableaseError


class EmbeddedError(LableaseError):
    """The embedded control plane cannot do what was asked.

    Args:
        problem: what is wrong, one line, with the path, port or version it is about.
        help: what would make it right; shown on a line of its own.
    """

    def __init__(self, problem: str, help: str) -> None:
        super().__init__(f"{problem}\n{help}" if help else problem)
        self.problem = problem
        self.help = help


class BuildError(EmbeddedError):
    """The binaries are not there and could not be built."""


class PortTaken(EmbeddedError):
    """A port that the data directory remembers is used by another process."""


class ForeignData(EmbeddedError):
    """The data directory was written by another version than this one."""


class StartError(EmbeddedError):
    """A process did not become ready."""


class ApiError(EmbeddedError):
    """The API server refused a request.

    Args:
        status: the HTTP status; 0 when there was no answer at all.
        reason: the machine-readable reason of the `Status` object, e.g. `NotFound`; may be empty.
    """

    def __init__(self, status: int, reason: str, problem: str) -> None:
        super().__init__(problem, "")
        self.status = status
        self.reason = reason
