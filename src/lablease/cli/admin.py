"""``lablease admin``: clients and exporters of a lab, through the Kubernetes API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lablease.cli.options import KeyValue, output_option
from lablease.cli.signals import run

if TYPE_CHECKING:
    from lablease.cli.cluster import Access, Cluster

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Where:
    """Which cluster and namespace."""

    kubeconfig: Path | None
    context: str | None
    namespace: str | None


@dataclass(frozen=True, slots=True)
class Saving:
    """Whether and how to write a config file."""

    save: bool
    out: Path | None
    allow: str = ""
    unsafe: bool = False
    insecure_tls: bool = False


def _where(command: Command) -> Command:
    """Add the options that say which cluster; the command gets ``where``."""

    def together(ctx: click.Context, param: click.Parameter, value: str | None) -> Where:
        return Where(ctx.params.pop("kubeconfig", None), ctx.params.pop("context", None), value)

    for option in (
        click.option("-n", "--namespace", "where", callback=together, help="Namespace; default: the context's."),
        click.option("--context", is_eager=True, help="Context of the kubeconfig."),
        click.option(
            "--kubeconfig",
            is_eager=True,
            type=click.Path(path_type=Path, dir_okay=False),
            help="Default: KUBECONFIG, else ~/.kube/config.",
        ),
        click.option(
            "--nointeractive", is_flag=True, expose_value=False, help="Nothing is ever asked; for jmp's sake."
        ),
    ):
        command = option(command)
    return command


_OUT = click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the config file here.")
_SAVE = click.option("-s", "--save", is_flag=True, help="Write the config file to its usual place.")
_ALLOW = click.option("-a", "--allow", default="", help="Driver client packages that jmp may load, by commas.")
_UNSAFE = click.option("--unsafe", is_flag=True, help="jmp may load any driver client package.")
_INSECURE = click.option("-k", "--insecure-tls", is_flag=True, help="The config trusts whatever certificate comes.")
_LABELS = click.option("-l", "--label", "labels", type=KeyValue(), multiple=True, help="key=value. Repeatable.")
_USERNAME = click.option("--oidc-username", help="Name of the user at an external OIDC issuer.")


@click.group()
def admin() -> None:
    """Create, import and delete clients and exporters.

    \b
    lablease admin create exporter rpi4-1 -l board=rpi4 --save
    lablease admin create client ci --out ci.yaml
    lablease admin rotate client ci --save
    """


@admin.group()
def create() -> None:
    """Create a client or an exporter."""


@create.command("client")
@click.argument("name")
@_LABELS
@_USERNAME
@_SAVE
@_OUT
@_ALLOW
@_UNSAFE
@_INSECURE
@output_option()
@_where
def create_client(
    where: Where,
    name: str,
    labels: tuple[tuple[str, str], ...],
    oidc_username: str | None,
    save: bool,
    out: Path | None,
    allow: str,
    unsafe: bool,
    insecure_tls: bool,
    output: str | None,
) -> None:
    """Create a client, somebody who may ask for leases."""
    saving = Saving(save, out, allow, unsafe, insecure_tls)
    run(_create(where, "client", name, dict(labels), oidc_username, saving, output))


@create.command("exporter")
@click.argument("name")
@_LABELS
@_USERNAME
@_SAVE
@_OUT
@_INSECURE
@output_option()
@_where
def create_exporter(
    where: Where,
    name: str,
    labels: tuple[tuple[str, str], ...],
    oidc_username: str | None,
    save: bool,
    out: Path | None,
    insecure_tls: bool,
    output: str | None,
) -> None:
    """Create an exporter, a set of devices on one lab host. Leases find it by its labels."""
    if not labels:
        raise click.UsageError("give at least one --label key=value: leases find exporters by their labels")
    saving = Saving(save, out, insecure_tls=insecure_tls)
    run(_create(where, "exporter", name, dict(labels), oidc_username, saving, output))


@admin.group("get")
def get_() -> None:
    """Show clients, exporters or leases."""


def _getter(kind: str) -> None:
    @get_.command(kind, help=f"Show one {kind}, or all of the namespace.")
    @click.argument("name", required=False)
    @output_option()
    @_where
    def command(where: Where, name: str | None, output: str | None) -> None:
        run(_get(where, kind, name, output))

    get_.add_command(command, f"{kind}s")


for _kind in ("client", "exporter", "lease"):
    _getter(_kind)


@admin.group()
def delete() -> None:
    """Delete a client or an exporter."""


def _deleter(kind: str) -> None:
    @delete.command(kind, help=f"Delete one {kind}.")
    @click.argument("name")
    @click.option("-d", "--delete", "files", is_flag=True, help="Also its config file here.")
    @output_option("name")
    @_where
    def command(where: Where, name: str, files: bool, output: str | None) -> None:
        run(_delete(where, kind, name, files, output))

    del command


for _kind in ("client", "exporter"):
    _deleter(_kind)


@admin.group("import")
def import_() -> None:
    """Write the config file of a client or exporter that exists."""


@import_.command("client")
@click.argument("name")
@_OUT
@_ALLOW
@_UNSAFE
@_INSECURE
@output_option("path")
@_where
def import_client(
    where: Where, name: str, out: Path | None, allow: str, unsafe: bool, insecure_tls: bool, output: str | None
) -> None:
    """Write the config file of a client."""
    run(_import(where, "client", name, Saving(True, out, allow, unsafe, insecure_tls), output))


@import_.command("exporter")
@click.argument("name")
@_OUT
@_INSECURE
@output_option("path")
@_where
def import_exporter(where: Where, name: str, out: Path | None, insecure_tls: bool, output: str | None) -> None:
    """Write the config file of an exporter."""
    run(_import(where, "exporter", name, Saving(True, out, insecure_tls=insecure_tls), output))


@admin.group()
def rotate() -> None:
    """Replace credentials."""


@rotate.command("client")
@click.argument("name")
@_SAVE
@_OUT
@output_option("name")
@_where
def rotate_client(where: Where, name: str, save: bool, out: Path | None, output: str | None) -> None:
    """Give a client a new token; the old one stops working."""
    run(_rotate(where, name, Saving(save, out), output))


async def _create(
    where: Where, kind: str, name: str, labels: dict[str, str], username: str | None, saving: Saving, output: str | None
) -> None:
    from lablease.cli.cluster import open_cluster, resource_named

    async with open_cluster(where.kubeconfig, where.context, where.namespace) as cluster:
        if output is None:
            click.echo(f"Creating {kind} '{name}' in namespace '{cluster.namespace}'")
        found = await cluster.create(resource_named(kind), name, labels, username)
        if saving.save or saving.out:
            path = await _save(cluster, kind, name, saving)
            if output is None:
                click.echo(f"{kind.capitalize()} configuration saved to {path}")
    _show(kind, [found], output, one=True)


async def _get(where: Where, kind: str, name: str | None, output: str | None) -> None:
    from lablease.cli.cluster import open_cluster, resource_named
    from lablease.kube.resources import LEASES
    from lablease.model.keys import Key

    resource = LEASES if kind == "lease" else resource_named(kind)
    async with open_cluster(where.kubeconfig, where.context, where.namespace) as cluster:
        if name is None:
            items = (await cluster.api.list(resource, cluster.namespace)).items
        else:
            items = [await cluster.api.get(resource, Key(cluster.namespace, name))]
    _show(kind, list(items), output, one=name is not None)


async def _delete(where: Where, kind: str, name: str, files: bool, output: str | None) -> None:
    from lablease.cli.cluster import open_cluster, resource_named
    from lablease.model.keys import Key

    async with open_cluster(where.kubeconfig, where.context, where.namespace) as cluster:
        await cluster.api.delete(resource_named(kind), Key(cluster.namespace, name))
        text = f"Deleted {kind} '{name}' in namespace '{cluster.namespace}'"
    click.echo(f"{kind}.jumpstarter.dev/{name}" if output == "name" else text)
    if files:
        _forget(kind, name)
        if output is None:
            click.echo(f"{kind.capitalize()} configuration deleted")


async def _import(where: Where, kind: str, name: str, saving: Saving, output: str | None) -> None:
    from lablease.cli.cluster import open_cluster

    async with open_cluster(where.kubeconfig, where.context, where.namespace) as cluster:
        path = await _save(cluster, kind, name, saving)
    click.echo(str(path) if output == "path" else f"{kind.capitalize()} configuration saved to {path}")


async def _rotate(where: Where, name: str, saving: Saving, output: str | None) -> None:
    from lablease.cli.cluster import open_cluster

    async with open_cluster(where.kubeconfig, where.context, where.namespace) as cluster:
        await cluster.rotate(name)
        click.echo(f"client.jumpstarter.dev/{name}" if output == "name" else f"Token rotated for client '{name}'")
        if saving.save or saving.out:
            path = await _save(cluster, "client", name, saving)
            if output is None:
                click.echo(f"Client configuration saved to {path}")


async def _save(cluster: Cluster, kind: str, name: str, saving: Saving) -> Path:
    """Write a config file; a client's becomes the current one if there is no other."""
    from lablease.cli.cluster import resource_named
    from lablease.client.config import list_clients, read_user, use_client, write_client, write_private

    access = await cluster.access(resource_named(kind), name)
    path = (saving.out or _usual_path(kind, name)).absolute()
    if kind == "exporter":
        write_private(path, _exporter_config(cluster.namespace, name, access, saving))
        return path
    write_client(path, _client_config(cluster.namespace, name, access, saving, path))
    if saving.out is None and list_clients() == (name,) and read_user().config.current_client is None:
        use_client(name)
    return path


def _client_config(namespace: str, name: str, access: Access, saving: Saving, path: Path) -> Any:
    """Return a new config, or the one in the file with new access: what its owner has set there stays."""
    from lablease.client.config import ClientConfig, Drivers, Metadata, Tls, read_client

    tls = Tls(ca=access.ca, insecure=saving.insecure_tls)
    if path.exists():
        return read_client(path, {}).model_copy(update={"endpoint": access.endpoint, "token": access.token, "tls": tls})
    return ClientConfig(
        metadata=Metadata(namespace=namespace, name=name),
        endpoint=access.endpoint,
        token=access.token,
        tls=tls,
        drivers=Drivers(allow=[item for item in saving.allow.split(",") if item], unsafe=saving.unsafe),
    )


def _exporter_config(namespace: str, name: str, access: Access, saving: Saving) -> dict[str, Any]:
    return {
        "apiVersion": "jumpstarter.dev/v1alpha1",
        "kind": "ExporterConfig",
        "metadata": {"namespace": namespace, "name": name},
        "endpoint": access.endpoint,
        "tls": {"ca": access.ca, "insecure": saving.insecure_tls},
        "token": access.token,
        "export": {},
    }


def _forget(kind: str, name: str) -> None:
    from lablease.client.config import read_user, use_client

    _usual_path(kind, name).unlink(missing_ok=True)
    if kind == "client" and read_user().config.current_client == name:
        use_client(None)


def _usual_path(kind: str, name: str) -> Path:
    from lablease.client.config import client_path, config_home

    return client_path(name) if kind == "client" else config_home() / "exporters" / f"{name}.yaml"


def _show(kind: str, items: list[dict[str, Any]], output: str | None, *, one: bool) -> None:
    from lablease.cli import output as out
    from lablease.cli.objects import COLUMNS, row
    from lablease.clock import utc_now

    match output:
        case "name":
            out.print_names(f"{kind}.jumpstarter.dev/{item['metadata']['name']}" for item in items)
        case None:
            out.print_table(COLUMNS[kind], [row(kind, item, utc_now()) for item in items])
        case _:
            listing = {
                "apiVersion": "jumpstarter.dev/v1alpha1",
                "kind": f"{kind.capitalize()}List",
                "items": items,
            }
            out.print_data(items[0] if one else listing, output)
