"""Where the API server is and how to prove who we are: from a kubeconfig, or from the pod's service account."""

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from lablease.errors import InvalidField
from lablease.model.fields import Json, as_bool, as_list, as_mapping, as_string

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class KubeConfig:
    """An API server and an identity. A ``token_file`` is read again by its user, since tokens are rotated in place."""

    server: str
    tls: ssl.SSLContext
    namespace: str | None = None
    token: str | None = None
    token_file: Path | None = None

    def bearer(self) -> str | None:
        """Return the token that is valid now, or None where a client certificate speaks."""
        if self.token_file is not None:
            return self.token_file.read_text("ascii").strip()
        return self.token


def load(kubeconfig: Path | None, context: str | None = None) -> KubeConfig:
    """Return a context of a kubeconfig file (the current one unless named), or the pod's own identity without a file.

    Raises:
        InvalidField: the file is missing or lacks something; the field is its path inside the file.
    """
    return _in_cluster() if kubeconfig is None else _from_file(kubeconfig, context)


def _in_cluster() -> KubeConfig:
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if not host or not SERVICE_ACCOUNT.is_dir():
        raise InvalidField("kubeconfig", "none given, and this is no pod with a service account: name one")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    return KubeConfig(
        server=f"https://{host}:{port}",
        tls=ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt")),
        namespace=(SERVICE_ACCOUNT / "namespace").read_text("ascii").strip(),
        token_file=SERVICE_ACCOUNT / "token",
    )


def _from_file(path: Path, named: str | None) -> KubeConfig:
    try:
        raw = as_mapping(yaml.safe_load(path.read_text("utf-8")), str(path))
    except OSError as error:
        raise InvalidField("kubeconfig", f"cannot read {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InvalidField("kubeconfig", f"{path} is no YAML: {error}") from None
    current = named or as_string(raw.get("current-context"), "current-context")
    context = _named(raw, "contexts", "context", current)
    cluster = _named(raw, "clusters", "cluster", as_string(context.get("cluster"), "cluster"))
    user = _named(raw, "users", "user", as_string(context.get("user"), "user"))
    server = as_string(cluster.get("server"), "cluster.server")
    if not server:
        raise InvalidField("cluster.server", f"is missing in {path}")
    token_file = as_string(user.get("tokenFile"), "user.tokenFile")
    return KubeConfig(
        server=server.rstrip("/"),
        tls=_tls(cluster, user, path.parent),
        namespace=as_string(context.get("namespace"), "context.namespace") or None,
        token=as_string(user.get("token"), "user.token") or None,
        token_file=path.parent / token_file if token_file else None,
    )


def _named(raw: Json, plural: str, kind: str, name: str) -> Json:
    for index, item in enumerate(as_list(raw.get(plural), plural)):
        body = as_mapping(item, f"{plural}[{index}]")
        if body.get("name") == name:
            return as_mapping(body.get(kind), f"{plural}[{index}].{kind}")
    raise InvalidField(plural, f"has no entry named {name!r}")


def _tls(cluster: Json, user: Json, folder: Path) -> ssl.SSLContext:
    authority = _material(cluster, "certificate-authority", folder)
    context = ssl.create_default_context(cadata=None if authority is None else authority.decode("ascii"))
    if as_bool(cluster.get("insecure-skip-tls-verify"), "cluster.insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = _material(user, "client-certificate", folder)
    key = _material(user, "client-key", folder)
    if certificate is not None and key is not None:
        with tempfile.TemporaryDirectory(prefix="lablease-") as private:  # ssl loads a chain from files only; mode 0700
            chain = Path(private) / "chain.pem"
            chain.write_bytes(certificate + b"\n" + key)
            context.load_cert_chain(chain)
    return context


def _material(body: Json, name: str, folder: Path) -> bytes | None:
    inline = as_string(body.get(f"{name}-data"), f"{name}-data")
    if inline:
        try:
            return base64.b64decode(inline, validate=True)
        except binascii.Error:
            raise InvalidField(f"{name}-data", "is not base64") from None
    path = as_string(body.get(name), name)
    return (folder / path).read_bytes() if path else None
