"""``lablease lease …``: leases as objects; using one is ``lablease shell`` and ``lablease call``."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from lablease.cli.options import (
    Duration,
    Instant,
    KeyValue,
    Who,
    client_options,
    output_option,
    selector_option,
)
from lablease.cli.signals import run

if TYPE_CHECKING:
    from lablease.client.resources import LeaseInfo, LeaseRequest


@click.group()
def lease() -> None:
    """Create, look at, change and release leases.

    \b
    lablease lease create -l board=rpi4 --duration 1h --wait
    lablease lease extend NAME 30m
    lablease lease release NAME
    """


@lease.command("create")
@selector_option
@click.option("-n", "--name", "exporter_name", default="", help="This exporter and no other.")
@click.option("--duration", type=Duration(), default="30m", show_default=True, help="90, 30m, 1h30m, PT1H, 01:30:00.")
@click.option("--begin-time", type=Instant(), help="Not before this time (ISO 8601).")
@click.option("--lease-id", default="", help="Name of the lease; one is made up otherwise.")
@click.option("--tag", "tags", type=KeyValue(), multiple=True, help="key=value to find the lease by. Repeatable.")
@click.option("--allow-disabled", is_flag=True, help="With --name: also if leasing it is switched off.")
@click.option("--idle-timeout", type=Duration(), help="End the lease when its tunnels were silent for so long.")
@click.option("--wait-timeout", type=Duration(), help="Give up if no exporter was free within this time.")
@click.option("--wait", is_flag=True, help="Return only once the exporter is assigned.")
@output_option()
@client_options
def create(
    who: Who,
    selector: str,
    exporter_name: str,
    duration: timedelta,
    begin_time: datetime | None,
    lease_id: str,
    tags: tuple[tuple[str, str], ...],
    allow_disabled: bool,
    idle_timeout: timedelta | None,
    wait_timeout: timedelta | None,
    wait: bool,
    output: str | None,
) -> None:
    """Ask for an exporter, by labels, by name or both.

    \b
    export JMP_LEASE=$(lablease lease create -l board=rpi4 --duration 1h --wait -o name)
    lablease call power on
    """
    from lablease.client.resources import LeaseRequest

    if not selector and not exporter_name:
        raise click.UsageError("say which exporter: --selector LABELS or --name EXPORTER")
    request = LeaseRequest(
        duration=duration,
        selector=selector,
        exporter_name=exporter_name,
        begin_time=begin_time,
        lease_id=lease_id,
        tags=dict(tags),
        allow_disabled=allow_disabled,
        idle_timeout=idle_timeout,
        wait_timeout=wait_timeout,
    )
    show(run(_create(who, request, wait)), output)


@lease.command("get")
@click.argument("name")
@output_option()
@client_options
def get_one(who: Who, name: str, output: str | None) -> None:
    """Show one lease."""

    async def look() -> LeaseInfo:
        async with who.controller() as controller:
            return await controller.get_lease(name)

    show(run(look()), output)


@lease.command("list")
@selector_option
@click.option("-a", "--all", "ended", is_flag=True, help="Also leases that have ended.")
@click.option("-A", "--all-clients", is_flag=True, help="Also leases of other clients.")
@click.option("--tag-filter", default="", help="Only leases with these tags, such as build=1234.")
@output_option()
@client_options
def list_(who: Who, selector: str, ended: bool, all_clients: bool, tag_filter: str, output: str | None) -> None:
    """List leases, by default the running and waiting ones of this client."""
    from lablease.cli.get import show_leases

    run(show_leases(who, selector, ended, all_clients, tag_filter, output))


@lease.command("release")
@click.argument("names", nargs=-1)
@click.option("-a", "--all", "everything", is_flag=True, help="All running and waiting leases of this client.")
@output_option("name")
@client_options
def release(who: Who, names: tuple[str, ...], everything: bool, output: str | None) -> None:
    """End leases; their exporters are free for others once they have cleaned up."""
    if bool(names) == everything:
        raise click.UsageError("name the leases to release, or say --all")
    for name in run(_release(who, names)):
        click.echo(name if output == "name" else f'lease "{name}" released')


@lease.command("extend")
@click.argument("name")
@click.argument("by", type=Duration(), required=False)
@click.option("--to", "total", type=Duration(), help="Make this the whole duration, counted from the beginning.")
@output_option()
@client_options
def extend(who: Who, name: str, by: timedelta | None, total: timedelta | None, output: str | None) -> None:
    """Let a lease run BY longer, or give it another duration with --to.

    \b
    lablease lease extend NAME 30m
    lablease lease extend NAME --to 2h
    """
    if (by is None) == (total is None):
        raise click.UsageError("say either by how much (30m) or --to which whole duration")
    show(run(_extend(who, name, by, total)), output)


@lease.command("transfer")
@click.argument("name")
@click.argument("client")
@output_option()
@client_options
def transfer(who: Who, name: str, client: str, output: str | None) -> None:
    """Hand a running lease to another client; this client's tunnels end."""

    async def hand_over() -> LeaseInfo:
        async with who.controller() as controller:
            return await controller.update_lease(name, client=client)

    show(run(hand_over()), output)


def show(info: LeaseInfo, output: str | None) -> None:
    """Print one lease."""
    from lablease.cli import output as out
    from lablease.clock import utc_now

    match output:
        case "name":
            out.print_names([info.name])
        case None:
            out.print_table(out.LEASE_COLUMNS, [out.lease_row(info, utc_now())])
        case _:
            out.print_data(out.lease_data(info), output)


async def _create(who: Who, request: LeaseRequest, wait: bool) -> LeaseInfo:
    from lablease.cli.progress import Progress
    from lablease.client.lease import acquire

    async with who.controller() as controller:
        info = await controller.create_lease(request)
        if not wait:
            return info
        progress = Progress()
        try:
            info = await acquire(controller, info.name, progress.waiting)
        except asyncio.CancelledError:
            await asyncio.shield(controller.delete_lease(info.name))
            progress.say(f"lease {info.name} released")
            raise
        progress.acquired(info)
        return info


async def _release(who: Who, names: tuple[str, ...]) -> tuple[str, ...]:
    async with who.controller() as controller:
        found = names or [i.name for i in await controller.list_leases() if i.client == controller.client]
        for name in found:
            await controller.delete_lease(name)
    return tuple(found)


async def _extend(who: Who, name: str, by: timedelta | None, total: timedelta | None) -> LeaseInfo:
    async with who.controller() as controller:
        if total is None:
            info = await controller.get_lease(name)
            total = (info.duration or timedelta(0)) + (by or timedelta(0))
        return await controller.update_lease(name, duration=total)
