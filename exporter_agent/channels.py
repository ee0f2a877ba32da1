"""TLS channels to controller and routers."""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import grpc
import grpc.aio

from lablease.exporter_agent.errors import ChannelProblem

PROBE_SECONDS: Final = 5.0
RETIRED_CHANNELS: Final = 16
"""So many channels that were given up stay open for the calls that still run on them."""

OPTIONS: Final[Mapping[str, str | int]] = {
    "grpc.lb_policy_name": "round_robin",
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 180_000,
    "grpc.http2.max_pings_without_data": 0,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.min_reconnect_backoff_ms": 5_000,  # also the time that one attempt to connect may take
    "grpc.max_reconnect_backoff_ms": 10_000,
}
"""Keepalive as released peers set it (servers must bear it); reconnects sooner than gRPC's own 20 s and 120 s."""


@dataclass(frozen=True, slots=True)
class Trust:
    """``roots``: PEM, None for the system's. ``insecure``: the chain that the server shows is taken as roots."""

    roots: bytes | None = None
    insecure: bool = False
    options: Mapping[str, str | int] = field(default_factory=dict[str, "str | int"])


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Split ``host:port``, ``[v6]:port`` or a bare host, whose port is 443.

    Raises:
        ChannelProblem: the port is no number.
    """
    host, colon, port = endpoint.rpartition(":")
    if not colon or endpoint.endswith("]"):
        return endpoint.strip("[]"), 443
    if not (port.isascii() and port.isdigit()):
        raise ChannelProblem(f"endpoint {endpoint!r}: must be host:port")
    return host.strip("[]"), int(port)


class Channels:
    """One channel per endpoint, kept for as long as it works."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._open: dict[str, grpc.aio.Channel] = {}
        self._retired: deque[grpc.aio.Channel] = deque()
        self._opening = asyncio.Lock()

    async def get(self, endpoint: str) -> grpc.aio.Channel:
        """Return the channel to ``host:port``; it connects with the first call.

        Raises:
            ChannelProblem: insecure mode, and the server's certificate could not be fetched.
        """
        async with self._opening:
            if endpoint not in self._open:
                roots = await _shown_chain(endpoint) if self._trust.insecure else self._trust.roots
                credentials = grpc.ssl_channel_credentials(roots)
                options = tuple({**OPTIONS, **self._trust.options}.items())
                self._open[endpoint] = grpc.aio.secure_channel(endpoint, credentials, options=options)
            return self._open[endpoint]

    async def forget(self, endpoint: str) -> None:
        """Open a new channel next time, with the certificate that the server shows then. Only in insecure mode.

        The old channel stays open for a while: to close it would cancel the tasks of all calls that others have on it.
        """
        if self._trust.insecure and (channel := self._open.pop(endpoint, None)) is not None:
            self._retired.append(channel)
            if len(self._retired) > RETIRED_CHANNELS:
                await self._retired.popleft().close(None)

    async def close(self) -> None:
        """Close all channels."""
        for channel in (*self._open.values(), *self._retired):
            await channel.close(None)
        self._open.clear()
        self._retired.clear()


async def _shown_chain(endpoint: str) -> bytes:
    host, port = split_endpoint(endpoint)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=host, happy_eyeballs_delay=0.25
            )
    except TimeoutError:
        raise ChannelProblem(f"{endpoint}: no TLS answer within {PROBE_SECONDS:g} s") from None
    except OSError as error:
        raise ChannelProblem(f"{endpoint}: {error.strerror or error}") from error
    try:
        shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return "".join(ssl.DER_cert_to_PEM_cert(certificate) for certificate in _chain(shown)).encode()
    finally:
        writer.transport.abort()


def _chain(shown: ssl.SSLObject) -> list[bytes]:
    """Return what the server sent as DER. Python 3.13 has a public method; before, only the leaf is to be had."""
    whole = getattr(shown, "get_unverified_chain", None)
    if whole is not None:
        return list(whole())
    leaf = shown.getpeercert(binary_form=True)
    return [] if leaf is None else [leaf]
