"""Write and read kubeconfig files, as far as this package needs them."""

import base64
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from lablease.embedded.errors import EmbeddedError
from lablease.embedded.paths import write_private
from lablease.embedded.tree import Object, at, elements, mapping, text


@dataclass(frozen=True, slots=True)
class Access:
    """Where an API server is, and as whom one speaks to it.

    Args:
        ca: PEM; None trusts what the system trusts.
        client: certificate and key, both PEM.
        token_file: read again for every request, because what is in it is renewed.
    """

    server: str
    ca: bytes | None
    client: tuple[bytes, bytes] | None = None
    token: str | None = None
    token_file: Path | None = None
    verify: bool = True

    def bearer(self) -> str | None:
        """Return the bearer token of this moment."""
        return self.token_file.read_text().strip() if self.token_file is not None else self.token

    def ssl_context(self) -> ssl.SSLContext:
        """Return a context that trusts the CA and presents the client certificate."""
        context = ssl.create_default_context(cadata=self.ca.decode() if self.ca is not None else None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client is not None:
            # ssl loads a key from a file only; the file is private, and gone when this function returns.
            with tempfile.NamedTemporaryFile() as pem:
                pem.write(b"\n".join(self.client))
                pem.flush()
                context.load_cert_chain(pem.name)
        return context


def write(path: Path, access: Access, user: str, namespace: str) -> None:
    """Write a kubeconfig with one context, readable by its owner only."""
    cluster: dict[str, object] = {"server": access.server}
    if access.ca is not None:
        cluster["certificate-authority-data"] = base64.b64encode(access.ca).decode()
    if not access.verify:
        cluster["insecure-skip-tls-verify"] = True
    credentials: dict[str, object] = {}
    if access.client is not None:
        credentials["client-certificate-data"] = base64.b64encode(access.client[0]).decode()
        credentials["client-key-data"] = base64.b64encode(access.client[1]).decode()
    if access.token is not None:
        credentials["token"] = access.token
    if access.token_file is not None:
        credentials["tokenFile"] = str(access.token_file)
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lablease", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "lablease", "context": {"cluster": "lablease", "user": user, "namespace": namespace}}],
        "current-context": "lablease",
    }
    write_private(path, yaml.safe_dump(content, sort_keys=False))


def read(path: Path) -> Access:
    """Read the current context of a kubeconfig.

    Raises:
        EmbeddedError: there is no such file, it has no usable context, or its user needs a plugin (`exec`).
    """
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise EmbeddedError(f"there is no kubeconfig {path}", "Name one that exists with --kubeconfig.") from None
    except yaml.YAMLError as wrong:
        raise EmbeddedError(f"{path} is no YAML: {wrong}", "Name a kubeconfig with --kubeconfig.") from None
    context = _named(content, "context", text(content, "current-context"))
    cluster = _named(content, "cluster", text(context, "cluster"))
    user = _named(content, "user", text(context, "user"))
    if not text(cluster, "server"):
        problem = f"{path} has no current context with a server"
        raise EmbeddedError(problem, "`kubectl config use-context NAME` selects a context.")
    if "exec" in user or "auth-provider" in user:
        raise EmbeddedError(
            f"the user {text(context, 'user')!r} of {path} logs in with a plugin, which is not supported here",
            "Use a kubeconfig with a client certificate or a token, e.g. from `kubectl create token`.",
        )
    folder = path.parent
    cert, key = _pem(user, "client-certificate", folder), _pem(user, "client-key", folder)
    return Access(
        server=text(cluster, "server"),
        ca=_pem(cluster, "certificate-authority", folder),
        client=(cert, key) if cert is not None and key is not None else None,
        token=text(user, "token") or None,
        token_file=folder / text(user, "tokenFile") if text(user, "tokenFile") else None,
        verify=at(cluster, "insecure-skip-tls-verify") is not True,
    )


def _named(content: object, kind: str, name: str) -> Object:
    """Return the entry of that name of the list `clusters`, `contexts` or `users`; empty if there is none."""
    found = [entry for entry in elements(content, f"{kind}s") if text(entry, "name") == name]
    return mapping(found[0], kind) if found else {}


def _pem(section: Object, name: str, folder: Path) -> bytes | None:
    if text(section, f"{name}-data"):
        return base64.b64decode(text(section, f"{name}-data"))
    return (folder / text(section, name)).read_bytes() if text(section, name) else None
