"""Network targets and everything else that has a byte stream."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import click

from lablease.client.drivers.network import NetworkClient, StreamClient


@click.group()
def group() -> None:
    """Reach a network target near the exporter."""


@group.command("forward-tcp")
@click.option("--address", default="127.0.0.1", show_default=True, help="Local address to listen on.")
@click.argument("port", type=click.IntRange(0, 65535), default=0)
@click.pass_obj
async def forward_tcp(client: StreamClient, address: str, port: int) -> None:
    """Listen on a local TCP PORT (0: any) and connect it to the target, until Ctrl-C."""
    async with client.forward_tcp(address, port) as (host, bound):
        click.echo(f"{host}:{bound}")
        await asyncio.Event().wait()


@group.command("forward-unix")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.pass_obj
async def forward_unix(client: StreamClient, path: Path | None) -> None:
    """Listen on a local unix socket and connect it to the target, until Ctrl-C."""
    async with client.forward_unix(path) as bound:
        click.echo(str(bound))
        await asyncio.Event().wait()


@group.command()
@click.option("--host", "part", flag_value="host", help="Only the host.")
@click.option("--port", "part", flag_value="port", help="Only the port.")
@click.pass_obj
async def address(client: NetworkClient, part: str | None) -> None:
    """Print where the exporter connects to."""
    url = await client.address()
    parts = urlsplit(url)
    match part:
        case "host":
            click.echo(parts.hostname)
        case "port":
            click.echo(parts.port)
        case _:
            click.echo(url)
