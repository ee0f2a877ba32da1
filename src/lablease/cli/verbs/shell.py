"""Prepared commands of the exporter's owner."""

from __future__ import annotations

import click

from lablease.cli.options import KeyValue
from lablease.client.drivers.shell import ShellClient


class Prepared(click.Group):
    """Any name is a command: which ones there are is asked only by ``list``."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        return super().get_command(ctx, cmd_name) or _prepared(cmd_name)


@click.group(cls=Prepared)
def group() -> None:
    """Run a command that the exporter's owner has prepared.

    \b
    lablease call tools list
    lablease call tools NAME -e KEY=VALUE ARGS...
    """


@group.command("list")
@click.pass_obj
async def list_(client: ShellClient) -> None:
    """Print the names of the commands."""
    for name in await client.methods():
        click.echo(name)


def _prepared(name: str) -> click.Command:
    @click.command(name, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
    @click.option("-e", "--env", type=KeyValue(), multiple=True, help="KEY=VALUE for the command. Repeatable.")
    @click.argument("args", nargs=-1, type=click.UNPROCESSED)
    @click.pass_obj
    async def command(client: ShellClient, env: tuple[tuple[str, str], ...], args: tuple[str, ...]) -> int:
        """Run it with ARGS; the exit status is the command's."""
        code = 0
        async for piece in client.run(name, *args, env=dict(env)):
            click.echo(piece.stdout, nl=False)
            click.echo(piece.stderr, nl=False, err=True)
            code = code if piece.code is None else piece.code
        return code

    return command
