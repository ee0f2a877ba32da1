"""The informer against an API server that we can make misbehave: gaps, late answers, deletions nobody told of."""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lablease.errors import AlreadyExists, InvalidField, NotFound, OutcomeUnknown, Stale, Unavailable
from lablease.kube.api import KubeApi
from lablease.kube.config import KubeConfig
from lablease.kube.informer import Informer
from lablease.kube.resources import LEASES
from lablease.model.fields import as_mapping, as_string
from lablease.model.keys import Key

Raw = dict[str, Any]


def thing(name: str, version: int, colour: str = "red") -> Raw:
    return {"metadata": {"namespace": "lab", "name": name, "resourceVersion": str(version)}, "colour": colour}


def colour(raw: Raw) -> str:
    value = as_string(as_mapping(raw, "object").get("colour"), "colour")
    if value == "bad":
        raise InvalidField("colour", "must be a colour")
    return value


class Script:
    """An API server that answers with what the test puts in: lists in order, watches as queues of lines."""

    def __init__(self) -> None:
        self.lists: list[tuple[int, list[Raw]]] = []
        self.watch: asyncio.Queue[Raw | int | None] = asyncio.Queue()
        self.watched_from: list[str] = []
        self.answer: tuple[int, Raw] = (200, {})
        self.collection_answer: tuple[int, Raw] | None = None

    async def collection(self, request: web.Request) -> web.StreamResponse:
        if self.collection_answer is not None:
            return web.json_response(self.collection_answer[1], status=self.collection_answer[0])
        if "watch" not in request.query:
            version, items = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
            return web.json_response({"metadata": {"resourceVersion": str(version)}, "items": items})
        self.watched_from.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        while (event := await self.watch.get()) is not None:
            if isinstance(event, int):
                event = {"type": "ERROR", "object": {"kind": "Status", "code": event}}
            await response.write(json.dumps(event).encode() + b"\n")
            if event["type"] == "ERROR":
                break
        return response

    async def one(self, request: web.Request) -> web.StreamResponse:
        code, body = self.answer
        if code == 0:
            assert request.transport is not None
            request.transport.close()
        return web.json_response(body, status=code or 200)

    def tell(self, kind: str, raw: Raw) -> None:
        self.watch.put_nowait({"type": kind, "object": raw})


@pytest.fixture
async def script() -> AsyncIterator[tuple[Script, KubeApi]]:
    script = Script()
    app = web.Application()
    path = LEASES.path("lab")
    app.router.add_route("*", path, script.collection)
    app.router.add_route("*", path + "/{name}", script.one)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    config = KubeConfig(f"http://{host}:{port}", ssl.create_default_context())
    api = KubeApi(config, aiohttp.ClientSession(auto_decompress=False))
    yield script, api
    await api.aclose()
    await runner.cleanup()


@asynccontextmanager
async def following(informer: Informer[str]) -> AsyncGenerator[None]:
    task = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.synced.wait(), 5)
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def key(name: str) -> Key:
    return Key("lab", name)


async def test_it_lists_then_follows_and_keeps_the_index(script: tuple[Script, KubeApi]) -> None:
    server, api = script
    server.lists = [(5, [thing("a", 3)])]
    informer = Informer(api, LEASES, "lab", colour, {"colour": lambda value: [value]})
    async with following(informer):
        server.tell("ADDED", thing("b", 6))
        server.tell("MODIFIED", thing("a", 7, "blue"))
        await until(lambda: informer.get(key("a")) == "blue")
        assert informer.by("colour", "red") == ("red",)
        server.tell("DELETED", thing("b", 8))
        await until(lambda: informer.get(key("b")) is None)
        assert informer.by("colour", "red") == ()
        assert server.watched_from == ["5"]


async def test_a_deletion_in_a_gap_is_told_after_the_next_list(script: tuple[Script, KubeApi]) -> None:
    server, api = script
    server.lists = [(5, [thing("a", 3), thing("b", 4)]), (20, [thing("a", 3)])]
    informer = Informer(api, LEASES, "lab", colour)
    seen: list[tuple[str | None, str | None]] = []
    async with following(informer):
        informer.add_listener(lambda old, new: seen.append((old, new)))
        server.watch.put_nowait(410)
        await until(lambda: informer.get(key("b")) is None)
        assert seen == [("red", None)]
        assert informer.get(key("a")) == "red"
        await until(lambda: server.watched_from == ["5", "20"])


async def test_a_watch_that_ends_goes_on_from_the_last_seen_version(script: tuple[Script, KubeApi]) -> None:
    server, api = script
    server.lists = [(5, [])]
    informer = Informer(api, LEASES, "lab", colour)
    async with following(informer):
        server.tell("BOOKMARK", thing("", 9))
        server.watch.put_nowait(None)
        await until(lambda: server.watched_from == ["5", "9"])


async def test_an_answer_of_a_write_is_visible_at_once_and_an_older_event_does_not_undo_it(
    script: tuple[Script, KubeApi],
) -> None:
    server, api = script
    server.lists = [(5, [thing("a", 3)])]
    informer = Informer(api, LEASES, "lab", colour)
    async with following(informer):
        informer.insert(thing("a", 9, "blue"))
        assert informer.get(key("a")) == "blue"
        server.tell("MODIFIED", thing("a", 8, "green"))
        server.tell("ADDED", thing("z", 10))
        await until(lambda: informer.get(key("z")) is not None)
        assert informer.get(key("a")) == "blue"


async def test_a_late_answer_does_not_bring_back_what_was_deleted(script: tuple[Script, KubeApi]) -> None:
    server, api = script
    server.lists = [(5, [thing("a", 3)])]
    informer = Informer(api, LEASES, "lab", colour)
    async with following(informer):
        server.tell("DELETED", thing("a", 9))
        await until(lambda: informer.get(key("a")) is None)
        server.tell("BOOKMARK", thing("", 10))
        server.tell("ADDED", thing("z", 11))
        await until(lambda: informer.get(key("z")) is not None)
        informer.insert(thing("a", 8))
        assert informer.get(key("a")) is None


async def test_one_unreadable_object_is_left_out_and_stops_no_other(script: tuple[Script, KubeApi]) -> None:
    server, api = script
    server.lists = [(5, [thing("a", 2, "bad"), thing("b", 3)])]
    informer = Informer(api, LEASES, "lab", colour)
    async with following(informer):
        assert list(informer.values()) == ["red"]
        server.tell("MODIFIED", thing("b", 6, "bad"))
        await until(lambda: informer.get(key("b")) is None)


async def test_waiting_for_a_change_wakes_at_the_change(script: tuple[Script, KubeApi]) -> None:
    server, api = script
    server.lists = [(5, [])]
    informer = Informer(api, LEASES, "lab", colour)
    async with following(informer):
        waiting = asyncio.create_task(informer.changed(key("a")))
        await asyncio.sleep(0)
        server.tell("ADDED", thing("b", 6))
        await until(lambda: informer.get(key("b")) is not None)
        assert not waiting.done()
        server.tell("ADDED", thing("a", 7))
        await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize(
    ("code", "status", "error", "words"),
    [
        (404, {}, NotFound, "Lease a not found"),
        (409, {"reason": "Conflict"}, Stale, "has changed meanwhile"),
        (422, {"message": 'Lease "a" is invalid: spec.tags: Too many', "details": {"causes": [{"field": "spec.tags"}]}},
         InvalidField, "spec.tags: Lease"),
        (500, {"message": "etcd"}, OutcomeUnknown, "500"),
        (503, {"message": "etcd"}, Unavailable, "503"),
        (0, {}, OutcomeUnknown, "did not answer a PATCH"),
    ],
)  # fmt: skip
async def test_each_answer_has_one_meaning(
    script: tuple[Script, KubeApi], code: int, status: Raw, error: type[Exception], words: str
) -> None:
    server, api = script
    server.answer = (code, status)
    with pytest.raises(error, match=words):
        await api.patch(LEASES, key("a"), {})


async def test_a_name_that_is_taken_is_told_from_a_conflict(script: tuple[Script, KubeApi]) -> None:
    server, api = script
    server.lists = [(5, [])]
    server.answer = (409, {"reason": "AlreadyExists", "details": {"name": "a"}})
    with pytest.raises(Stale):
        await api.replace(LEASES, key("a"), {})
    server.collection_answer = server.answer
    with pytest.raises(AlreadyExists, match="Lease a already exists"):
        await api.create(LEASES, "lab", {})
