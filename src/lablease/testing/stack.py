"""A whole lab on this machine: a real control plane, our three services, stock software and ours around them.

Every process runs with an environment of its own and, where it may see Kubernetes at all, its own service account.
"""

import base64
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lablease.embedded import kubeconfig, services
from lablease.embedded.control_plane import ControlPlane
from lablease.embedded.state import State
from lablease.embedded.testing import control_plane
from lablease.testing import configs
from lablease.testing.kube import Json, Kube, ended, is_true
from lablease.testing.processes import Finished, Process, Processes
from lablease.testing.upstream import Upstream, environment
from lablease.testing.waiting import eventually

SERVICE_PATIENCE_SECONDS = 30.0
CREDENTIAL_PATIENCE_SECONDS = 10.0
START_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Identity:
    """A Client or an Exporter that exists, and the token that speaks for it."""

    kind: str
    name: str
    token: str
    config: Path

    def __str__(self) -> str:
        return self.name


@dataclass(slots=True)
class Stack:
    """The lab. ``kube`` is the admin's view of it.

    Args:
        folder: for configs and logs.
        runtime: a short path, for unix sockets.
    """

    control: ControlPlane
    kube: Kube
    processes: Processes
    upstream: Upstream
    folder: Path
    runtime: Path
    ports: Mapping[Any, int]
    running: dict[str, Process] = field(default_factory=dict[str, Process])
    kept: set[str] = field(default_factory=set[str])
    """Names of processes that outlive the test that started them."""
    _specs: dict[str, tuple[Sequence[str], Mapping[str, str]]] = field(
        default_factory=dict[str, tuple[Sequence[str], Mapping[str, str]]]
    )
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def namespace(self) -> str:
        return self.kube.namespace

    @property
    def endpoint(self) -> str:
        """Where clients and exporters find the front end."""
        return f"localhost:{self.ports[services.FRONTEND_GRPC]}"

    @property
    def ca(self) -> bytes:
        return self.control.data.dev_ca.read_bytes()

    @property
    def device_log(self) -> Path:
        """Where every emulated device of this lab writes who called it."""
        return self.folder / "devices.jsonl"

    def device_calls(self, exporter: str) -> list[Json]:
        """Return what the devices of an exporter noted, oldest first."""
        lines = self.device_log.read_text().splitlines() if self.device_log.exists() else []
        return [line for line in map(json.loads, lines) if line["exporter"] == exporter]

    def name(self, stem: str) -> str:
        """Return a name that nobody else in this lab has."""
        return f"{stem}-{next(self._numbers)}"

    # ---- services ---------------------------------------------------------------------------------------------------

    def start_services(self, api_server: str | None = None) -> None:
        """Start operator, router and front end and wait until each answers.

        Args:
            api_server: URL that they use in place of the real one; they take no CA for it if it is plain HTTP.
        """
        services.ensure_router_key(self.control.data)
        for service in services.table(self.control.data, self.namespace, self.ports):
            env = {**_bare_environment(), **service.env, "HOME": str(self.folder)}
            if service.account is not None:
                path = self.control.service_account_kubeconfig(services.SYSTEM_NAMESPACE, service.account)
                env["KUBECONFIG"] = str(path if api_server is None else _redirected(path, api_server))
            self._specs[service.name] = (service.argv, env)
            self.start_service(service.name)
        for service in services.table(self.control.data, self.namespace, self.ports):
            self._await_ready(service)

    def start_service(self, name: str) -> Process:
        """Start one service, again if it was stopped."""
        argv, env = self._specs[name]
        self.running[name] = self.processes.start(name, argv, env)
        return self.running[name]

    def _await_ready(self, service: services.Service) -> None:
        process = self.running[service.name]

        def look() -> bool:
            assert process.alive, f"{process.name} ended ({process.popen.returncode}):\n{process.text()[-6000:]}"
            return service.ready is None or service.ready.problem() is None

        eventually(look, f"{service.name} is ready", SERVICE_PATIENCE_SECONDS)

    # ---- identities -------------------------------------------------------------------------------------------------

    def make_client(self, stem: str = "client", labels: Mapping[str, str] | None = None) -> Identity:
        """Create a Client, wait for its credential, write its config."""
        name = self.name(stem)
        self.kube.create("clients", configs.client(name, labels))
        token = self.await_token("clients", name)
        path = self.folder / "clients" / f"{name}.yaml"
        configs.client_config(path, self.namespace, name, self.endpoint, token, self.ca)
        return Identity("Client", name, token, path)

    def make_exporter(self, stem: str = "board", labels: Mapping[str, str] | None = None, **spec: object) -> Identity:
        """Create an Exporter and wait for its credential; a label ``board`` with its name is added.

        The config is written when its drivers are known: `start_stock_exporter`, `start_agent`.
        """
        name = self.name(stem)
        self.kube.create("exporters", configs.exporter(name, {"board": name, **(labels or {})}, **spec))
        token = self.await_token("exporters", name)
        return Identity("Exporter", name, token, self.folder / "exporters" / f"{name}.yaml")

    def await_token(self, plural: str, name: str) -> str:
        """Return the token of a Client or Exporter as soon as its status names the Secret."""
        shown = self.kube.until(
            plural,
            name,
            lambda item: item.get("status", {}).get("credential"),
            "credential",
            CREDENTIAL_PATIENCE_SECONDS,
        )
        secret = self.kube.get("secrets", shown["status"]["credential"]["name"])
        return base64.b64decode(secret["data"]["token"]).decode()

    # ---- exporters --------------------------------------------------------------------------------------------------

    def write_exporter(self, exporter: Identity, export: Mapping[str, Any], **more: Any) -> Path:
        """Write the config of an exporter; ``more`` goes to `configs.exporter_config`."""
        return configs.exporter_config(
            exporter.config, self.namespace, exporter.name, self.endpoint, exporter.token, self.ca, export, **more
        )

    def start_stock_exporter(self, exporter: Identity, export: Mapping[str, Any], **more: Any) -> Process:
        """Run ``jmp run`` and wait until the exporter can be leased."""
        path = self.write_exporter(exporter, export, **more)
        argv = [self.upstream.jmp, "run", "--exporter-config", str(path)]
        process = self.processes.start(f"jmp-run-{exporter}", argv, self.stock_environment())
        self.until_free(exporter.name, process)
        return process

    def start_agent(self, exporter: Identity, export: Mapping[str, Any], **more: Any) -> Process:
        """Run our agent and wait until the exporter can be leased."""
        path = self.write_exporter(exporter, export, **more)
        argv = [*LABLEASE, "exporter", "run", "--exporter-config", str(path)]
        process = self.processes.start(f"agent-{exporter}", argv, self.our_environment())
        self.until_free(exporter.name, process)
        return process

    def until_free(self, exporter: str, process: Process | None = None, within_seconds: float | None = None) -> Json:
        """Wait until an exporter is online, available and held by nobody."""

        def free(item: Json) -> bool:
            assert process is None or process.alive, f"{process} ended:\n{process.text()[-4000:]}"
            status = item.get("status", {})
            return (
                is_true(item, "Online")
                and is_true(item, "Registered")
                and status.get("exporterStatus") == "Available"
                and not status.get("leaseRef")
            )

        return self.kube.until("exporters", exporter, free, "free", within_seconds or START_PATIENCE_SECONDS)

    # ---- people -----------------------------------------------------------------------------------------------------

    def stock_environment(self) -> dict[str, str]:
        """Return the environment of stock commands; they may be used in any number at once."""
        return environment(self.upstream, self.folder / "home", self.runtime) | {"PYTHONPATH": str(SCRIPTS)}

    def our_environment(self) -> dict[str, str]:
        """Return the environment of our commands, which know nothing of Kubernetes either."""
        return {
            **_bare_environment(),
            "HOME": str(self.folder / "home"),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "TMPDIR": str(self.runtime),
            "LABLEASE_DRIVER_PYTHON": self.upstream.python,
            "PYTHONPATH": str(SCRIPTS),
        }

    def jmp(self, *arguments: str, within_seconds: float = 60.0, stdin: str = "") -> Finished:
        """Run a stock ``jmp`` command to its end."""
        return self.processes.run([self.upstream.jmp, *arguments], self.stock_environment(), within_seconds, stdin)

    def shell(self, client: Identity, *arguments: str, within_seconds: float = 90.0) -> Finished:
        """Run ``jmp shell`` of a client, ``arguments`` being its options, then ``--`` and the command."""
        return self.jmp("shell", "--client-config", str(client.config), *arguments, within_seconds=within_seconds)

    def admin(self, *arguments: str, within_seconds: float = 60.0, stdin: str = "") -> Finished:
        """Run ``jmp admin`` as the cluster's admin."""
        kubeconfig_options = ["--kubeconfig", str(self.control.kubeconfig), "-n", self.namespace]
        verb = [*arguments[:2], *kubeconfig_options, *arguments[2:]]
        return self.jmp("admin", *verb, within_seconds=within_seconds, stdin=stdin)

    def lablease(self, *arguments: str, within_seconds: float = 60.0) -> Finished:
        """Run our command to its end."""
        return self.processes.run([*LABLEASE, *arguments], self.our_environment(), within_seconds)

    def kubectl(self, *arguments: str, stdin: str = "", within_seconds: float = 30.0) -> Finished:
        """Run kubectl as the cluster's admin, in the lab's namespace."""
        argv = ["kubectl", "--kubeconfig", str(self.control.kubeconfig), *arguments]
        env = {**_bare_environment(), "HOME": str(self.folder / "home")}
        return self.processes.run(argv, env, within_seconds, stdin)

    # ---- leases -----------------------------------------------------------------------------------------------------

    def apply(self, *items: Mapping[str, Any]) -> None:
        """``kubectl apply`` manifests."""
        self.kubectl("apply", "-f", "-", stdin="---\n".join(yaml.safe_dump(dict(item)) for item in items)).ok()

    def create_lease(self, client: Identity, selector: Mapping[str, str] | None = None, **spec: object) -> str:
        """Create a Lease through the API and return its name."""
        name = self.name("lease")
        self.kube.create("leases", configs.lease(name, client.name, selector, **spec))
        return name

    def until_ready(self, lease: str, within_seconds: float = 15.0) -> Json:
        """Wait until a lease is granted."""
        return self.kube.until("leases", lease, lambda item: is_true(item, "Ready"), "Ready", within_seconds)

    def until_ended(self, lease: str, within_seconds: float = 15.0) -> Json:
        """Wait until a lease has ended."""
        return self.kube.until("leases", lease, ended, "ended", within_seconds)

    def release(self, lease: str) -> None:
        """End a lease as its author may."""
        self.kube.patch("leases", lease, {"spec": {"release": True}})


LABLEASE = services.python_module("lablease.cli.main")
SCRIPTS = Path(__file__).resolve().parents[3] / "tests" / "e2e" / "scripts"


def _bare_environment() -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }


def _redirected(path: Path, server: str) -> Path:
    content = yaml.safe_load(path.read_text())
    content["clusters"][0]["cluster"] = {"server": server}
    redirected = path.with_suffix(".redirected")
    redirected.write_text(yaml.safe_dump(content))
    redirected.chmod(0o600)
    return redirected


@contextlib.contextmanager
def lab(folder: Path, runtime: Path, upstream: Upstream) -> Generator[Stack]:
    """Bring up a control plane with fresh data; the services are not started yet.

    At the end everything that was started through the stack is ended, then the control plane.
    """
    for name in ("home", "clients", "exporters"):
        (folder / name).mkdir(parents=True)
    with control_plane(folder / "control-plane") as control:
        stack = Stack(
            control=control,
            kube=Kube(kubeconfig.read(control.kubeconfig), control.namespace),
            processes=Processes(folder),
            upstream=upstream,
            folder=folder,
            runtime=runtime,
            ports=services.claim_ports(State(control.namespace)),
        )
        try:
            yield stack
        finally:
            stack.processes.stop_all()
