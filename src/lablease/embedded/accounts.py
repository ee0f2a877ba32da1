"""Kubeconfigs of service accounts, each with a token file that is renewed while its reader runs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from lablease.embedded import kubeconfig
from lablease.embedded.api import Api
from lablease.embedded.errors import ApiError
from lablease.embedded.paths import write_private

TOKEN_LIFETIME = timedelta(hours=1)
RENEW_AFTER = TOKEN_LIFETIME / 2
RETRY_AFTER = timedelta(seconds=10)


def write_account(server: Api, folder: Path, namespace: str, name: str, default_namespace: str) -> Path:
    """Write a fresh token of a service account and a kubeconfig that names the token file; return the kubeconfig.

    A process that holds the kubeconfig goes on with a renewed token as soon as it reads the token file again.

    Raises:
        ApiError: no token was given.
    """
    token_file = folder / f"{namespace}.{name}.token"
    write_private(token_file, server.token(namespace, name, TOKEN_LIFETIME) + "\n")
    access = kubeconfig.Access(
        server.access.server, server.access.ca, token_file=token_file, verify=server.access.verify
    )
    path = folder / f"{namespace}.{name}.kubeconfig"
    kubeconfig.write(path, access, f"{namespace}:{name}", default_namespace)
    return path


@dataclass(slots=True)
class Renewals:
    """When the token of which account is due.

    Instants are wall-clock time: a token also grows old while the machine sleeps.
    """

    renew: Callable[[str], Path]
    on_event: Callable[[str, str], None]
    _due: dict[str, datetime] = field(default_factory=dict[str, datetime])

    def add(self, accounts: Iterable[str], now: datetime) -> None:
        """Take over accounts whose tokens were written just now."""
        for account in accounts:
            self._due[account] = now + RENEW_AFTER

    def run(self, now: datetime) -> None:
        """Renew what is due; what fails is tried again soon, half a lifetime before it would hurt."""
        for account, due in self._due.items():
            if due > now:
                continue
            try:
                self.renew(account)
                self._due[account] = now + RENEW_AFTER
            except ApiError as refused:
                self.on_event(account, f"its token could not be renewed: {refused.problem}")
                self._due[account] = now + RETRY_AFTER
