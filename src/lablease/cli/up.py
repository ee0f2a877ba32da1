"""`lablease up`, `down` and `status`: the control plane on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lablease.embedded.paths import DataDir
    from lablease.embedded.status import Status

NOT_RUNNING = 3  # the status that `systemctl status` has for it too


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything is kept; a folder of $XDG_DATA_HOME/lablease unless given.",
)


@click.command()
@data_dir_option
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Use the cluster of this kubeconfig instead of an API server of our own.",
)
@click.option("--namespace", help="Namespace of the lab: the one of the last start, `lab` at first.")
@click.option("--api-port", type=click.IntRange(1, 65535), help="Port of the API server; remembered.")
@click.option("--foreground/--detach", default=False, help="Stay, and stop with Ctrl-C; or return when all is ready.")
@click.option("--services/--no-services", default=True, help="With operator, front end and router, or without.")
@click.option(
    "--demo/--no-demo", default=None, help="With a demo board and a client; by default on a server of our own."
)
def up(
    data_dir: Path | None,
    kubeconfig: Path | None,
    namespace: str | None,
    api_port: int | None,
    foreground: bool,
    services: bool,
    demo: bool | None,
) -> None:
    """Start a control plane on this machine: etcd, kube-apiserver, operator, front end and router.

    The first start builds etcd and kube-apiserver, which takes some minutes, unless KUBEBUILDER_ASSETS or PATH has
    them. A second `lablease up` shows where the first one runs.

    \b
    lablease up
    kubectl --kubeconfig "$(lablease status -o json | jq -r .kubeconfig)" get leases.jumpstarter.dev
    lablease down
    """
    from lablease.embedded import gobuild, launch
    from lablease.embedded.main import Options, run
    from lablease.embedded.paths import cache_dir

    data = _data(data_dir)
    options = Options(
        data.root,
        kubeconfig and kubeconfig.absolute(),
        namespace,
        api_port,
        services,
        _with_demo(demo, services, kubeconfig),
    )
    with _progress() as progress:
        if _runs_already(data):
            return
        if kubeconfig is None:
            gobuild.ensure(cache_dir(), progress.build)
        if foreground:
            run(options, progress.line, lambda found: progress.finish(found, "ready; Ctrl-C stops it"))
            click.echo("stopped")
        else:
            progress.finish(launch.start_detached(options, progress.line))


@click.command()
@data_dir_option
@click.option("--purge", is_flag=True, help="Also delete all data: leases, keys, certificates, audit log.")
def down(data_dir: Path | None, purge: bool) -> None:
    """Stop what `lablease up` started; everything is there again at the next start, unless purged."""
    from lablease.embedded import launch

    data = _data(data_dir)
    click.echo("stopped" if launch.shut_down(data) else "nothing runs")
    if purge:
        launch.purge(data)
        click.echo(f"deleted {data.root}")


@click.command()
@data_dir_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="json: for programs.")
def status(data_dir: Path | None, output: str) -> None:
    """Show what runs, and where.

    Exits with 0 if all is well, 1 if a part is down, 3 if nothing runs.
    """
    from lablease.embedded import status as embedded_status
    from lablease.embedded.process import is_locked

    data = _data(data_dir)
    found = embedded_status.read_status(data)
    if found is None:
        phase = "starting" if is_locked(data.lock) else "stopped"
        click.echo(json.dumps({"phase": phase, "data_dir": str(data.root)}) if output == "json" else phase)
        sys.exit(1 if phase == "starting" else NOT_RUNNING)
    wrong = embedded_status.problems(found)
    if output == "json":
        click.echo(found.to_json(wrong))
    else:
        _show(found, wrong)
    sys.exit(1 if wrong else 0)


def _data(data_dir: Path | None) -> DataDir:
    from lablease.embedded.paths import DataDir, default_data_dir

    return DataDir((data_dir or default_data_dir()).absolute())


def _with_demo(asked: bool | None, services: bool, kubeconfig: Path | None) -> bool:
    if asked and not services:
        raise click.UsageError("--demo needs the services: leave out --no-services")
    return services and kubeconfig is None if asked is None else asked


def _runs_already(data: DataDir) -> bool:
    from lablease.embedded.process import is_locked
    from lablease.embedded.status import read_status

    if not is_locked(data.lock):
        return False
    found = read_status(data)
    if found is None:
        click.echo(f"another `lablease up` is starting in {data.root}")
    else:
        click.echo(f"it runs already, since {found.since:%Y-%m-%d %H:%M:%S} UTC (pid {found.supervisor.pid})")
        _where(found)
    return True


def _where(found: Status) -> None:
    from lablease.embedded import demo

    click.echo(f"  API server  {found.url}")
    if found.kubectl is None:
        click.echo(f"  kubeconfig  {found.kubeconfig}")
    else:
        click.echo(f"  kubectl     {found.kubectl} --kubeconfig {found.kubeconfig}")
    click.echo(f"  namespace   {found.namespace}")
    if "frontend-grpc" in found.ports:
        click.echo(f"  front end   localhost:{found.ports['frontend-grpc']}  (CA {found.service_ca})")
    if found.audit_log is not None:
        click.echo(f"  audit log   {found.audit_log}")
    if any(process.name == demo.BOARD for process in found.processes):
        config = demo.lab(found.logs.parent).client_config
        click.echo(
            f"  try         lablease shell --client-config {config} -l {demo.SELECTOR} -- lablease call power on"
        )


def _show(found: Status, wrong: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    click.echo(f"{found.phase} since {found.since:%Y-%m-%d %H:%M:%S} UTC (pid {found.supervisor.pid})")
    _where(found)
    click.echo(f"  logs        {found.logs}")
    table = Table("process", "state", "pid", "restarts", box=None, header_style="bold")
    for name in sorted(wrong.keys() - {process.name for process in found.processes}):
        click.echo(f"  {name}: {wrong[name]}")
    for process in found.processes:
        state = f"[red]{escape(wrong[process.name])}[/]" if process.name in wrong else "[green]ready[/]"
        pid = str(process.process.pid) if process.process and process.alive else ""
        table.add_row(process.name, state, pid, str(process.restarts))
    Console(soft_wrap=True).print(table)


class _Progress:
    """A spinner with a bar on a terminal; elsewhere a line per step, and per tenth of a build."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._last = ("", 0)
        self._live: Progress | None = None
        if sys.stderr.isatty():
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._live = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._live.add_task("starting", total=None)
            self._live.start()

    def build(self, step: str, done: int, total: int) -> None:
        if self._live is not None:
            if not done:
                self._live.console.print(step, style="dim", highlight=False)
            self._live.update(self._task, description=step, completed=done, total=total or None)
            return
        tenth = done * 10 // total if total else 0
        if self._last != (step, tenth):
            self._last = (step, tenth)
            click.echo(f"{step} ({done} of {total})" if total else step, err=True)

    def line(self, step: str) -> None:
        self.build(step, 0, 0)

    def finish(self, found: Status, said: str = "ready") -> None:
        self.close()
        click.echo(said)
        _where(found)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


@contextmanager
def _progress() -> Generator[_Progress]:
    progress = _Progress()
    try:
        yield progress
    finally:
        progress.close()
