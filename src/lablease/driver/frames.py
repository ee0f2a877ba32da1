"""Frames of ``jumpstarter.v1.RouterService.Stream`` as raw bytes.

StreamRequest and StreamResponse have one shape (payload = field 1, frame_type = field 2). Payloads are copied through
several processes, so a frame is built and taken apart by hand: no message object, no second copy of the payload.
"""

from enum import IntEnum
from typing import Final

MAX_PAYLOAD: Final = 64 * 1024
"""Bytes of one DATA frame that we send; released peers read 64 KiB from their sockets and send the same."""

_PAYLOAD_TAG: Final = 0x0A
_TYPE_TAG: Final = 0x10
_LENGTH_DELIMITED: Final = 2
_MAX_VARINT_BYTES: Final = 10


class FrameType(IntEnum):
    """Numbers of the wire enum; a number that is not listed is read as PING, which carries nothing."""

    DATA = 0
    RST_STREAM = 3
    PING = 6
    GOAWAY = 7


class BadFrame(ValueError):
    """The bytes are no frame."""


GOAWAY: Final = bytes((_TYPE_TAG, FrameType.GOAWAY))
RST_STREAM: Final = bytes((_TYPE_TAG, FrameType.RST_STREAM))


def data_frame(payload: bytes | bytearray | memoryview) -> bytes:
    """Return the frame that carries ``payload``."""
    size = len(payload)
    header = bytearray((_PAYLOAD_TAG,))
    while size > 0x7F:
        header.append(size & 0x7F | 0x80)
        size >>= 7
    header.append(size)
    return b"".join((header, payload))


def read_frame(frame: bytes) -> tuple[FrameType, bytes]:
    """Take a frame apart.

    Raises:
        BadFrame: cut off, or a field with a wire type that the message does not have. Unknown fields are skipped.
    """
    kind, payload, at, end = 0, b"", 0, len(frame)
    while at < end:
        tag, at = _varint(frame, at)
        if tag == _PAYLOAD_TAG:
            size, at = _varint(frame, at)
            if at + size > end:
                raise BadFrame("payload is cut off")
            payload = frame[at : at + size]
            at += size
        elif tag == _TYPE_TAG:
            kind, at = _varint(frame, at)
        else:
            at = _skip(frame, at, tag & 7)
    try:
        return FrameType(kind), payload
    except ValueError:
        return FrameType.PING, b""


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for index in range(at, min(at + _MAX_VARINT_BYTES, len(frame))):
        byte = frame[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise BadFrame("a number is cut off")


def _skip(frame: bytes, at: int, wire_type: int) -> int:
    if wire_type == 0:
        return _varint(frame, at)[1]
    if wire_type == _LENGTH_DELIMITED:
        size, at = _varint(frame, at)
    elif wire_type in (1, 5):
        size = 8 if wire_type == 1 else 4
    else:
        raise BadFrame(f"wire type {wire_type} is not in use")
    if at + size > len(frame):
        raise BadFrame("a field is cut off")
    return at + size
