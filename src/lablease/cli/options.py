"""What several subcommands share: parameter types and option sets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lablease.client.durations import parse_duration, parse_instant

if TYPE_CHECKING:
    from lablease.client.config import ClientConfig
    from lablease.client.service import Controller

Command = TypeVar("Command", bound=Callable[..., Any])


class Duration(click.ParamType[timedelta]):
    """``30m``, ``1h30m``, seconds, ISO 8601 or ``HH:MM:SS``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Instant(click.ParamType[datetime]):
    """An ISO 8601 instant; local time without an offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return parse_instant(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class KeyValue(click.ParamType[tuple[str, str]]):
    """``key=value``."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, equals, content = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not key=value", param, ctx)
        return key, content


@dataclass(frozen=True, slots=True)
class Who:
    """Which client configuration a command was told to use."""

    alias: str | None
    path: Path | None

    def config(self) -> ClientConfig:
        """Read it, or raise ConfigError."""
        from lablease.client.config import choose_client

        return choose_client(self.alias, self.path)

    @asynccontextmanager
    async def controller(self, patience: timedelta = timedelta(seconds=5)) -> AsyncGenerator[Controller]:
        """Connect to the controller that it names. A token that is renewed in the file meanwhile is picked up."""
        from lablease.client.service import connect

        config = self.config()
        async with connect(config, patience=patience, reload_token=lambda: self.config().token) as controller:
            yield controller


def client_options(command: Command) -> Command:
    """Add ``--client`` and ``--client-config``; the command gets ``who``."""

    def both(ctx: click.Context, param: click.Parameter, value: Path | None) -> Who:
        return Who(ctx.params.pop("client_alias", None), value)

    command = click.option(
        "--client-config", "who", type=click.Path(path_type=Path), callback=both, help="Path of a client config."
    )(command)
    return click.option(
        "--client", "client_alias", is_eager=True, shell_complete=_complete_clients, help="Alias of a client config."
    )(command)


def selector_option(command: Command) -> Command:
    """Add ``-l/--selector``, repeatable; the command gets one text."""

    def joined(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> str:
        return ",".join(value)

    return click.option(
        "-l",
        "--selector",
        multiple=True,
        callback=joined,
        help="Labels the exporter must have: k=v, k!=v, k in (a,b), k, !k, joined by commas. Repeatable.",
    )(command)


def output_option(*modes: str) -> Callable[[Command], Command]:
    """Add ``-o/--output`` with these modes; the command gets None for the readable form."""
    return click.option("-o", "--output", type=click.Choice(modes or ("json", "yaml", "name")), help="Output form.")


def _complete_clients(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from lablease.client.config import list_clients

    return [alias for alias in list_clients() if alias.startswith(incomplete)]
