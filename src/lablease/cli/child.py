"""The command that runs with a lease: its environment, its signals, and its end when the lease ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from lablease.cli.progress import Progress
from lablease.cli.signals import signals_to
from lablease.client.durations import format_duration
from lablease.client.errors import ClientError
from lablease.client.lease import HeldLease
from lablease.client.resources import LeaseInfo
from lablease.client.waiting import Acquired, Refused, Waiting, judge
from lablease.clock import utc_now

_LOOK = timedelta(seconds=30)
_NOTICE = timedelta(minutes=5)
_LEAST = timedelta(seconds=1)
_GRACE_SECONDS = 5.0


def shell_command(exporter: str, use_profiles: bool) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the user's shell with a prompt that names the exporter, and the variables for it."""
    shell = os.environ.get("SHELL", "/bin/bash")
    options: tuple[str, ...]
    match Path(shell).name:
        case "bash":
            options = () if use_profiles else ("--norc", "--noprofile")
            return (shell, *options), {"PS1": rf"\[\e[90m\]\W \[\e[33m\]⚡\[\e[0m\]{exporter} \[\e[33m\]➤\[\e[0m\] "}
        case "zsh":
            options = () if use_profiles else ("--no-rcs",)
            return (shell, *options), {"PS1": f"%F{{8}}%1~ %F{{yellow}}⚡%f{exporter} %F{{yellow}}➤%f "}
        case _:
            return (shell,), {}


async def run_child(argv: Sequence[str], env: Mapping[str, str], held: HeldLease, progress: Progress) -> int:
    """Run a command in the foreground and return its exit status, 128 + n after signal n.

    TERM, HUP and INT are passed on, except an INT that the terminal has sent to the command as well. When the lease
    ends the command gets HUP, then TERM, then KILL.

    Raises:
        ClientError: there is no such command.
    """
    try:
        child = await asyncio.create_subprocess_exec(*argv, env=dict(env))
    except FileNotFoundError:
        raise ClientError(f"{argv[0]}: no such command") from None
    watch = asyncio.create_task(_end_with_lease(child, held, progress))
    try:
        with signals_to(partial(_pass_on, child)):
            code = await child.wait()
    finally:
        watch.cancel()
    return 128 - code if code < 0 else code


def _pass_on(child: Process, number: int) -> None:
    if child.returncode is None and not (number == signal.SIGINT and _shares_terminal()):
        child.send_signal(number)


def _shares_terminal() -> bool:
    """Tell whether Ctrl-C reaches the child without us, as the terminal signals its whole foreground group."""
    return sys.stdin.isatty()


async def _end_with_lease(child: Process, held: HeldLease, progress: Progress) -> None:
    info, over, noticed = held.info, "", False
    while not over:
        left = info.planned_end - utc_now() if info.planned_end else None
        if left is not None and left <= _NOTICE and not noticed:
            noticed = True
            progress.say(f"the lease ends in {format_duration(left)}")
        await asyncio.sleep(pause_before_look(left).total_seconds())
        try:
            info = await held.controller.get_lease(info.name)
        except ClientError:  # the controller is away: what it told last goes on
            over = "its time is over" if info.planned_end and info.planned_end <= utc_now() else ""
        else:
            over = why_over(info, held.controller.client)
    progress.say(f"the lease has ended: {over}")
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGKILL):
        child.send_signal(number)
        await asyncio.sleep(_GRACE_SECONDS)


def pause_before_look(left: timedelta | None) -> timedelta:
    """Return when to look at the lease again, so that notice and end are seen in time and 30 s is the longest."""
    if left is None:
        return _LEAST
    until = left - _NOTICE if left > _NOTICE else left
    return max(min(until, _LOOK), _LEAST)


def why_over(info: LeaseInfo, client: str) -> str:
    """Return why this client cannot use the lease any more, "" while it can. Only the controller's word counts, not
    this machine's clock."""
    if info.client and info.client != client:
        return f"it was transferred to {info.client}"
    match judge(info):
        case Acquired():
            return ""
        case Refused() | Waiting() as outlook:
            return outlook.message or outlook.reason
