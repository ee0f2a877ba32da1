"""Flashers and storage multiplexers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

from lablease.client.drivers.flasher import FlasherClient, StorageMuxClient
from lablease.client.files import Encoding, Progress, is_url

Command = TypeVar("Command", bound=Callable[..., Any])


def _compression(command: Command) -> Command:
    return click.option(
        "--compression",
        type=click.Choice(["gzip", "xz", "bz2", "zstd"]),
        help="How the local file is compressed; the device gets it unpacked.",
    )(command)


@contextmanager
def _bar(label: str, source: str | None = None) -> Generator[Progress]:
    """Show a bar on a terminal, or a running count where the length is not known."""
    if source is None or is_url(source):
        yield _Count(label)
        return
    bar: ProgressBar[int] = click.progressbar(length=Path(source).stat().st_size, label=label, file=sys.stderr)
    with bar:
        yield bar.update


class _Count:
    def __init__(self, label: str) -> None:
        self._label, self._bytes = label, 0

    def __call__(self, count: int) -> None:
        self._bytes += count
        if sys.stderr.isatty():
            click.echo(f"\r{self._label}  {self._bytes / 2**20:.1f} MiB", nl=False, err=True)


@click.group()
def flasher() -> None:
    """Flash images."""


@flasher.command()
@click.argument("file", required=False)
@click.option("-t", "--target", "targets", multiple=True, help="TARGET:FILE, repeatable; or one TARGET for FILE.")
@_compression
@click.pass_obj
async def flash(
    client: FlasherClient, file: str | None, targets: tuple[str, ...], compression: Encoding | None
) -> None:
    """Write a local FILE or an http(s) URL, which the exporter then fetches itself.

    \b
    lablease call storage flash image.raw
    lablease call storage flash -t root:root.img -t boot:boot.img
    """
    for target, source in _images(file, targets):
        with _bar(f"flash {target or Path(source).name}", source) as progress:
            await client.flash(source, target, compression, progress)


def _images(file: str | None, targets: tuple[str, ...]) -> list[tuple[str | None, str]]:
    if file is not None:
        if len(targets) > 1:
            raise click.UsageError("one FILE goes to one --target; for several say --target TARGET:FILE")
        return [(targets[0] if targets else None, file)]
    pairs = [target.partition(":") for target in targets]
    if not pairs or not all(source for _, _, source in pairs):
        raise click.UsageError("say FILE, or --target TARGET:FILE")
    return [(target, source) for target, _, source in pairs]


@flasher.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-t", "--target", help="What to read, if the device has several.")
@_compression
@click.pass_obj
async def dump(client: FlasherClient, file: Path, target: str | None, compression: Encoding | None) -> None:
    """Read back into a local FILE."""
    with _bar(f"dump {target or ''}".rstrip()) as progress:
        await client.dump(file, target, compression, progress)


@click.group()
def mux() -> None:
    """Connect a storage medium to the exporter's host or to the device."""


@mux.command()
@click.pass_obj
async def host(client: StorageMuxClient) -> None:
    """Connect it to the exporter's host."""
    await client.host()


@mux.command()
@click.pass_obj
async def dut(client: StorageMuxClient) -> None:
    """Connect it to the device."""
    await client.dut()


@mux.command()
@click.pass_obj
async def off(client: StorageMuxClient) -> None:
    """Disconnect it."""
    await client.off()


@mux.command("write-local-file")
@click.argument("file")
@_compression
@click.pass_obj
async def write_local_file(client: StorageMuxClient, file: str, compression: Encoding | None) -> None:
    """Write a local FILE or an http(s) URL to it."""
    with _bar(f"write {Path(file).name}", file) as progress:
        await client.write(file, compression, progress)


@mux.command("read-local-file")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_compression
@click.pass_obj
async def read_local_file(client: StorageMuxClient, file: Path, compression: Encoding | None) -> None:
    """Read it into a local FILE."""
    with _bar("read") as progress:
        await client.read(file, compression, progress)


@click.group(commands={**mux.commands, **flasher.commands})
def mux_flasher() -> None:
    """Flash a storage medium, or connect it by hand."""
