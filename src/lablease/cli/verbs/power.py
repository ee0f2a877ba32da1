"""Power switches."""

from __future__ import annotations

import asyncio
import itertools

import click

from lablease.client.drivers.power import PowerClient, VirtualPowerClient


@click.group()
def group() -> None:
    """Switch power."""


@group.command()
@click.pass_obj
async def on(client: PowerClient) -> None:
    """Switch on."""
    await client.on()


@group.command()
@click.pass_obj
async def off(client: PowerClient) -> None:
    """Switch off."""
    await client.off()


@group.command()
@click.option("-w", "--wait", default=2.0, show_default=True, help="Seconds between off and on.")
@click.pass_obj
async def cycle(client: PowerClient, wait: float) -> None:
    """Switch off, wait, switch on."""
    await client.cycle(wait)


@group.command()
@click.pass_obj
async def rescue(client: PowerClient) -> None:
    """Start in rescue mode, where the driver can."""
    await client.rescue()


@group.command()
@click.option("-n", "--count", type=click.IntRange(min=1), help="Stop after so many readings.")
@click.option("-i", "--interval", default=0.0, help="Seconds to wait between readings.")
@click.pass_obj
async def read(client: PowerClient, count: int | None, interval: float) -> None:
    """Print voltage, current and their product."""
    readings = client.read()
    numbers = itertools.count(1)
    async for reading in readings:
        click.echo(
            f"voltage={reading.voltage:g} V  current={reading.current:g} A  "
            f"apparent_power={reading.apparent_power:g} VA"
        )
        if next(numbers) == count:
            await readings.aclose()
            return
        await asyncio.sleep(interval)


@click.group(commands={name: command for name, command in group.commands.items() if name != "off"})
def virtual() -> None:
    """Switch the power of a virtual device."""


@virtual.command("off")
@click.option("--destroy", is_flag=True, help="Forget the state of the device.")
@click.pass_obj
async def off_virtual(client: VirtualPowerClient, destroy: bool) -> None:
    """Switch off."""
    await client.off(destroy)
