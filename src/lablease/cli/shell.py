"""``lablease shell``: a lease for as long as a command runs."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from lablease.cli.options import Duration, Who, client_options, selector_option
from lablease.cli.signals import run

if TYPE_CHECKING:
    from lablease.cli.progress import Progress
    from lablease.client.lease import HeldLease
    from lablease.client.service import Controller
    from lablease.client.session import Session
    from lablease.client.tunnel import Tunnel

# A controller that restarts while a shell runs is not worth a word for this long.
_PATIENCE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asked for."""

    selector: str
    exporter: str
    lease: str | None
    duration: timedelta
    limit: timedelta | None
    exporter_logs: bool


@click.command(context_settings={"allow_interspersed_args": False})
@selector_option
@click.option("-n", "--name", "exporter", default="", help="This exporter and no other.")
@click.option("--lease", help="Use this lease and leave it alone at the end; default: JMP_LEASE.")
@click.option("--duration", type=Duration(), default="30m", show_default=True, help="90, 30m, 1h30m, PT1H, 01:30:00.")
@click.option("--acquisition-timeout", "limit", type=Duration(), help="Give up waiting after this time.")
@click.option("--exporter-logs", is_flag=True, help="Show all log lines of the exporter, not only its hooks'.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing about the lease.")
@client_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def shell(
    ctx: click.Context,
    who: Who,
    selector: str,
    exporter: str,
    lease: str | None,
    duration: timedelta,
    limit: timedelta | None,
    exporter_logs: bool,
    quiet: bool,
    command: tuple[str, ...],
) -> None:
    """Lease an exporter, run COMMAND (default: an interactive shell) with it, release it.

    \b
    lablease shell -l board=rpi4 -- lablease call power on
    lablease shell -n lab1-rpi4 --duration 2h

    Inside, `lablease call` and `j` reach the exporter. The exit status is the command's.
    """
    from lablease.cli.progress import Progress

    wanted = Wanted(selector, exporter, lease, duration, limit, exporter_logs)
    ctx.exit(run(_shell(who, wanted, command, Progress(quiet))))


async def _shell(who: Who, wanted: Wanted, command: tuple[str, ...], progress: Progress) -> int:
    from lablease.client.connect import connect_exporter
    from lablease.client.sharing import SOCKET_NAME, shared

    async with who.controller(_PATIENCE) as controller, AsyncExitStack() as stack:
        held = await _get(stack, controller, wanted, progress)
        progress.acquired(held.info)
        session, tunnel = await stack.enter_async_context(connect_exporter(held, progress.state, progress.trouble))
        await stack.enter_async_context(shared(session.channel, tunnel.path.with_name(SOCKET_NAME)))
        logs = asyncio.create_task(_print_logs(session, wanted.exporter_logs))
        stack.callback(logs.cancel)
        code = await _run(held, session, tunnel, command, progress)
        if held.mine:
            await _end(session, progress)
            progress.say(f"releasing lease {held.info.name}")
        return code


async def _get(stack: AsyncExitStack, controller: Controller, wanted: Wanted, progress: Progress) -> HeldLease:
    """Create the lease, or take the one that was named; without a word about which, the only one there is."""
    from lablease.client.lease import borrow, hold
    from lablease.client.resources import LeaseRequest

    if wanted.lease is None and (wanted.selector or wanted.exporter):
        request = LeaseRequest(wanted.duration, wanted.selector, wanted.exporter)
        progress.say(f"asking for {wanted.exporter or wanted.selector} for {_human(wanted.duration)}")
        return await stack.enter_async_context(hold(controller, request, progress.waiting, wanted.limit))
    name = wanted.lease or os.environ.get("JMP_LEASE") or await _only_lease(controller)
    return await stack.enter_async_context(borrow(controller, name, progress.waiting, wanted.limit))


async def _only_lease(controller: Controller) -> str:
    mine = [lease.name for lease in await controller.list_leases() if lease.client == controller.client]
    if len(mine) == 1:
        return mine[0]
    have = f"there are {len(mine)}: {', '.join(mine)}" if mine else "there is none"
    raise click.UsageError(f"say which exporter (--selector, --name) or which --lease; of your leases {have}")


async def _run(held: HeldLease, session: Session, tunnel: Tunnel, command: tuple[str, ...], progress: Progress) -> int:
    from lablease.cli.child import run_child, shell_command
    from lablease.client.errors import ServiceError
    from lablease.client.sharing import REPORT_NAME

    try:
        labels = dict((await held.controller.get_exporter(held.info.exporter)).labels)
    except ServiceError:
        labels = {}  # only JMP_EXPORTER_LABELS needs them
    drivers = held.controller.config.drivers
    tunnel.path.with_name(REPORT_NAME).write_bytes(session.report)
    env = {
        "JUMPSTARTER_HOST": str(tunnel.path),
        "JMP_LEASE": held.info.name,
        "JMP_EXPORTER": held.info.exporter,
        "JMP_EXPORTER_LABELS": ",".join(f"{k}={v}" for k, v in sorted(labels.items())),
        "JMP_DRIVERS_ALLOW": "UNSAFE" if drivers.unsafe else ",".join(drivers.allow),
        "_JMP_SUPPRESS_DRIVER_WARNINGS": "1",
    }
    argv, more = shell_command(held.info.exporter, held.controller.config.shell.use_profiles)
    return await run_child(command or argv, {**os.environ, **env, **({} if command else more)}, held, progress)


async def _print_logs(session: Session, everything: bool) -> None:
    async for line in session.logs():
        if everything or line.source.endswith("_HOOK"):
            click.echo(f"{line.source.lower()}: {line.message}", err=True)


async def _end(session: Session, progress: Progress) -> None:
    from lablease.client.errors import ClientError

    try:
        await session.end(on_state=progress.state)
    except ClientError as error:
        progress.say(str(error))


def _human(value: timedelta) -> str:
    from lablease.client.durations import format_duration

    return format_duration(value)
