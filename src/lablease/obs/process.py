"""How each of our server processes begins and ends: settings, log, event loop, and what an error is in its exit status."""

import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import uvloop
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings

from lablease.errors import InvalidField, Unavailable
from lablease.obs.log import LogFormat, configure


class ServerSettings(BaseSettings):
    """What each of our servers can be told about its log."""

    log_format: LogFormat = Field(LogFormat.JSON, description="json or console")
    log_level: str = Field("INFO", description="lowest level that is logged")


S = TypeVar("S", bound=ServerSettings)


def run_server(
    program: str,
    argv: Sequence[str] | None,
    settings_type: Callable[..., S],
    serve: Callable[[S], Coroutine[Any, Any, None]],
) -> int:
    """Serve until the work ends; return the exit status: 1 when something is away, 2 when a setting is not usable.

    Args:
        program: what its error lines begin with.
        argv: flags; None means those of the process.
    """
    try:
        settings = settings_type(_cli_parse_args=list(argv) if argv is not None else True)
        configure(settings.log_format, settings.log_level)
        uvloop.run(serve(settings))
    except ValidationError as error:
        for problem in error.errors():
            name = "-".join(str(part) for part in problem["loc"]).replace("_", "-")
            print(f"{program}: --{name}: {problem['msg'].lower()}", file=sys.stderr)
        return 2
    except InvalidField as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except Unavailable as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    return 0
