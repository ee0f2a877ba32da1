"""What one control plane remembers between two starts: versions of its data, ports, namespace."""

import json
import socket
from dataclasses import asdict, dataclass, field
from typing import NewType

from lablease.embedded.errors import EmbeddedError, ForeignData, PortTaken
from lablease.embedded.paths import DataDir, write_private
from lablease.embedded.versions import LAYOUT, Version, data_refusal, parse

PortName = NewType("PortName", str)
API_SERVER = PortName("kube-apiserver")


@dataclass(slots=True)
class State:
    """Content of `state.json`; a port is chosen once and kept."""

    namespace: str
    ports: dict[str, int] = field(default_factory=dict[str, int])


def load_state(data: DataDir, namespace: str | None) -> State:
    """Read the state, or begin one.

    Args:
        namespace: of the lab; None keeps the one of the first start, which is `lab` unless said otherwise.

    Raises:
        EmbeddedError: the file is damaged.
    """
    if not data.state.exists():
        return State(namespace or "lab")
    try:
        content = json.loads(data.state.read_text())
        ports = {str(name): int(port) for name, port in content["ports"].items()}
        return State(namespace or str(content["namespace"]), ports)
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise EmbeddedError(f"{data.state} is damaged: {wrong}", "Remove it; new ports are chosen then.") from None


def save_state(data: DataDir, state: State) -> None:
    """Write the state."""
    write_private(data.state, json.dumps(asdict(state), indent=2) + "\n")


def claim_port(state: State, name: PortName, wanted: int | None, option: str) -> int:
    """Return the port of a listener: the one asked for, else the remembered one, else a free one; remember it.

    Args:
        option: the command-line option that chooses another port, for the error message.

    Raises:
        PortTaken: another process listens there.
    """
    port = wanted or state.ports.get(name)
    if port is None:
        port = free_port(set(state.ports.values()))
    elif not is_free(port):
        raise PortTaken(
            f"port {port} of 127.0.0.1, where {name} should listen, is used by another process",
            f"Stop that process (`ss -ltnp 'sport = :{port}'` names it), or choose another port with {option}.",
        )
    state.ports[name] = port
    return port


def is_free(port: int) -> bool:
    """Say whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(taken: set[int]) -> int:
    """Return a loopback port that nobody listens on and that is not in `taken`."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def check_version(data: DataDir, kubernetes: Version, etcd: Version) -> None:
    """Refuse data that these programs must not open, and mark the rest as theirs.

    Raises:
        ForeignData: written by a newer lablease, Kubernetes or etcd, or by one that is too old.
    """
    if data.version.exists():
        try:
            content = json.loads(data.version.read_text())
            layout, wrote_kubernetes, wrote_etcd = (
                content["layout"],
                parse(content["kubernetes"]),
                parse(content["etcd"]),
            )
        except (ValueError, KeyError, TypeError):
            raise _foreign(data, "the file VERSION in it cannot be read") from None
        if layout != LAYOUT:
            raise _foreign(data, f"its layout is {layout}, this lablease reads {LAYOUT}")
        for program, written, now in (("Kubernetes", wrote_kubernetes, kubernetes), ("etcd", wrote_etcd, etcd)):
            refused = "their version is unknown" if written is None else data_refusal(written, now)
            if refused is not None:
                raise _foreign(data, f"{program} data: {refused}")
    elif data.etcd.exists():
        raise _foreign(data, "it has etcd data but no file VERSION")
    content = {"layout": LAYOUT, "kubernetes": str(kubernetes), "etcd": str(etcd)}
    write_private(data.version, json.dumps(content) + "\n")


def _foreign(data: DataDir, why: str) -> ForeignData:
    return ForeignData(
        f"{data.root} holds data of another version: {why}",
        "Use the version that wrote it, choose another place with --data-dir, or delete it with "
        f"`lablease down --purge --data-dir {data.root}`.",
    )
