"""Frames, values, logs, pipes and encodings of a driver host."""

import asyncio
import bz2
import gzip
import lzma
from enum import Enum
from uuid import UUID

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from lablease.driver.bytestream import BrokenStream, PipeEnd, pipe
from lablease.driver.encodings import BadEncoding, EncodedStream
from lablease.driver.faults import status_code
from lablease.driver.frames import GOAWAY, RST_STREAM, BadFrame, FrameType, data_frame, read_frame
from lablease.driver.logring import LogLine, LogRing, LogSource
from lablease.driver.resources import public_url, redirected
from lablease.driver.values import decode_value, encode_value
from lablease.wire.jumpstarter.v1 import router_pb2


@given(st.binary(max_size=70_000))
def test_a_data_frame_is_what_protobuf_writes_and_is_read_back(payload: bytes) -> None:
    frame = data_frame(payload)
    assert router_pb2.StreamRequest.FromString(frame).payload == payload
    assert read_frame(frame) == (FrameType.DATA, payload)
    assert read_frame(router_pb2.StreamRequest(payload=payload).SerializeToString()) == (FrameType.DATA, payload)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    try:
        read_frame(data)
    except BadFrame:
        return


def test_the_ends_are_what_protobuf_writes() -> None:
    assert router_pb2.StreamRequest(frame_type=router_pb2.FRAME_TYPE_GOAWAY).SerializeToString() == GOAWAY
    assert router_pb2.StreamRequest(frame_type=router_pb2.FRAME_TYPE_RST_STREAM).SerializeToString() == RST_STREAM
    assert read_frame(b"\x10\x63") == (FrameType.PING, b"")


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, True),
        (1, 1.0),
        ("x", "x"),
        (b"x", "x"),
        (Colour.RED, "red"),
        (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        ({1: [2, (3,)]}, {"1": [2.0, [3.0]]}),
    ],
)
def test_values_travel_as_json(value: object, decoded: object) -> None:
    assert decode_value(encode_value(value)) == decoded


def test_a_value_that_is_not_set_is_none_and_bytes_that_are_no_text_are_refused() -> None:
    assert decode_value(Value()) is None
    with pytest.raises(ValueError, match="utf-8"):
        encode_value(b"\xff")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotImplementedError(), grpc.StatusCode.UNIMPLEMENTED),
        (ValueError(), grpc.StatusCode.INVALID_ARGUMENT),
        (TimeoutError(), grpc.StatusCode.DEADLINE_EXCEEDED),
        (ConnectionResetError(), grpc.StatusCode.UNAVAILABLE),
        (FileNotFoundError(), grpc.StatusCode.INTERNAL),
        (KeyError("x"), grpc.StatusCode.UNKNOWN),
    ],
)
def test_what_a_driver_raises_has_its_code(error: Exception, code: grpc.StatusCode) -> None:
    assert status_code(error) is code


async def test_a_full_log_says_how_many_lines_are_lost() -> None:
    ring = LogRing(max_lines=2)
    for number in range(5):
        ring.append(LogLine("INFO", LogSource.SYSTEM, str(number)))
    ring.close()
    lines = [line.message async for line in ring.follow()]
    assert lines[0].startswith("3 log lines were lost")
    assert lines[1:] == ["3", "4"]


async def test_an_aborted_pipe_is_broken_and_an_ended_one_is_not() -> None:
    ours, theirs = pipe()
    await ours.send(b"x")
    await ours.abort("gone")
    with pytest.raises(BrokenStream):
        await theirs.receive()
    ours, theirs = pipe()
    await ours.send(b"x")
    await ours.send_eof()
    await ours.abort("too late to break it")
    assert [await theirs.receive(), await theirs.receive()] == [b"x", b""]


async def test_a_sender_waits_for_a_slow_reader() -> None:
    ours, theirs = pipe()
    sending = asyncio.ensure_future(_send(ours, 100))
    for _ in range(200):
        await asyncio.sleep(0)
    assert not sending.done()
    assert b"".join([await theirs.receive() for _ in range(100)]) == b"x" * 100
    await sending


async def _send(end: PipeEnd, count: int) -> None:
    for _ in range(count):
        await end.send(b"x")


@pytest.mark.parametrize("encoding", ["gzip", "xz", "bz2"])
async def test_an_encoded_stream_decodes_and_refuses_what_is_cut_off(encoding: str) -> None:
    plain = bytes(range(256)) * 20_000
    packed = {"gzip": gzip.compress(plain), "xz": lzma.compress(plain), "bz2": bz2.compress(plain)}[encoding]
    assert await _decode(packed, encoding) == plain
    with pytest.raises(BadEncoding):
        await _decode(packed[: len(packed) // 2], encoding)
    with pytest.raises(BadEncoding):
        await _decode(b"this is no archive", encoding)


async def _decode(packed: bytes, encoding: str) -> bytes:
    ours, theirs = pipe()
    await ours.send(packed)
    await ours.send_eof()
    stream = EncodedStream(theirs, encoding)
    plain = bytearray()
    while data := await stream.receive():
        plain += data
    return bytes(plain)


def test_credentials_stay_with_their_origin_on_a_redirect_and_never_show() -> None:
    headers = {"Authorization": "x", "X-Amz-Date": "y", "Accept": "z"}
    assert redirected("https://a/1", "/2", headers) == ("https://a/2", headers)
    assert redirected("https://a/1", "https://b/2", headers) == ("https://b/2", {"Accept": "z"})
    with pytest.raises(ValueError, match="https"):
        redirected("https://a/1", "http://b/2", headers)
    assert public_url("https://user:pw@a/1?sig=s") == "https://a/1"
