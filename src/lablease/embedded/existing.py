"""Somebody's own cluster in the place of the embedded one: `lablease up --kubeconfig PATH`."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lablease.clock import utc_now
from lablease.embedded import kubeconfig, pki
from lablease.embedded.api import Api
from lablease.embedded.control_plane import hold, install
from lablease.embedded.errors import StartError
from lablease.embedded.paths import DataDir
from lablease.embedded.state import State, load_state, save_state
from lablease.embedded.supervise import Supervised


@dataclass(slots=True)
class ExistingCluster:
    """An API server that we neither start nor end; the rest is as with `ControlPlane`.

    Args:
        kubeconfig: of a user who may create CRDs, namespaces, roles and service-account tokens.
    """

    data: DataDir
    kubeconfig: Path
    lab: str | None = None
    on_event: Callable[[str, str], None] = lambda name, event: None
    audit_log: Path | None = None
    kubectl: Path | None = None
    processes: tuple[Supervised, ...] = ()
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _api: Api | None = None
    _state: State | None = None

    def start(self) -> None:
        """See that the API server answers.

        Raises:
            AlreadyRunning: another process holds this data directory.
            StartError: the API server does not answer, or not to this user.
        """
        with contextlib.ExitStack() as undo:
            hold(self.data, undo, self.on_event)
            self._state = load_state(self.data, self.lab)
            save_state(self.data, self._state)
            pki.ensure(self.data, utc_now())
            self._api = Api(kubeconfig.read(self.kubeconfig))
            said = self._api.ready()
            if said != "ok":
                raise StartError(f"the cluster of {self.kubeconfig} is not ready: {said}", "Is the kubeconfig right?")
            self._running = undo.pop_all()

    def stop(self) -> None:
        """Let go of the data directory."""
        self._running.close()

    def install(self) -> None:
        """Apply CRDs, accounts, RBAC and the CA of our services."""
        install(self.api, self.state.namespace, self.data.dev_ca.read_text())

    @property
    def api(self) -> Api:
        if self._api is None:
            raise RuntimeError("the cluster was not opened")
        return self._api

    @property
    def state(self) -> State:
        if self._state is None:
            raise RuntimeError("the cluster was not opened")
        return self._state
