"""TLS channels to controller and router, and who the caller says it is."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio

from lablease.client.errors import ConfigError, ServiceError

# Both stock peers set these; servers of the control plane are configured to bear the pings.
KEEPALIVE: Mapping[str, str | int] = {
    "grpc.lb_policy_name": "round_robin",
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 180_000,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.keepalive_permit_without_calls": 1,
}
_PROBE_SECONDS = 5.0
_INSECURE_VARIABLES = ("JUMPSTARTER_GRPC_INSECURE", "JMP_GRPC_INSECURE")

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Trust:
    """How a server's certificate is judged: by ``ca`` (PEM), by the system's roots if that is None, or not at all.

    ``insecure`` still speaks TLS: the chain that the server presents on a first connection becomes the only
    trusted root of the channel, and the host name must match.
    """

    ca: bytes | None = None
    insecure: bool = False
    options: Mapping[str, str | int] = field(default_factory=dict[str, "str | int"])

    @classmethod
    def parse(
        cls, ca: str, insecure: bool, options: Mapping[str, str | int], env: Mapping[str, str] = os.environ
    ) -> Trust:
        """Read the ``tls`` and ``grpcOptions`` entries of a configuration.

        Raises:
            ConfigError: ``ca`` is not base64.
        """
        if insecure or any(env.get(name) == "1" for name in _INSECURE_VARIABLES):
            return cls(None, True, dict(options))
        try:
            pem = base64.b64decode(ca, validate=True) if ca else None
        except binascii.Error:
            raise ConfigError("client configuration", "tls.ca", "must be base64 of PEM") from None
        if pem is not None and b"-----BEGIN CERTIFICATE-----" not in pem:
            raise ConfigError("client configuration", "tls.ca", "must be base64 of PEM, holds no certificate")
        return cls(pem, False, dict(options))


def caller_metadata(namespace: str, name: str, token: str) -> Metadata:
    """Return what every call to the controller must carry."""
    return (
        ("authorization", f"Bearer {token}"),
        ("jumpstarter-kind", "Client"),
        ("jumpstarter-namespace", namespace),
        ("jumpstarter-name", name),
    )


async def open_channel(endpoint: str, trust: Trust) -> grpc.aio.Channel:
    """Open a channel to ``host:port``. It connects with the first call.

    Raises:
        ServiceError: insecure mode, and the server's certificate could not be fetched.
    """
    roots = await _presented_chain(endpoint) if trust.insecure else trust.ca
    options: Sequence[tuple[str, str | int]] = tuple({**KEEPALIVE, **trust.options}.items())
    return grpc.aio.secure_channel(endpoint, grpc.ssl_channel_credentials(roots), options=options)


async def _presented_chain(endpoint: str) -> bytes:
    host, port = split_endpoint(endpoint)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except TimeoutError:
        raise _unreachable(endpoint, f"no TLS answer within {_PROBE_SECONDS:g} s") from None
    except OSError as error:
        raise _unreachable(endpoint, str(error.strerror or error)) from error
    try:
        presented: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate = presented.getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    if certificate is None:
        raise _unreachable(endpoint, "it presented no certificate")
    return ssl.DER_cert_to_PEM_cert(certificate).encode()


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Split ``host:port``, ``[v6]:port`` or a bare host (port 443).

    Raises:
        ConfigError: the port is no number.
    """
    host, colon, port = endpoint.rpartition(":")
    if not colon or endpoint.endswith("]"):
        return endpoint.strip("[]"), 443
    if not (port.isascii() and port.isdigit()):
        raise ConfigError("client configuration", "endpoint", f"{endpoint!r} is not host:port")
    return host.strip("[]"), int(port)


def _unreachable(endpoint: str, problem: str) -> ServiceError:
    return ServiceError(f"connect to {endpoint}", "UNAVAILABLE", problem)
