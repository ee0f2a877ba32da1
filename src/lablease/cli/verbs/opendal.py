"""Storage by path."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from lablease.cli.verbs import print_result
from lablease.client.drivers.opendal import OpendalClient


@click.group()
def group() -> None:
    """Use files near the exporter."""


@group.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("path")
@click.pass_obj
async def write(client: OpendalClient, source: Path, path: str) -> None:
    """Write the local file SOURCE to PATH."""
    await client.write_file(path, source)


@group.command()
@click.argument("path")
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.pass_obj
async def read(client: OpendalClient, path: str, target: Path | None) -> None:
    """Read PATH into the local file TARGET, or to standard output."""
    if target is not None:
        await client.read_file(path, target)
        return

    async def show(data: bytes) -> None:
        sys.stdout.buffer.write(data)

    await client.read(path, show)


@group.command("ls")
@click.argument("path", default="/")
@click.option("-r", "--recursive", is_flag=True)
@click.pass_obj
async def list_(client: OpendalClient, path: str, recursive: bool) -> None:
    """List a directory."""
    async for entry in client.list(path, recursive=recursive):
        click.echo(entry)


@group.command()
@click.argument("path")
@click.pass_obj
async def stat(client: OpendalClient, path: str) -> None:
    """Print what is known about a file."""
    print_result(await client.stat(path))


@group.command("hash")
@click.argument("path")
@click.option("--algorithm", type=click.Choice(["sha256", "md5"]), default="sha256", show_default=True)
@click.pass_obj
async def hash_(client: OpendalClient, path: str, algorithm: Literal["sha256", "md5"]) -> None:
    """Print the digest of a file."""
    click.echo(await client.hash(path, algorithm))


@group.command()
@click.argument("path")
@click.pass_obj
async def exists(client: OpendalClient, path: str) -> int:
    """Exit with 0 if there is something at PATH, with 1 if not."""
    return 0 if await client.exists(path) else 1


@group.command("mkdir")
@click.argument("path")
@click.pass_obj
async def create_dir(client: OpendalClient, path: str) -> None:
    """Create a directory."""
    await client.create_dir(path if path.endswith("/") else f"{path}/")


@group.command("cp")
@click.argument("source")
@click.argument("target")
@click.pass_obj
async def copy(client: OpendalClient, source: str, target: str) -> None:
    """Copy within the storage."""
    await client.copy(source, target)


@group.command("mv")
@click.argument("source")
@click.argument("target")
@click.pass_obj
async def move(client: OpendalClient, source: str, target: str) -> None:
    """Move within the storage."""
    await client.rename(source, target)


@group.command("rm")
@click.argument("path")
@click.option("-r", "--recursive", is_flag=True, help="Also everything below.")
@click.pass_obj
async def delete(client: OpendalClient, path: str, recursive: bool) -> None:
    """Delete a file."""
    await client.delete(path, recursive=recursive)
