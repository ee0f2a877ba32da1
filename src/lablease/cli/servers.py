"""The servers as subcommands: every option is the server's own, also ``--help``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

import click

_PASS_ON = {"ignore_unknown_options": True, "help_option_names": list[str]()}


def _server(name: str, module: str, summary: str) -> click.Command:
    @click.command(name, help=summary, context_settings=_PASS_ON, add_help_option=False)
    @click.argument("args", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def command(ctx: click.Context, args: tuple[str, ...]) -> None:
        run: Callable[[Sequence[str]], int | None] = import_module(module).main
        ctx.exit(run(list(args)) or 0)

    return command


operator = _server("operator", "lablease.operator.main", "Run the operator.")
frontend = _server("frontend", "lablease.grpc_frontend.main", "Run a gRPC front end.")
router = _server("router", "lablease.grpc_frontend.router.main", "Run a router.")
