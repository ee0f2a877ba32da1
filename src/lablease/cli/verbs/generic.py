"""Drivers whose client class is not known here: their methods by name."""

from __future__ import annotations

import json
from typing import cast

import click

from lablease.cli.verbs import print_result
from lablease.client.drivers.generic import GenericClient
from lablease.client.errors import DriverMethodNotImplemented
from lablease.client.values import Json


class Methods(click.Group):
    """Any name is a method: an exporter need not describe all it has."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        client = ctx.find_object(GenericClient)
        return sorted(client.methods) if client else []

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        client = ctx.find_object(GenericClient)
        return _method(cmd_name, client.methods.get(cmd_name, "") if client else "")


@click.group(cls=Methods)
def group() -> None:
    """Call a method by its name; ARGS are JSON, or text where they are not.

    Only methods that the exporter describes are listed here, it may have more.
    """


def _method(name: str, text: str) -> click.Command:
    @click.command(name, help=text or None, context_settings={"ignore_unknown_options": True})
    @click.argument("args", nargs=-1, type=click.UNPROCESSED)
    @click.pass_obj
    async def command(client: GenericClient, args: tuple[str, ...]) -> None:
        values = [_parse(text) for text in args]
        try:
            print_result(await client.call(name, *values))
        except DriverMethodNotImplemented as error:
            if "missing marker" not in error.details:
                raise
            async for item in client.streaming_call(name, *values):
                print_result(item)

    return command


def _parse(text: str) -> Json:
    try:
        return cast("Json", json.loads(text))
    except json.JSONDecodeError:
        return text
