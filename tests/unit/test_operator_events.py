"""Events say once what is wrong, and nobody waits for them."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from lablease.errors import AlreadyExists, Unavailable
from lablease.kube.api import KubeApi, RawObject
from lablease.kube.resources import Resource
from lablease.model.keys import Key
from lablease.model.meta import Meta
from lablease.operator.events import Event, Teller, to_event
from lablease.operator.writes import Kind

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
META = Meta(Key("lab", "night-shift"), "u-1", "7", 1, NOON)


def event(note: str = "spec.policies[0].maximumDuration: '7d' is not a duration") -> Event:
    return Event(Kind.POLICY, META, "InvalidSpec", note, NOON)


class Api:
    """Takes what is created; fails with what the test puts in first."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.created: list[RawObject] = []
        self.done = asyncio.Event()

    async def create(self, resource: Resource, namespace: str | None, body: RawObject) -> RawObject:
        assert (resource.plural, namespace) == ("events", "lab")
        if self.failures:
            raise self.failures.pop(0)
        self.created.append(body)
        self.done.set()
        return body


async def told(api: Api, *events: Event) -> list[RawObject]:
    teller = Teller(cast("KubeApi", api), "host-1")
    for item in events:
        teller.tell(item)
    task = asyncio.create_task(teller.run())
    await asyncio.wait_for(api.done.wait(), 5)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return api.created


def test_an_event_names_its_object_and_the_field() -> None:
    body: dict[str, Any] = to_event(event(), "host-1")
    assert body["regarding"] == {
        "apiVersion": "jumpstarter.dev/v1alpha1",
        "kind": "ExporterAccessPolicy",
        "namespace": "lab",
        "name": "night-shift",
        "uid": "u-1",
    }
    assert (body["type"], body["reason"]) == ("Warning", "InvalidSpec")
    assert "maximumDuration" in body["note"]


@pytest.mark.parametrize("length", [1_025, 100_000])
def test_a_note_is_cut_to_what_the_api_server_takes(length: int) -> None:
    assert len(to_event(event("x" * length), "host-1")["note"]) == 1_024


def test_the_same_problem_has_the_same_name_and_another_has_another() -> None:
    names = {to_event(item, host)["metadata"]["name"] for item in (event(), event()) for host in ("a", "b")}
    assert len(names) == 1
    assert to_event(event("something else"), "a")["metadata"]["name"] not in names


async def test_what_was_told_already_and_what_failed_stop_nothing() -> None:
    created = await told(Api(AlreadyExists("Event", "x"), Unavailable("away")), event("1"), event("2"), event("3"))
    assert [body["note"] for body in created] == ["3"]
