"""Callers of the raw stubs, and an exporter that is online for one test."""

import asyncio
from collections.abc import AsyncGenerator

import grpc
import grpc.aio
import pytest

from lablease.testing.raw import (
    AVAILABLE,
    DEVICES,
    Online,
    Peer,
    peer,
)
from lablease.testing.stack import Identity, Stack
from lablease.wire.jumpstarter.v1 import jumpstarter_pb2


@pytest.fixture
async def channel(stack: Stack) -> AsyncGenerator[grpc.aio.Channel]:
    credentials = grpc.ssl_channel_credentials(stack.ca)
    async with grpc.aio.secure_channel(stack.endpoint, credentials) as opened:
        yield opened


@pytest.fixture(scope="session")
def people(stack: Stack) -> dict[str, Identity]:
    return {"alice": stack.make_client("alice"), "bob": stack.make_client("bob"), "board": stack.make_exporter("fixed")}


@pytest.fixture
def alice(channel: grpc.aio.Channel, stack: Stack, people: dict[str, Identity]) -> Peer:
    return peer(channel, stack, people["alice"])


@pytest.fixture
def bob(channel: grpc.aio.Channel, stack: Stack, people: dict[str, Identity]) -> Peer:
    return peer(channel, stack, people["bob"])


@pytest.fixture
def board(channel: grpc.aio.Channel, stack: Stack, people: dict[str, Identity]) -> Peer:
    """An exporter that exists and never connects."""
    return peer(channel, stack, people["board"])


@pytest.fixture
async def online(channel: grpc.aio.Channel, stack: Stack) -> AsyncGenerator[Online]:
    who = await asyncio.to_thread(stack.make_exporter, "raw")
    found = Online(peer(channel, stack, who), stack, None)
    await found.peer.call("Register", jumpstarter_pb2.RegisterRequest(reports=DEVICES))
    await found.report(AVAILABLE, "here")
    await found.open_status()
    assert not (await found.told()).leased
    yield found
    for stream in found.streams:
        stream.cancel()
    await found.peer.call("Unregister", jumpstarter_pb2.UnregisterRequest(reason="test over"))
