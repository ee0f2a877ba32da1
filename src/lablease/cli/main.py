"""The ``lablease`` command: a table of subcommands, each imported only when it is used."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from lablease import __version__
from lablease.errors import LableaseError


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a subcommand is (``module:attribute``) and its line in the overview."""

    target: str
    help: str


COMMANDS: Mapping[str, Entry] = {
    "up": Entry("lablease.cli.up:up", "Start a whole control plane with a demo board on this machine."),
    "status": Entry("lablease.cli.up:status", "Show what `up` has started."),
    "down": Entry("lablease.cli.up:down", "Stop what `up` has started."),
    "demo": Entry("lablease.cli.demo:demo", "Show the life of one lease with a demo board."),
    "get": Entry("lablease.cli.get:get", "List exporters or leases."),
    "lease": Entry("lablease.cli.lease:lease", "Create, look at, change and release leases."),
    "shell": Entry("lablease.cli.shell:shell", "Lease an exporter and run a shell or a command with it."),
    "call": Entry("lablease.cli.call:call", "Call a driver of a leased exporter, such as `call power on`."),
    "admin": Entry("lablease.cli.admin:admin", "Create, import and delete clients and exporters in Kubernetes."),
    "exporter": Entry("lablease.cli.exporter:exporter", "Run an exporter agent on a lab host."),
    "operator": Entry("lablease.cli.servers:operator", "Run the operator, which decides who gets what."),
    "frontend": Entry("lablease.cli.servers:frontend", "Run a gRPC front end for clients and exporters."),
    "router": Entry("lablease.cli.servers:router", "Run a router, which carries tunnels."),
    "history": Entry("lablease.obs.history:main", "Check audit and device logs against the contract."),
    "version": Entry("lablease.cli.version:version", "Print versions."),
}


class Overview(click.Group):
    """A group that knows its subcommands from a table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(n, help=e.help) for n, e in COMMANDS.items() if n.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    cls=Overview,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Try `lablease up`, then `lablease shell -l example.com/board=demo -- lablease call power on`. "
    'Completion: eval "$(_LABLEASE_COMPLETE=bash_source lablease)".',
)
@click.version_option(__version__, prog_name="lablease")
def cli() -> None:
    """Lease lab hardware: boards, phones, power switches, anything with a driver."""


def main() -> NoReturn:
    """Run the command line. Exit status: the command's own, 1 after an error, 2 after wrong usage, 130 after Ctrl-C."""
    try:
        cli(prog_name="lablease")
    except LableaseError as error:
        click.echo(f"Error: {error}", err=True)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"Error: {where}{error.strerror or error}", err=True)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1)


if __name__ == "__main__":
    main()
