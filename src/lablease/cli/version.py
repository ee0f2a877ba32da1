"""``lablease version``."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version as installed

import click

from lablease import __version__


@click.command()
@click.option("-o", "--output", type=click.Choice(["json"]), help="Print JSON.")
def version(output: str | None) -> None:
    """Print the versions of lablease and of what it talks with."""
    facts = {"lablease": __version__, "python": platform.python_version(), "grpcio": installed("grpcio")}
    if output == "json":
        click.echo(json.dumps(facts))
    else:
        click.echo("\n".join(f"{name} {value}" for name, value in facts.items()))
