"""Between gRPC and the services: authenticate, call, translate errors. The services see a Caller and messages only.

The only place that makes gRPC handlers; the stubs of grpcio leave them untyped:
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from lablease import clock
from lablease.errors import Unavailable
from lablease.grpc_frontend.auth import Authenticator, Caller, Kind
from lablease.grpc_frontend.errors import Boundary
from lablease.grpc_frontend.figures import Figures
from lablease.grpc_frontend.router.calls import undisturbed
from lablease.grpc_frontend.store import Store, until_back

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
A_contra = TypeVar("A_contra", bound=Message, contravariant=True)

ANY = frozenset(Kind)
CLIENT = frozenset({Kind.CLIENT})
EXPORTER = frozenset({Kind.EXPORTER})


def service(name: str, methods: "Mapping[str, grpc.RpcMethodHandler[Any, Any]]") -> "grpc.GenericRpcHandler[Any, Any]":
    """Return the handler of a whole service, by the names of its methods."""
    return grpc.method_handlers_generic_handler(name, dict(methods))


class Send(Protocol[A_contra]):
    """The answering side of a stream."""

    async def __call__(self, message: A_contra, /) -> None:
        """Send one message; waits while the peer does not read."""
        ...

    async def greet(self, metadata: Mapping[str, str]) -> None:
        """Send initial metadata, before the first message."""
        ...


class _Answers(Generic[A]):
    """Sends on a servicer context."""

    def __init__(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        self._context = context

    async def __call__(self, message: A, /) -> None:
        await undisturbed(self._context.write(message))

    async def greet(self, metadata: Mapping[str, str]) -> None:
        await undisturbed(self._context.send_initial_metadata(tuple(metadata.items())))


class Gate:
    """Makes gRPC handlers of methods.

    ``patient`` handlers hold a call until the caches are filled and the API server answers: their callers, exporters of
    release 0.9.0, end themselves on an error. The others answer UNAVAILABLE meanwhile.
    """

    def __init__(self, store: Store, authenticator: Authenticator, figures: Figures) -> None:
        self._store = store
        self._authenticator = authenticator
        self._figures = figures

    def unary(
        self,
        kinds: frozenset[Kind],
        method: Callable[[Caller, Q], Awaitable[A]],
        request: type[Q],
        *,
        patient: bool = False,
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """One request, one answer."""

        async def handle(message: Q, context: "grpc.aio.ServicerContext[Any, Any]") -> A:
            async with self._boundary(context, method):
                return await method(await self._admit(context.invocation_metadata(), kinds, patient), message)
            raise AssertionError("the boundary ends the call")

        return grpc.unary_unary_rpc_method_handler(handle, request.FromString, _serialize)

    def answers(
        self,
        kinds: frozenset[Kind],
        method: Callable[[Caller, Q, Send[A]], Awaitable[None]],
        request: type[Q],
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """One request, a stream of answers; always patient."""

        async def handle(message: Q, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
            with self._figures.streams.labels(_name(method)).track_inprogress():
                async with self._boundary(context, method, stream=True):
                    caller = await self._admit(context.invocation_metadata(), kinds, patient=True)
                    await method(caller, message, _Answers[A](context))

        return grpc.unary_stream_rpc_method_handler(handle, request.FromString, _serialize)

    def requests(
        self,
        kinds: frozenset[Kind],
        method: Callable[[Caller, AsyncIterator[Q]], Awaitable[A]],
        request: type[Q],
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """A stream of requests, one answer."""

        async def handle(messages: AsyncIterator[Q], context: "grpc.aio.ServicerContext[Any, Any]") -> A:
            async with self._boundary(context, method, stream=True):
                return await method(await self._admit(context.invocation_metadata(), kinds, patient=False), messages)
            raise AssertionError("the boundary ends the call")

        return grpc.stream_unary_rpc_method_handler(handle, request.FromString, _serialize)

    def _boundary(
        self, context: "grpc.aio.ServicerContext[Any, Any]", method: object, *, stream: bool = False
    ) -> Boundary:
        name, begun = _name(method), clock.monotonic()

        def ended(code: str) -> None:
            self._figures.answered(name, code, None if stream else clock.monotonic() - begun)

        return Boundary(context, name, ended)

    async def _admit(self, metadata: object, kinds: frozenset[Kind], patient: bool) -> Caller:
        given = tuple(cast("Iterable[tuple[str, str | bytes]]", metadata or ()))  # what grpc.aio gives, typed otherwise
        if patient:
            await self._store.synced()
            return await until_back(lambda: self._authenticator.admit(given, kinds))
        if not self._store.ready:
            raise Unavailable("the front end is starting: its caches are not filled yet")
        return await self._authenticator.admit(given, kinds)


def _name(method: object) -> str:
    return getattr(method, "__name__", type(method).__name__)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
