"""The command lines of etcd and kube-apiserver, and the audit policy."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from lablease.embedded.paths import DataDir
from lablease.embedded.pki import Pki

# etcd listens on unix sockets only: no port to lose to another program, and the data directory's permissions decide
# who may talk to it. The names are relative to the working directory, since a socket path has about 100 characters;
# etcd demands the form host:port for a peer, so the files are really called that.
ETCD_CLIENT_SOCKET = "etcd-client:0"
ETCD_PEER_SOCKET = "etcd-peer:0"

SERVICE_ACCOUNT_ISSUER = "https://kubernetes.default.svc"
_QUOTA_BYTES = 2 * 1024**3


def etcd(binary: Path, data: DataDir) -> list[str]:
    """Return the command line of etcd, to be run in `data.root`.

    A write is on disk when it is acknowledged (fsync stays on). What is tuned for a laptop: two WAL files of 64 MB are
    kept instead of five, and the only member does not wait a whole second before it elects itself.
    """
    client, peer = f"unix://{ETCD_CLIENT_SOCKET}", f"unix://{ETCD_PEER_SOCKET}"
    return [
        str(binary),
        "--name=lablease",
        f"--data-dir={data.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=lablease={peer}",
        "--heartbeat-interval=50",
        "--election-timeout=300",
        f"--quota-backend-bytes={_QUOTA_BYTES}",
        "--max-wals=2",
        "--log-level=warn",
    ]


def kube_apiserver(binary: Path, data: DataDir, pki: Pki, port: int) -> list[str]:
    """Return the command line of the API server, to be run in `data.root`.

    The audit log is written before a request is answered (`blocking`): what a client was told is in the log, also
    when the server is killed right after.
    """
    return [
        str(binary),
        f"--etcd-servers=unix://{ETCD_CLIENT_SOCKET}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        "--anonymous-auth=false",
        "--authorization-mode=RBAC",
        f"--client-ca-file={pki.ca.cert}",
        f"--tls-cert-file={pki.api_server.cert}",
        f"--tls-private-key-file={pki.api_server.key}",
        f"--service-account-issuer={SERVICE_ACCOUNT_ISSUER}",
        f"--service-account-key-file={pki.service_account_key}",
        f"--service-account-signing-key-file={pki.service_account_key}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none",  # a loopback address cannot be an endpoint, and no pod asks for it
        f"--audit-policy-file={data.audit_policy}",
        f"--audit-log-path={data.audit_log}",
        "--audit-log-mode=blocking",
        "--audit-log-maxsize=100",
        "--audit-log-maxbackup=10",
        "--audit-log-maxage=0",
        "--profiling=false",
    ]


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of both programs: no proxy, no stray `ETCD_*` setting of the user's."""
    return {name: inherited[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in inherited}


def audit_policy() -> str:
    """Return the audit policy as YAML.

    Writes to `jumpstarter.dev` with both bodies; reads of it, and writes to anything else, without: so a Secret, a
    token request or a token review never leaves more than its name. What the API server does for itself is left out.
    """
    ours = [{"group": "jumpstarter.dev"}]
    reads = ["get", "list", "watch"]
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "omitManagedFields": True,
        "rules": [
            {"level": "None", "users": ["system:apiserver"]},
            {"level": "Metadata", "verbs": reads, "resources": ours},
            {"level": "RequestResponse", "resources": ours},
            {
                "level": "Metadata",
                "resources": [
                    {"group": "", "resources": ["secrets", "configmaps", "events", "serviceaccounts/token"]},
                    {"group": "coordination.k8s.io", "resources": ["leases"]},
                ],
            },
            {"level": "None", "verbs": reads},
            {"level": "None", "nonResourceURLs": ["*"]},
            {"level": "Metadata"},
        ],
    }
    return yaml.safe_dump(policy, sort_keys=False)
