"""``lablease get exporters|leases``: what the controller knows."""

from __future__ import annotations

import click

from lablease.cli.options import Who, client_options, output_option, selector_option
from lablease.cli.signals import run

_FIELDS = frozenset({"leases", "online", "status"})


@click.group()
def get() -> None:
    """List exporters or leases.

    \b
    lablease get exporters --with leases,online,status
    lablease get leases -A -o yaml
    """


def _fields(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> frozenset[str]:
    names = frozenset(name for item in value for name in item.split(",") if name)
    if wrong := names - _FIELDS:
        raise click.BadParameter(f"{', '.join(sorted(wrong))}: choose from {', '.join(sorted(_FIELDS))}")
    return names


@get.command("exporters")
@selector_option
@click.option("--with", "shown", multiple=True, callback=_fields, help="Add leases, online, status.")
@click.option("--show-hidden-labels", is_flag=True, help="Also labels that the lab hides.")
@click.option("--allow-disabled", is_flag=True, help="Also exporters that are switched off for leasing.")
@output_option()
@client_options
def exporters(
    who: Who, selector: str, shown: frozenset[str], show_hidden_labels: bool, allow_disabled: bool, output: str | None
) -> None:
    """List exporters.

    \b
    lablease get exporters -l board=rpi4 --with online,status
    """
    run(_exporters(who, selector, shown, show_hidden_labels, allow_disabled, output))


@get.command("leases")
@selector_option
@click.option("-a", "--all", "ended", is_flag=True, help="Also leases that have ended.")
@click.option("-A", "--all-clients", is_flag=True, help="Also leases of other clients.")
@click.option("--tag-filter", default="", help="Only leases with these tags, such as build=1234.")
@output_option()
@client_options
def leases(who: Who, selector: str, ended: bool, all_clients: bool, tag_filter: str, output: str | None) -> None:
    """List leases, by default the running and waiting ones of this client.

    \b
    lablease get leases --tag-filter build=1234 -o name
    """
    run(show_leases(who, selector, ended, all_clients, tag_filter, output))


get.add_command(exporters, "exporter")
get.add_command(leases, "lease")


async def _exporters(
    who: Who, selector: str, shown: frozenset[str], hidden: bool, disabled: bool, output: str | None
) -> None:
    from lablease.cli import output as out

    if disabled:
        shown |= {"enabled"}
    async with who.controller() as controller:
        found = await controller.list_exporters(selector, show_hidden_labels=hidden)
        leases = await controller.list_leases() if "leases" in shown else []
    found = [e for e in found if disabled or e.enabled]
    holder = {lease.exporter: lease for lease in leases if lease.exporter and out.lease_status(lease) != "Ended"}
    match output:
        case "name":
            out.print_names(e.name for e in found)
        case None:
            out.print_table(
                out.exporter_columns(shown), [out.exporter_row(e, shown, holder.get(e.name)) for e in found]
            )
        case _:
            out.print_data({"exporters": [out.exporter_data(e, shown, holder.get(e.name)) for e in found]}, output)


async def show_leases(
    who: Who, selector: str, ended: bool, all_clients: bool, tag_filter: str, output: str | None
) -> None:
    """List leases whose selector contains every requirement of ``selector``."""
    from lablease.cli import output as out
    from lablease.clock import utc_now

    wanted = _requirements(selector)
    async with who.controller() as controller:
        found = await controller.list_leases(tag_filter=tag_filter, only_active=not ended)
        client = controller.client
    found = [
        lease for lease in found if (all_clients or lease.client == client) and wanted <= _requirements(lease.selector)
    ]
    match output:
        case "name":
            out.print_names(lease.name for lease in found)
        case None:
            now = utc_now()
            out.print_table(out.LEASE_COLUMNS, [out.lease_row(lease, now) for lease in found])
        case _:
            out.print_data({"leases": [out.lease_data(lease) for lease in found]}, output)


def _requirements(selector: str) -> frozenset[object]:
    from lablease.rules.selectors import parse

    parsed = parse(selector, "--selector")
    return frozenset((*parsed.match_labels, *parsed.expressions))
