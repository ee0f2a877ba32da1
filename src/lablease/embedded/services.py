"""The table of our services as `lablease up` runs them: everything about them that the supervisor knows."""

import json
import secrets
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lablease.embedded.demo import BOARD
from lablease.embedded.paths import DataDir, write_private
from lablease.embedded.state import PortName, State, claim_port

SYSTEM_NAMESPACE = "lablease-system"
HOST = "127.0.0.1"
ROUTER_KEY_BYTES = 32

FRONTEND_GRPC = PortName("frontend-grpc")
FRONTEND_HTTP = PortName("frontend-http")
FRONTEND_PRIVATE = PortName("frontend-private")
ROUTER_GRPC = PortName("router-grpc")
ROUTER_PRIVATE = PortName("router-private")
OPERATOR_PRIVATE = PortName("operator-private")
SERVICE_PORTS = (FRONTEND_GRPC, FRONTEND_HTTP, FRONTEND_PRIVATE, ROUTER_GRPC, ROUTER_PRIVATE, OPERATOR_PRIVATE)


@dataclass(frozen=True, slots=True)
class PortOpen:
    """Ready as soon as something accepts connections."""

    port: int

    def problem(self) -> str | None:
        try:
            with socket.create_connection((HOST, self.port), timeout=2):
                return None
        except OSError as refused:
            return f"port {self.port}: {refused.strerror or refused}"


@dataclass(frozen=True, slots=True)
class HttpOk:
    """Ready as soon as the URL answers 200."""

    url: str

    def problem(self) -> str | None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: never through a proxy
        try:
            with opener.open(self.url, timeout=2) as answer:
                return None if answer.status == 200 else f"{self.url}: {answer.status}"
        except urllib.error.HTTPError as refused:
            return f"{self.url}: {refused.code}"
        except OSError as refused:
            return f"{self.url}: {getattr(refused, 'reason', refused)}"


Check = PortOpen | HttpOk


@dataclass(frozen=True, slots=True)
class Service:
    """One process of ours.

    Args:
        argv: of the whole process, the interpreter included.
        env: added to the environment of `lablease up`.
        ready: None where that it lives is all that can be seen.
        account: name of its service account in `lablease-system`; None gives it no access to Kubernetes at all.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    ready: Check | None
    account: str | None = None


def claim_ports(state: State) -> Mapping[PortName, int]:
    """Return a port for each listener of our services; the state remembers them.

    Raises:
        PortTaken: a remembered port is used by another process.
    """
    return {
        name: claim_port(state, name, None, "--data-dir, or remove it from state.json there") for name in SERVICE_PORTS
    }


def ensure_router_key(data: DataDir) -> Path:
    """Make the key that front ends and routers share, once."""
    if not data.router_key.exists():
        write_private(data.router_key, secrets.token_bytes(ROUTER_KEY_BYTES))
    return data.router_key


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """Return a command line that runs a module with this interpreter (`-P`: the working directory is not imported)."""
    return (sys.executable, "-P", "-m", module, *arguments)


def table(data: DataDir, namespace: str, ports: Mapping[PortName, int]) -> tuple[Service, ...]:
    """Return the services in the order in which they are started; they are ended in the opposite one."""
    common = {"PYTHONUNBUFFERED": "1"}
    frontend, router = f"localhost:{ports[FRONTEND_GRPC]}", f"localhost:{ports[ROUTER_GRPC]}"
    return (
        Service(
            name="operator",
            argv=python_module("lablease.cli.main", "operator"),
            env={
                **common,
                "LABLEASE_OPERATOR_NAMESPACE": json.dumps([namespace]),
                "LABLEASE_OPERATOR_SYSTEM_NAMESPACE": SYSTEM_NAMESPACE,
                "LABLEASE_OPERATOR_ENDPOINT": frontend,
                "LABLEASE_OPERATOR_METRICS": f"{HOST}:{ports[OPERATOR_PRIVATE]}",
            },
            ready=HttpOk(f"http://{HOST}:{ports[OPERATOR_PRIVATE]}/readyz"),
            account="lablease-operator",
        ),
        Service(
            name="router",
            argv=python_module("lablease.cli.main", "router"),
            env={
                **common,
                "LABLEASE_ROUTER_KEY_FILE": str(data.router_key),
                "LABLEASE_ROUTER_LISTEN": f"{HOST}:{ports[ROUTER_GRPC]}",
                "LABLEASE_ROUTER_METRICS": f"{HOST}:{ports[ROUTER_PRIVATE]}",
                "LABLEASE_ROUTER_NAME": router,
                "LABLEASE_ROUTER_TLS_CERT": str(data.dev_cert),
                "LABLEASE_ROUTER_TLS_KEY": str(data.dev_key),
            },
            ready=HttpOk(f"http://{HOST}:{ports[ROUTER_PRIVATE]}/readyz"),
        ),
        Service(
            name="frontend",
            argv=python_module("lablease.cli.main", "frontend"),
            env={
                **common,
                "LABLEASE_FRONTEND_NAMESPACE": namespace,
                "LABLEASE_FRONTEND_SYSTEM_NAMESPACE": SYSTEM_NAMESPACE,
                "LABLEASE_FRONTEND_LISTEN": f"{HOST}:{ports[FRONTEND_GRPC]}",
                "LABLEASE_FRONTEND_PUBLIC_HTTP": f"{HOST}:{ports[FRONTEND_HTTP]}",
                "LABLEASE_FRONTEND_PRIVATE_HTTP": f"{HOST}:{ports[FRONTEND_PRIVATE]}",
                "LABLEASE_FRONTEND_ENDPOINT": frontend,
                "LABLEASE_FRONTEND_ROUTER": json.dumps([router]),
                "LABLEASE_FRONTEND_ROUTER_KEY_FILE": str(data.router_key),
                "LABLEASE_FRONTEND_ROUTER_CA": str(data.dev_ca),
                "LABLEASE_FRONTEND_CA_BUNDLE": str(data.dev_ca),
                "LABLEASE_FRONTEND_TLS_CERT": str(data.dev_cert),
                "LABLEASE_FRONTEND_TLS_KEY": str(data.dev_key),
            },
            ready=HttpOk(f"http://{HOST}:{ports[FRONTEND_PRIVATE]}/readyz"),
            account="lablease-frontend",
        ),
    )


def demo_board(config: Path) -> Service:
    """Return the agent of the demo board, as it runs on any lab host: it knows a config file and nothing else."""
    return Service(
        name=BOARD,
        argv=python_module("lablease.cli.main", "exporter", "run", "--exporter-config", str(config)),
        env={"PYTHONUNBUFFERED": "1"},
        ready=None,
    )
