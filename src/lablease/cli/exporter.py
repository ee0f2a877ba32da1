"""``lablease exporter``: run an agent on a lab host."""

import asyncio
import os
import sys
from pathlib import Path

import click

from lablease.errors import LableaseError


@click.group()
def exporter() -> None:
    """Run an exporter agent on a lab host."""


@exporter.command()
@click.option("--exporter", "alias", metavar="NAME", help="Name of a configuration in ~/.config/jumpstarter/exporters.")
@click.option(
    "--exporter-config",
    "path",
    metavar="PATH",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Configuration file.",
)
@click.option("--exit-on-lease-end", is_flag=True, help="Stop after one lease.")
@click.option("--log-level", default="INFO", show_default=True, metavar="LEVEL", help="Lowest level that is written.")
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "text"]),
    default="auto",
    show_default=True,
    help="auto: text on a terminal, else JSON.",
)
@click.pass_context
def run(
    context: click.Context,
    alias: str | None,
    path: Path | None,
    exit_on_lease_end: bool,
    log_level: str,
    log_format: str,
) -> None:
    """Serve the devices of one exporter: register, wait for leases, serve them.

    Signals: TERM and INT stop now, HUP stops after the current lease. Exit status: 0 after a stop that was asked for, 1
    when something failed, 2 for a configuration that cannot be used.
    """
    if (alias is None) == (path is None):
        raise click.UsageError("give one of --exporter NAME and --exporter-config PATH")
    from lablease.exporter_agent.config import find
    from lablease.exporter_agent.errors import ConfigProblem
    from lablease.exporter_agent.main import run as run_agent
    from lablease.obs.log import LogFormat, configure

    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    try:
        configure(LogFormat.CONSOLE if text else LogFormat.JSON, log_level)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--log-level") from error
    try:
        file = path if path is not None else find(alias or "", os.environ, Path.home())
        status = asyncio.run(run_agent(file, os.environ, exit_on_lease_end=exit_on_lease_end))
    except ConfigProblem as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(2)
    except LableaseError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(1)
    context.exit(status)
