"""One etcd and one kube-apiserver on loopback, kept running until they are stopped."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from lablease.clock import utc_now
from lablease.embedded import api, commands, kubeconfig, pki, resources
from lablease.embedded.accounts import write_account
from lablease.embedded.binaries import Found
from lablease.embedded.errors import EmbeddedError, StartError
from lablease.embedded.paths import DataDir, free_bytes, write_private
from lablease.embedded.process import claim, locked, stop_orphans
from lablease.embedded.state import API_SERVER, State, check_version, claim_port, load_state, save_state
from lablease.embedded.supervise import Command, Supervised, log_tail
from lablease.embedded.tree import Object, mapping, text
from lablease.embedded.versions import ETCD_SERVER, KUBE_APISERVER, KUBECTL, Binary

READY_PATIENCE_SECONDS = 60.0
NEEDED_BYTES = 512 * 1024**2  # two write-ahead files of 64 MB, a database of some size, the audit log for a while
STOP_ORDER = ("kube-apiserver", "etcd")
_POLL_SECONDS = 0.05


class AlreadyRunning(EmbeddedError):
    """A supervisor holds the data directory."""


def hold(data: DataDir, undo: contextlib.ExitStack, on_event: Callable[[str, str], None]) -> None:
    """Become the only one who works in a data directory, until `undo` runs; end what a dead predecessor left running.

    Raises:
        AlreadyRunning: another process holds it.
    """
    data.make()
    if not undo.enter_context(locked(data.lock)):
        raise AlreadyRunning(f"a control plane runs in {data.root} already", "`lablease status` shows it.")
    claim(data.lock)
    for name in stop_orphans(data.run, STOP_ORDER):
        on_event(name, "was left behind by a supervisor that died; ended")


@dataclass(slots=True)
class ControlPlane:
    """An API server and its etcd, with everything in one data directory.

    Used as a context manager, or with `start` and `stop`. After `kill -9` of either process it starts that one again;
    after `kill -9` of the process that holds this object, the next `start` ends what was left and goes on.

    Args:
        binaries: what `binaries.search` or `gobuild.ensure` found.
        namespace: of the lab; None keeps what the data directory remembers, `lab` at first.
        api_port: None keeps the remembered port, a free one at first.
        on_event: told about starts and exits, `(process, what happened)`; called in other threads.
    """

    data: DataDir
    binaries: Mapping[Binary, Found]
    lab: str | None = None
    api_port: int | None = None
    on_event: Callable[[str, str], None] = lambda name, event: None
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _etcd: Supervised | None = None
    _api_server: Supervised | None = None
    _api: api.Api | None = None
    _state: State | None = None

    def start(self) -> None:
        """Start both and wait until the API server is ready; afterwards nothing of ours is in it yet.

        Raises:
            AlreadyRunning: another process holds this data directory.
            PortTaken, ForeignData: see `state`.
            StartError: a process did not become ready within a minute; its last log lines are in the message.
        """
        with contextlib.ExitStack() as undo:
            self._start(undo)
            self._running = undo.pop_all()

    def _start(self, undo: contextlib.ExitStack) -> None:
        hold(self.data, undo, self.on_event)
        require_space(self.data)
        etcd, server = self.binaries[ETCD_SERVER], self.binaries[KUBE_APISERVER]
        check_version(self.data, server.version, etcd.version)
        state = load_state(self.data, self.lab)
        port = claim_port(state, API_SERVER, self.api_port, "--api-port")
        save_state(self.data, state)
        self._state = state
        keys = pki.ensure(self.data, utc_now())
        write_private(self.data.audit_policy, commands.audit_policy())
        access = kubeconfig.Access(
            server=f"https://127.0.0.1:{port}",
            ca=keys.ca.cert.read_bytes(),
            client=(keys.admin.cert.read_bytes(), keys.admin.key.read_bytes()),
        )
        self._api = api.Api(access)
        kubeconfig.write(self.data.kubeconfig, access, "lablease-admin", state.namespace)
        self._etcd = self._supervise(undo, ETCD_SERVER, commands.etcd(etcd.path, self.data))
        self._api_server = self._supervise(
            undo, KUBE_APISERVER, commands.kube_apiserver(server.path, self.data, keys, port)
        )
        try:
            self.wait_ready()
        except StartError:
            # While it waits for etcd the API server ignores SIGTERM, and it has nothing to lose yet.
            self._api_server.stop(patience_seconds=0.5)
            raise

    def _supervise(self, undo: contextlib.ExitStack, name: str, argv: list[str]) -> Supervised:
        command = Command(name, argv, commands.environment(os.environ), self.data.root, self.data.logs / f"{name}.log")
        process = Supervised(command, self.data.run / f"{name}.json", self.on_event)
        process.start()
        undo.callback(process.stop)
        return process

    def stop(self) -> None:
        """End the API server, then etcd; harmless when nothing runs."""
        self._running.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def api(self) -> api.Api:
        """As cluster admin."""
        if self._api is None:
            raise RuntimeError("the control plane was not started")
        return self._api

    @property
    def url(self) -> str:
        return self.api.access.server

    @property
    def namespace(self) -> str:
        """The lab's namespace."""
        return self.state.namespace

    @property
    def state(self) -> State:
        """Ports and namespace; whoever adds a port saves it with `state.save_state`."""
        if self._state is None:
            raise RuntimeError("the control plane was not started")
        return self._state

    @property
    def kubeconfig(self) -> Path:
        """Cluster admin; the file has mode 0600."""
        return self.data.kubeconfig

    @property
    def audit_log(self) -> Path:
        """JSON lines; rotated at 100 MB to `audit-<time>.log` beside it, ten of which are kept."""
        return self.data.audit_log

    @property
    def kubectl(self) -> Path | None:
        """One that fits the API server."""
        found = self.binaries.get(KUBECTL)
        return found.path if found is not None else None

    @property
    def processes(self) -> tuple[Supervised, ...]:
        return tuple(process for process in (self._etcd, self._api_server) if process is not None)

    def wait_ready(self, patience_seconds: float = READY_PATIENCE_SECONDS) -> None:
        """Wait until the API server answers that it is ready.

        Raises:
            StartError: it did not in time; the message has its last log lines.
        """
        deadline = time.monotonic() + patience_seconds
        while (said := self.api.ready()) != "ok":
            ended = [process for process in self.processes if process.restarts > 2]
            if ended or time.monotonic() > deadline:
                process = ended[0] if ended else self.processes[-1]
                raise start_error(process, f"the API server did not become ready: {said}")
            time.sleep(_POLL_SECONDS)

    def apply(self, paths: Iterable[Path]) -> None:
        """Server-side apply the YAML files (of a folder: the `*.yaml` in it); CRDs are served when this returns."""
        self.api.apply(api.load_manifests(paths))

    def install(self) -> None:
        """Apply what ships with the package: CRDs, accounts, RBAC, and what clients look for in the lab namespace."""
        install(self.api, self.namespace, self.data.dev_ca.read_text())

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Return a kubeconfig of a service account with a token of one hour; the account is created if need be."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}}
        if self.api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}") is None:
            self.api.apply([account])
        return write_account(self.api, self.data.accounts, namespace, name, self.namespace)

    def kill_etcd(self) -> int:
        """`kill -9` etcd; it is started again. Returns the pid that was."""
        return _kill(self._etcd)

    def kill_apiserver(self) -> int:
        """`kill -9` the API server; it is started again. Returns the pid that was."""
        return _kill(self._api_server)


def require_space(data: DataDir) -> None:
    """Refuse to start on a full disk: etcd would stop in the middle of a write.

    Raises:
        EmbeddedError: less than 512 MiB are free.
    """
    free = free_bytes(data.root)
    if free < NEEDED_BYTES:
        raise EmbeddedError(
            f"{data.root} is on a disk with {free // 1024**2} MiB free; {NEEDED_BYTES // 1024**2} MiB are needed",
            "Free some space, or choose another disk with --data-dir.",
        )


def start_error(process: Supervised, problem: str) -> StartError:
    """Return the error of a process that is not ready, with the end of its log."""
    log = process.command.log
    tail = log_tail(log)
    return StartError(problem, f"The end of {log}:\n{tail}" if tail else f"Its log {log} is empty.")


def install(server: api.Api, namespace: str, service_ca: str) -> None:
    """Apply CRDs, namespaces, accounts and RBAC, and the CA that `jmp admin` puts in the configs it writes.

    The manifests name the lab's namespace `lab`; another name is put in its place.
    """
    objects = api.load_manifests([resources.CRDS, *resources.MANIFEST_FOLDERS])
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "jumpstarter-service-ca-cert", "namespace": namespace},
        "data": {"ca.crt": service_ca},
    }
    server.apply([*(move(item, "lab", namespace) for item in objects), config_map])


def move(item: Object, from_namespace: str, to_namespace: str) -> Object:
    """Return the object with one namespace name replaced: where it lives, and its own name if it is that namespace."""
    metadata = dict(mapping(item, "metadata"))
    if metadata.get("namespace") == from_namespace:
        metadata["namespace"] = to_namespace
    if text(item, "kind") == "Namespace" and metadata.get("name") == from_namespace:
        metadata["name"] = to_namespace
    return {**item, "metadata": metadata}


def _kill(process: Supervised | None) -> int:
    if process is None or process.identity is None:
        raise RuntimeError("the process does not run")
    pid = process.identity.pid
    os.kill(pid, signal.SIGKILL)
    return pid
