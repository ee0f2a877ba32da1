"""Channels that are given up must not take along the calls of others."""

from typing import cast

import grpc.aio
import pytest

from lablease.exporter_agent.channels import RETIRED_CHANNELS, Channels, Trust


class Channel:
    def __init__(self) -> None:
        self.closed = False

    async def close(self, grace: float | None = None) -> None:
        self.closed = True


def with_open(channels: Channels, endpoint: str) -> Channel:
    made = Channel()
    channels._open[endpoint] = cast("grpc.aio.Channel", made)  # pyright: ignore[reportPrivateUsage]
    return made


async def test_a_channel_that_is_given_up_goes_on_for_the_calls_on_it_until_many_more_were() -> None:
    channels = Channels(Trust(insecure=True))
    made = [with_open(channels, "router:1")]
    await channels.forget("router:1")
    assert not made[0].closed
    for _ in range(RETIRED_CHANNELS):
        made.append(with_open(channels, "router:1"))
        await channels.forget("router:1")
    assert [channel.closed for channel in made] == [True] + [False] * RETIRED_CHANNELS
    await channels.close()
    assert all(channel.closed for channel in made)


@pytest.mark.parametrize("roots", [None, b"PEM"])
async def test_with_roots_of_its_own_no_channel_is_given_up(roots: bytes | None) -> None:
    channels = Channels(Trust(roots))
    made = with_open(channels, "router:1")
    await channels.forget("router:1")
    assert await channels.get("router:1") is cast("grpc.aio.Channel", made)
