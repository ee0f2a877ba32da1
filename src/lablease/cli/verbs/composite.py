"""A driver that only groups others."""

from __future__ import annotations

import click


@click.group()
def group() -> None:
    """A group of drivers; `lablease call` without arguments shows what is in it."""
