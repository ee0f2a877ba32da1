"""A proxy in front of the API server that loses one request or one answer, the k-th that counts.

A client that gets no answer cannot know whether its write was done: both cases must end well.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from lablease.embedded.kubeconfig import Access

_HOP_BY_HOP = {"host", "connection", "transfer-encoding", "content-length", "keep-alive"}


class Loss(StrEnum):
    """What gets lost: the request (the write is not done) or only its answer (it is)."""

    REQUEST = "request"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the proxy saw it; ``path`` without its query."""

    method: str
    path: str
    watch: bool

    @property
    def writes(self) -> bool:
        return self.method in {"POST", "PUT", "PATCH", "DELETE"}


def of_leases_and_exporters(asked: Asked) -> bool:
    """Say whether a request belongs to the life of a lease: ours, and no watch."""
    return "/apis/jumpstarter.dev/" in asked.path and not asked.watch


@dataclass(slots=True)
class _Plan:
    ordinal: int
    loss: Loss
    counts: Callable[[Asked], bool]
    seen: list[Asked] = field(default_factory=list[Asked])
    lost: Asked | None = None


class CuttingProxy:
    """A plain HTTP proxy on loopback, run by a thread of its own. Callers bring their bearer token; it adds nothing.

    Args:
        access: of the API server; only its address and CA are used.
    """

    def __init__(self, access: Access) -> None:
        self._access = Access(access.server, access.ca, verify=access.verify)
        self._plan: _Plan | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cutting proxy", daemon=True)
        self._stop: asyncio.Event = asyncio.Event()
        self._serving: Future[None] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        listening: Future[int] = Future()
        self._serving = asyncio.run_coroutine_threadsafe(self._serve(listening), self._loop)
        self._serving.add_done_callback(
            lambda served: None if listening.done() else listening.set_exception(served.exception() or OSError("ended"))
        )
        self.port = listening.result(timeout=10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        assert self._serving is not None
        self._serving.result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def lose(self, ordinal: int, loss: Loss, counts: Callable[[Asked], bool] = of_leases_and_exporters) -> None:
        """Lose the ``ordinal``-th (from 1) request that ``counts``, from now on; one only. 0 loses none and counts."""
        self._plan = _Plan(ordinal, loss, counts)

    @property
    def counted(self) -> list[Asked]:
        """The requests that counted since `lose` was called."""
        return list(self._plan.seen) if self._plan else []

    @property
    def lost(self) -> Asked | None:
        """The request that was hit, None if it did not come yet."""
        return self._plan.lost if self._plan else None

    def _meets(self, asked: Asked) -> Loss | None:
        plan = self._plan
        if plan is None or not plan.counts(asked):
            return None
        plan.seen.append(asked)
        if len(plan.seen) != plan.ordinal:
            return None
        plan.lost = asked
        return plan.loss

    async def _serve(self, listening: "Future[int]") -> None:
        connector = aiohttp.TCPConnector(ssl=self._access.ssl_context(), limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            app = web.Application(client_max_size=64 * 1024 * 1024)
            app.router.add_route("*", "/{path:.*}", partial(self._relay, session))
            runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.5)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            listening.set_result(int(runner.addresses[0][1]))
            await self._stop.wait()
            await runner.cleanup()

    async def _relay(self, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.method, urlsplit(request.path_qs).path, "watch" in request.query)
        loss = self._meets(asked)
        if loss is Loss.REQUEST:
            return _hang_up(request)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        url = self._access.server + request.path_qs
        body = await request.read()
        async with session.request(request.method, url, headers=headers, data=body or None) as answer:
            if loss is Loss.ANSWER:
                await answer.read()
                return _hang_up(request)
            passed = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=passed)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


def _hang_up(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
