"""``lablease call``: one call of a driver, inside ``lablease shell`` or with a lease by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import click

from lablease.cli.options import Who, client_options
from lablease.cli.signals import run
from lablease.cli.verbs import group_for
from lablease.client.drivers import client_for
from lablease.client.errors import ClientError
from lablease.client.session import Session, open_session
from lablease.client.tree import DriverNode


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="`lablease call DRIVER --help` lists the verbs of a driver.",
)
@click.option("--lease", "lease_name", help="Use this lease; default: the one of the surrounding shell, or JMP_LEASE.")
@client_options
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[DRIVER VERB [ARGS]...]")
@click.pass_context
def call(ctx: click.Context, who: Who, lease_name: str | None, words: tuple[str, ...]) -> None:
    """Call a driver of a leased exporter. Without a driver, list what the exporter offers.

    \b
    lablease call power on
    lablease call serial pipe > boot.log
    lablease call storage flash image.raw
    lablease call net forward-tcp 2222
    """
    ctx.exit(run(_call(who, lease_name, words)))


async def _call(who: Who, lease_name: str | None, words: tuple[str, ...]) -> int:
    async with _session(who, lease_name) as session:
        if not words:
            _show(session.root)
            return 0
        node, rest = _resolve(session.root, list(words))
        client = client_for(session, node)
        result = group_for(client).main(
            args=rest or ["--help"],
            prog_name=f"lablease call {'.'.join(node.path)}",
            standalone_mode=False,
            obj=client,
        )
        if inspect.isawaitable(result):
            result = await result
        return result if isinstance(result, int) else 0


@asynccontextmanager
async def _session(who: Who, lease_name: str | None) -> AsyncGenerator[Session]:
    """Open the session that was asked for, with its driver tree."""
    host, here = os.environ.get("JUMPSTARTER_HOST"), os.environ.get("JMP_LEASE")
    if host and lease_name in {None, here}:
        nearest, report = _kept(host)
        async with open_session(nearest) as session:
            if report:
                session.adopt(report)
            else:
                await session.load()
            yield session
    elif name := lease_name or here:
        async with _leased(who, name) as session:
            yield session
    else:
        raise ClientError("no lease: run this inside `lablease shell`, or name one with --lease or JMP_LEASE")


def _kept(host: str) -> tuple[str, bytes]:
    """Return the socket and the report that `lablease shell` keeps beside its tunnel, else the tunnel and nothing."""
    socket, report = Path(host).with_name("shared"), Path(host).with_name("report")
    return (str(socket), report.read_bytes()) if socket.is_socket() and report.exists() else (host, b"")


@asynccontextmanager
async def _leased(who: Who, name: str) -> AsyncGenerator[Session]:
    from lablease.cli.progress import Progress
    from lablease.client.connect import connect_exporter
    from lablease.client.lease import borrow

    progress = Progress()
    async with (
        who.controller(timedelta(seconds=30)) as controller,
        borrow(controller, name, progress.waiting) as held,
        connect_exporter(held, progress.state, progress.trouble) as (session, _),
    ):
        yield session


def _resolve(root: DriverNode, words: list[str]) -> tuple[DriverNode, list[str]]:
    """Take driver names off the front: ``board.power on`` and ``board power on`` are the same."""
    node = root.find(words.pop(0))
    while words and words[0] in node.children:
        node = node.children[words.pop(0)]
    return node, words


def _show(root: DriverNode) -> None:
    for node in root.walk():
        if node.path:
            indent = "  " * (len(node.path) - 1)
            kind = node.client.rpartition(".")[2]
            text = f"  {node.description}" if node.description else ""
            click.echo(f"{indent}{node.name}  ({kind}){text}")
