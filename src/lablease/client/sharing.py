"""One connection to an exporter for several processes of one user.

A new tunnel costs a dial, a stream through the router and a handshake from end to end; `lablease call` inside a shell
saves all that by sending its calls over the connection that the shell has open.
"""

from __future__ import annotations

# The stubs of grpcio leave type parameters of handlers and servers open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio

REPORT_NAME, SOCKET_NAME = "report", "shared"
"""Beside the socket that JUMPSTARTER_HOST names: the exporter's report, and the socket of the shared connection."""

_FORWARDED = frozenset({"request"})
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


def _as_it_is(message: bytes) -> bytes:
    return message


class _Relay(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not subscriptable at run time
    """Every method of every service, message by message, without looking into the messages."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(partial(self._relay, handler_call_details.method))

    async def _relay(self, method: str, requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes]:
        metadata = tuple((key, value) for key, value in context.invocation_metadata() or () if key in _FORWARDED)
        call = self._channel.stream_stream(method, _as_it_is, _as_it_is)(None, metadata=metadata)
        sending = asyncio.create_task(_send(requests, call))
        try:
            await context.send_initial_metadata(await call.initial_metadata())
            while isinstance(response := await call.read(), bytes):
                yield response
            code = await call.code()
        except grpc.aio.AioRpcError as error:
            code = error.code()
        finally:
            sending.cancel()
            call.cancel()
        if code is not grpc.StatusCode.OK:
            await context.abort(code, await call.details() or "")


@asynccontextmanager
async def shared(channel: grpc.aio.Channel, path: Path) -> AsyncGenerator[None]:
    """Serve what ``channel`` leads to on a unix socket; who may reach ``path`` may use it."""
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)))
    server.add_generic_rpc_handlers((_Relay(channel),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


async def _send(requests: AsyncIterator[bytes], call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the call has ended: its reader says how
        async for request in requests:
            await call.write(request)
        await call.done_writing()
