"""Whose session stands in an exporter's status, and who clears it when."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

import pytest

from lablease.grpc_frontend.records import ExporterRecord, parse_exporter_record
from lablease.grpc_frontend.sessions import Sessions
from lablease.grpc_frontend.store import Store
from lablease.model.exporter import Exporter
from lablease.model.keys import Key

KEY = Key("lab", "e1")
GRACE = timedelta(seconds=0.05)


@dataclass(slots=True)
class OneExporter:
    """The status of one exporter; ``gate`` holds up writes, as an API server that hangs does."""

    status: dict[str, object] = field(default_factory=dict[str, object])
    version: int = 1
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def record(self) -> ExporterRecord:
        meta = {"namespace": "lab", "name": "e1", "uid": "u", "resourceVersion": str(self.version)}
        return parse_exporter_record({"metadata": meta, "status": self.status})

    def exporter(self, key: Key) -> Exporter:
        assert key == KEY
        return self.record().exporter

    async def patch_exporter_status(
        self, key: Key, status: Mapping[str, object], seen: str | None = None
    ) -> ExporterRecord:
        await self.gate.wait()
        assert seen in (None, str(self.version))
        self.version += 1
        merged = self.status | dict(status)
        self.status = {name: value for name, value in merged.items() if value is not None}
        return self.record()

    @property
    def session(self) -> str | None:
        found = self.record().exporter.session
        return None if found is None else found.id


@pytest.fixture
def lab() -> OneExporter:
    made = OneExporter()
    made.gate.set()
    return made


@pytest.fixture
def sessions(lab: OneExporter) -> Sessions:
    return Sessions(cast("Store", lab), "f1", GRACE)


async def cleared(lab: OneExporter) -> None:
    async with asyncio.timeout(5):
        while lab.session is not None:
            await asyncio.sleep(0.005)


async def test_a_session_is_cleared_after_the_grace(lab: OneExporter, sessions: Sessions) -> None:
    session = sessions.begin(KEY)
    await sessions.claim(session)
    sessions.close(session)
    assert lab.session == session.id
    await cleared(lab)


async def test_an_exporter_that_is_back_within_the_grace_keeps_its_new_session(
    lab: OneExporter, sessions: Sessions
) -> None:
    old, new = sessions.begin(KEY), sessions.begin(KEY)
    await sessions.claim(old)
    sessions.close(old)
    await sessions.claim(new)
    await asyncio.sleep(GRACE.total_seconds() * 3)
    assert lab.session == new.id


async def test_of_two_streams_that_end_the_newer_first_nothing_is_left(lab: OneExporter, sessions: Sessions) -> None:
    older, newer = sessions.begin(KEY), sessions.begin(KEY)
    await sessions.claim(older)
    await sessions.claim(newer)
    sessions.close(newer)
    sessions.close(older)
    await cleared(lab)


async def test_a_stream_that_ends_before_its_session_is_written_leaves_that_of_before_to_be_cleared(
    lab: OneExporter, sessions: Sessions
) -> None:
    first, second = sessions.begin(KEY), sessions.begin(KEY)
    await sessions.claim(first)
    sessions.close(first)
    lab.gate.clear()
    claiming = asyncio.create_task(sessions.claim(second))
    await asyncio.sleep(0)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    sessions.close(second)
    lab.gate.set()
    await cleared(lab)
