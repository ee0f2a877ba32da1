"""Server certificates that are read again when their files change, without a restart and without a gap."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path

import grpc
import structlog

from lablease.errors import InvalidField

log = structlog.get_logger()


class CertificateFiles:
    """One certificate chain and its key, as PEM files that somebody renews."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._seen = self._stamp()

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Read both files.

        Raises:
            InvalidField: a file cannot be read, or they are not a certificate and its key.
        """
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
            pair = (self._key.read_bytes(), self._certificate.read_bytes())
        except ssl.SSLError:
            problem = f"{self._certificate} and {self._key} must be a PEM certificate chain and its private key"
            raise InvalidField("tls", problem) from None
        except OSError as error:
            where = error.filename or f"{self._certificate} or {self._key}"
            raise InvalidField("tls", f"cannot read {where}: {error.strerror}") from None
        return grpc.ssl_server_certificate_configuration([pair])

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new pair if a file changed since the last look, None if not or if it is not usable (yet)."""
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            pair = self.load()
        except InvalidField as error:
            log.warning("tls.not_reloaded", problem=str(error))
            return None
        log.info("tls.reloaded")
        return pair

    def _stamp(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._certificate, self._key))


def server_credentials(certificate: Path, key: Path) -> grpc.ServerCredentials:
    """Return credentials for a server port; each handshake looks whether the files changed.

    Raises:
        InvalidField: the files are not usable now.
    """
    files = CertificateFiles(certificate, key)
    changed: Callable[[], grpc.ServerCertificateConfiguration] = files.changed  # type: ignore[assignment]  # None: keep
    return grpc.dynamic_ssl_server_credentials(files.load(), changed, False)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino)
