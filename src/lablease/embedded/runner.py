"""What `lablease up` runs: a control plane and our services, until it is told to stop."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lablease.clock import utc_now
from lablease.embedded import demo
from lablease.embedded.accounts import Renewals, write_account
from lablease.embedded.control_plane import ControlPlane, start_error
from lablease.embedded.existing import ExistingCluster
from lablease.embedded.paths import DataDir
from lablease.embedded.process import Identity, start_time
from lablease.embedded.services import (
    SYSTEM_NAMESPACE,
    HttpOk,
    Service,
    claim_ports,
    demo_board,
    ensure_router_key,
    table,
)
from lablease.embedded.state import PortName, save_state
from lablease.embedded.status import Phase, Shown, Status, write_status
from lablease.embedded.supervise import Command, Supervised

SERVICE_PATIENCE_SECONDS = 30.0
_WAKE_SECONDS = 20.0  # how often tokens are looked at; a sleeping laptop makes longer waits meaningless
_POLL_SECONDS = 0.05

Table = Callable[[DataDir, str, Mapping[PortName, int]], tuple[Service, ...]]


@dataclass(slots=True)
class Runner:
    """One `lablease up`.

    Args:
        services: the table of services; None runs none of them.
        demo: with a demo board, its agent and a client; needs the services.
        report: told each step, one line.
    """

    cluster: ControlPlane | ExistingCluster
    services: Table | None = table
    demo: bool = False
    report: Callable[[str], None] = lambda line: None
    _stop: threading.Event = field(default_factory=threading.Event)
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _running: list[tuple[Service, Supervised]] = field(default_factory=list[tuple[Service, Supervised]])
    _events: dict[str, str] = field(default_factory=dict[str, str])
    _phase: Phase = Phase.STARTING
    _began: datetime = field(default_factory=utc_now)

    def run(self, on_ready: Callable[[Status], None]) -> None:
        """Start everything, say so, and work until `stop` is called.

        Raises:
            EmbeddedError: something did not start; all that had started was ended again.
        """
        self.cluster.on_event = self._event
        with contextlib.ExitStack() as undo:
            self.report("starting the API server")
            self.cluster.start()
            undo.callback(self.cluster.stop)
            undo.callback(self._enter, Phase.STOPPING)
            self._enter(Phase.STARTING)
            self.report("applying CRDs, accounts and roles")
            self.cluster.install()
            renewals = self._start_services(undo)
            self._enter(Phase.READY)
            on_ready(self.status())
            while not self._stop.wait(_WAKE_SECONDS):
                renewals.run(utc_now())

    def stop(self) -> None:
        """End `run`; safe to call from a signal handler, and more than once."""
        self._stop.set()

    def _start_services(self, undo: contextlib.ExitStack) -> Renewals:
        renewals = Renewals(self._renew, self._event)
        if self.services is None:
            return renewals
        data, state = self.cluster.data, self.cluster.state
        ensure_router_key(data)
        ports = claim_ports(state)
        save_state(data, state)
        for service in self.services(data, state.namespace, ports):
            if service.account is not None:
                self._renew(service.account)
                renewals.add([service.account], utc_now())
            self._start(service, undo)
        if self.demo:
            self.report("setting up the demo board")
            self._start(demo_board(demo.install(self.cluster.api, state.namespace, data).exporter_config), undo)
        self._await_services()
        return renewals

    def _start(self, service: Service, undo: contextlib.ExitStack) -> None:
        process = Supervised(self._command(service), self.cluster.data.run / f"{service.name}.json", self._event)
        process.start()
        undo.callback(process.stop)
        self._running.append((service, process))

    def _command(self, service: Service) -> Command:
        data = self.cluster.data
        env = {**os.environ, **service.env}
        env.pop("KUBECONFIG", None)
        if service.account is not None:
            env["KUBECONFIG"] = str(data.accounts / f"{SYSTEM_NAMESPACE}.{service.account}.kubeconfig")
        return Command(service.name, service.argv, env, data.root, data.logs / f"{service.name}.log")

    def _renew(self, account: str) -> Path:
        data, state = self.cluster.data, self.cluster.state
        return write_account(self.cluster.api, data.accounts, SYSTEM_NAMESPACE, account, state.namespace)

    def _await_services(self) -> None:
        deadline = time.monotonic() + SERVICE_PATIENCE_SECONDS
        for service, process in self._running:
            while (
                service.ready is not None
                and (problem := service.ready.problem()) is not None
                and not self._stop.is_set()
            ):
                if process.restarts > 2 or time.monotonic() > deadline:
                    raise start_error(process, f"{service.name} did not become ready: {problem}")
                time.sleep(_POLL_SECONDS)

    def _event(self, name: str, event: str) -> None:
        self.report(f"{name} {event}")
        with self._writing:
            self._events[name] = event
        if self._phase is Phase.READY:
            self._write()

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._write()

    def _write(self) -> None:
        with self._writing:
            write_status(self.cluster.data, self.status())

    def status(self) -> Status:
        """Return what `lablease status` is to show now."""
        cluster = self.cluster
        probes = {s.name: s.ready.url for s, _ in self._running if isinstance(s.ready, HttpOk)}
        shown = [
            Shown(
                name=process.command.name,
                process=process.identity,
                restarts=process.restarts,
                log=process.command.log,
                last_event=self._events.get(process.command.name, ""),
                probe=probes.get(process.command.name, ""),
            )
            for process in [*cluster.processes, *(process for _, process in self._running)]
        ]
        return Status(
            phase=self._phase,
            supervisor=Identity(os.getpid(), start_time(os.getpid()) or ""),
            since=self._began,
            url=cluster.api.access.server,
            kubeconfig=cluster.kubeconfig,
            namespace=cluster.state.namespace,
            audit_log=cluster.audit_log,
            service_ca=cluster.data.dev_ca,
            logs=cluster.data.logs,
            kubectl=cluster.kubectl,
            ports=dict(cluster.state.ports),
            processes=tuple(shown),
        )
