"""Serial consoles."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import click

from lablease.cli.verbs import network
from lablease.client.drivers.serial import SerialClient
from lablease.client.frames import FrameStream, StreamBroken

_LEAVE = b"\x02\x02\x02"  # Ctrl-B three times, as in jmp
_CHUNK = 65536


@click.group(commands={name: network.group.commands[name] for name in ("forward-tcp", "forward-unix")})
def group() -> None:
    """Use a serial console."""


@group.command("start-console")
@click.pass_obj
async def start_console(client: SerialClient) -> None:
    """Connect this terminal to the console; Ctrl-B three times leaves."""
    if not sys.stdin.isatty():
        raise click.UsageError("start-console needs a terminal; use pipe")
    async with client.stream() as stream:
        click.echo("Connected. Ctrl-B three times leaves.\r", err=True)
        with _raw_terminal():
            await _first_done(_print(stream, 1), _type(stream))
    click.echo("\nDisconnected.", err=True)


@group.command()
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead.")
@click.option("-a", "--append", is_flag=True, help="With --output: append.")
@click.option("-i", "--input", "force", is_flag=True, help="Send standard input although it is a terminal.")
@click.option("--no-input", is_flag=True, help="Send nothing.")
@click.option("--no-output", is_flag=True, help="Only send; ends with the input.")
@click.pass_obj
async def pipe(
    client: SerialClient, output: Path | None, append: bool, force: bool, no_input: bool, no_output: bool
) -> None:
    """Copy the console to standard output, and standard input to the console, until Ctrl-C.

    \b
    lablease call serial pipe > boot.log
    echo reboot | lablease call serial pipe -o boot.log
    """
    sends = not no_input and (force or not sys.stdin.isatty())
    if no_output and not sends:
        raise click.UsageError("nothing to do: neither input nor output")
    target = _open(output, append) if output else 1
    try:
        async with client.stream() as stream:
            if no_output:
                await _send(stream)
            elif sends:
                await asyncio.gather(_print(stream, target), _send(stream))
            else:
                await _print(stream, target)
    finally:
        if output:
            os.close(target)


@group.command()
@click.argument("level", type=bool)
@click.pass_obj
async def dtr(client: SerialClient, level: bool) -> None:
    """Set the DTR line."""
    await client.set_dtr(level)


@group.command()
@click.argument("level", type=bool)
@click.pass_obj
async def rts(client: SerialClient, level: bool) -> None:
    """Set the RTS line."""
    await client.set_rts(level)


async def _print(stream: FrameStream, target: int) -> None:
    try:
        while data := await stream.receive():
            await asyncio.to_thread(_write, target, data)
    except StreamBroken as error:
        raise click.ClickException(f"console: {error}") from None


async def _send(stream: FrameStream) -> None:
    async for data in _typed():
        await stream.send(data)


async def _type(stream: FrameStream) -> None:
    """Send key presses until the way out is typed; the first two of it are sent, as a console may need them."""
    last = b""
    async for data in _typed():
        last = (last + data)[-len(_LEAVE) :]
        if last == _LEAVE:
            return
        await stream.send(data)


async def _typed() -> AsyncGenerator[bytes]:
    """Yield standard input. It is read in a daemon thread, as a terminal must not be made non-blocking."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=4)

    def read() -> None:
        data = b"-"
        while data and not loop.is_closed():
            data = os.read(0, _CHUNK)
            asyncio.run_coroutine_threadsafe(queue.put(data), loop).result()

    Thread(target=read, daemon=True).start()
    while data := await queue.get():
        yield data


async def _first_done(*jobs: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def _open(path: Path, append: bool) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC), 0o666)


@contextmanager
def _raw_terminal() -> Generator[None]:
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
