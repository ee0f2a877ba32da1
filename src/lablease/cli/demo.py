"""``lablease demo``: the life of one lease, shown with the commands that anybody would type."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lablease.embedded.status import Status

PATIENCE = "30s"
CONSOLE_SECONDS = 2.0
"""How long the console is shown; the board boots in less."""
LEASE_SECONDS = 8
"""Of manifests/demo/lease.yaml."""


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running, to look around.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where it is kept; a temporary folder unless given.")
def demo(keep: bool, data_dir: Path | None) -> None:
    """Lease a demo board by manifest, use it, and see the lease end: in the API and on the wire.

    Starts a control plane of its own beside any that runs, and removes it at the end.
    """
    began = time.monotonic()
    root = data_dir.absolute() if data_dir else Path(tempfile.mkdtemp(prefix="lablease-demo-"))
    with _lab(root, keep) as stage:
        _act(stage)
        stage.how_to_look_further(keep)
    click.secho(f"\ndone in {time.monotonic() - began:.0f} s", bold=True)


class Stage:
    """Where the demo plays: runs commands, and shows each as it would be typed."""

    def __init__(self, found: Status, root: Path) -> None:
        from lablease.embedded import demo

        self.found = found
        self.root = root
        self.files = demo.lab(root)
        self.kubectl = str(found.kubectl or "kubectl")

    def say(self, text: str) -> None:
        click.secho(f"\n# {text}", fg="cyan", bold=True)

    def type(self, *arguments: str) -> None:
        click.secho(f"$ {shlex.join(arguments)}", bold=True)

    def kube(self, *arguments: str) -> str:
        """Run kubectl in the lab's namespace; what it prints is shown and returned."""
        self.type("kubectl", *arguments)
        command = [self.kubectl, "--kubeconfig", str(self.found.kubeconfig), "-n", self.found.namespace, *arguments]
        done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE)
        click.echo(done.stdout, nl=False)
        if done.returncode != 0:
            raise click.ClickException(f"kubectl {arguments[0]} failed with status {done.returncode}")
        return done.stdout

    def lablease(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of ours as the demo client, with its output on ours."""
        self.type("lablease", *arguments)
        command = [sys.executable, "-P", "-m", "lablease.cli.main", *arguments]
        environment = os.environ | {"JMP_CLIENT_CONFIG_HOME": str(self.root / "demo")}
        return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.DEVNULL)

    def how_to_look_further(self, keep: bool) -> None:
        """Say what else can be typed."""
        self.say(
            "look further" if keep else "with `lablease demo --keep`, or `lablease up`, everything stays, and you can:"
        )
        config, client = self.found.kubeconfig, self.files.client_config
        for line in (
            f"export KUBECONFIG={config}",
            f"kubectl -n {self.found.namespace} get exporters.jumpstarter.dev,leases.jumpstarter.dev",
            f"lablease shell --client-config {client} -l example.com/board=demo -- lablease call power on",
            f"jmp shell --client-config {client} -l example.com/board=demo   # the published client, as it is",
            f"lablease history --audit {self.found.audit_log} --device {self.files.device_log}",
            f"lablease down --data-dir {self.root} --purge",
        ):
            click.echo(f"  {line}")


@contextmanager
def _lab(root: Path, keep: bool) -> Generator[Stage]:
    from lablease.embedded.paths import DataDir
    from lablease.embedded.status import read_status

    up = [sys.executable, "-P", "-m", "lablease.cli.main", "up", "--data-dir", str(root)]
    down = [sys.executable, "-P", "-m", "lablease.cli.main", "down", "--data-dir", str(root), "--purge"]
    click.secho(f"$ lablease up --data-dir {root}", bold=True)
    if subprocess.run(up, check=False).returncode != 0:
        raise click.ClickException("the control plane did not start")
    try:
        found = read_status(DataDir(root))
        if found is None:
            raise click.ClickException(f"nothing runs in {root} although `lablease up` succeeded")
        yield Stage(found, root)
    finally:
        if not keep:
            click.secho(f"\n$ lablease down --data-dir {root} --purge", bold=True)
            subprocess.run(down, check=False)


def _act(stage: Stage) -> None:
    from lablease.embedded.resources import MANIFESTS

    manifest = MANIFESTS / "demo" / "lease.yaml"
    client = ("--lease", "demo", "--client-config", str(stage.files.client_config))
    stage.say("a board without hardware is on a lab host; its agent has registered")
    stage.kube("wait", "--for=condition=Online", f"--timeout={PATIENCE}", "exporters.jumpstarter.dev/demo-board")
    stage.kube("get", "exporters.jumpstarter.dev")
    stage.say("somebody asks for such a board, by manifest")
    click.echo(manifest.read_text("utf-8").partition("apiVersion")[2].join(["apiVersion", ""]))
    stage.kube("apply", "-f", str(manifest))
    stage.kube("wait", "--for=condition=Ready", f"--timeout={PATIENCE}", "leases.jumpstarter.dev/demo")
    granted = time.monotonic()
    stage.kube("get", "leases.jumpstarter.dev")
    stage.say("power on, through the tunnel, and the console of the board, as long as the lease lasts")
    _finish(stage.lablease("call", *client, "power", "on"), 0)
    console = stage.lablease("call", *client, "serial", "pipe", "--no-input")
    ended = threading.Event()
    threading.Thread(target=_tell_end, args=(console, ended), daemon=True).start()
    stage.kube("wait", "--for=condition=Ready=False", f"--timeout={PATIENCE}", "leases.jumpstarter.dev/demo")
    click.secho(f"  the lease ended {time.monotonic() - granted:.1f} s after it was granted", fg="green")
    if not ended.wait(timeout=1.0):
        console.kill()
        raise click.ClickException("the console still streams one second after the end of the lease")
    click.secho("  the console's stream was cut", fg="green")
    stage.say("the wire is dead")
    _finish(stage.lablease("call", *client, "power", "off"), 1)
    stage.kube(
        "get",
        "leases.jumpstarter.dev",
        "demo",
        "-o",
        'jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\\n"}{end}',
    )
    stage.kube(
        "wait",
        "--for=jsonpath={.status.exporterStatus}=Available",
        f"--timeout={PATIENCE}",
        "exporters.jumpstarter.dev/demo-board",
    )


def _finish(process: subprocess.Popen[str], expected: int) -> None:
    status = process.wait(timeout=60)
    if (status == 0) != (expected == 0):
        raise click.ClickException(f"the command ended with status {status}, not {expected}")


def _tell_end(process: subprocess.Popen[str], ended: threading.Event) -> None:
    process.wait()
    ended.set()
