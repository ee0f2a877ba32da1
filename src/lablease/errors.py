"""The errors of the product: meaning is raised inside, each edge translates it once.

Not finding a free exporter is no error but a decision; what stands here is for callers who must do something else.
"""


class LableaseError(Exception):
    """Base of all errors of ours. ``retryable``: the same call may succeed later without a change by the caller."""

    retryable = False


class InvalidField(LableaseError):
    """A value that somebody gave is not usable.

    Args:
        field: path of the field as its author wrote it, for example ``spec.duration``.
        problem: what is wrong and what would be right, without a final full stop.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NotFound(LableaseError):
    """The named object does not exist."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name} not found")
        self.kind = kind
        self.name = name


class AlreadyExists(LableaseError):
    """An object of that name exists."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name} already exists")
        self.kind = kind
        self.name = name


class NotAllowed(LableaseError):
    """The caller is known, but may not do this."""


class NotAuthenticated(LableaseError):
    """The caller did not prove who it is."""


class NotNow(LableaseError):
    """The object is not in a state in which this can be done."""


class Stale(LableaseError):
    """What was decided on has changed meanwhile: look again."""

    retryable = True


class Unavailable(LableaseError):
    """Something that this depends on is away for the moment."""

    retryable = True


class OutcomeUnknown(Unavailable):
    """A write was sent and no answer came: it may have been done. Read the object again before deciding."""


class Gone(LableaseError):
    """The versions asked for are no longer kept: list anew."""

    retryable = True
