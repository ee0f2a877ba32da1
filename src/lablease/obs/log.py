"""Log set-up of every process: one line per fact, JSON for machines or columns for people, never a token.

Our modules log through ``structlog.get_logger()``; lines of libraries that use ``logging`` take the same way out.
"""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

_SECRET_KEYS = frozenset({"token", "authorization", "password", "secret", "key", "router_token", "access_token"})
_JWT = re.compile(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*")
_HIDDEN = "[hidden]"


class LogFormat(StrEnum):
    """How lines look."""

    JSON = "json"
    CONSOLE = "console"


def configure(format: LogFormat, level: str = "INFO", *, out: TextIO | None = None) -> None:
    """Send all log lines of this process to ``out`` (standard error if None).

    Args:
        format: the look of a line.
        level: name of the lowest level that is written, as ``logging`` spells it.
        out: where to write; kept, not closed.

    Raises:
        ValueError: the level is unknown.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor]
    if format is LogFormat.JSON:
        last = [structlog.processors.format_exc_info, hide_secrets, structlog.processors.JSONRenderer()]
    else:
        stream = out or sys.stderr
        last = [hide_secrets, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    handler = logging.StreamHandler(out or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def hide_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace values of keys that name a secret, and whatever looks like a JWT, at any depth."""
    return _hidden_values(event)


def _hidden_values(values: Mapping[str, object]) -> dict[str, object]:
    return {key: _HIDDEN if key in _SECRET_KEYS else _hidden(value) for key, value in values.items()}


def _hidden(value: object) -> object:
    if isinstance(value, str):
        return _JWT.sub(_HIDDEN, value) if "eyJ" in value else value
    if isinstance(value, Mapping):
        return _hidden_values(cast("Mapping[str, object]", value))
    if isinstance(value, list | tuple):
        return [_hidden(item) for item in cast("Sequence[object]", value)]
    return value
