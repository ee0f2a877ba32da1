"""Arguments and results of driver calls: Python values to and from ``google.protobuf.Value``.

The wire knows doubles only, so ``1`` comes back as ``1.0``; whole numbers that a double holds exactly are
given back as ``int`` (ports, sizes and exit codes are whole, and nothing on the wire tells the two apart).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import Enum
from pathlib import PurePath
from typing import TypeAlias, cast
from uuid import UUID

from google.protobuf.struct_pb2 import ListValue, NullValue, Struct, Value

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_EXACT = 2**53


def to_value(value: object) -> Value:
    """Encode as stock exporters expect it: enums by value, UUIDs and paths as text, timedelta as ISO 8601.

    NaN and infinities become null. Bytes are sent as text.

    Raises:
        ValueError: bytes that are not UTF-8, or a type that has no JSON form.
    """
    match value:
        case None:
            return Value(null_value=NullValue.NULL_VALUE)
        case Enum():
            return to_value(value.value)
        case bool():
            return Value(bool_value=value)
        case int() | float():
            return Value(number_value=value) if math.isfinite(value) else to_value(None)
        case str():
            return Value(string_value=value)
        case bytes():
            return Value(string_value=_text(value))
        case UUID() | PurePath():
            return Value(string_value=str(value))
        case datetime():
            return Value(string_value=value.isoformat())
        case timedelta():
            return Value(string_value=f"PT{value.total_seconds():g}S")
        case Mapping():
            items = cast("Mapping[object, object]", value).items()
            return Value(struct_value=Struct(fields={str(k): to_value(v) for k, v in items}))
        case list() | tuple() | set() | frozenset():
            members = cast("Iterable[object]", value)
            return Value(list_value=ListValue(values=[to_value(v) for v in members]))
        case _:
            raise ValueError(f"a {type(value).__name__} cannot be an argument of a driver call")


def from_value(value: Value) -> Json:
    """Decode; an unset Value is None."""
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _EXACT else number
        case "string_value":
            return value.string_value
        case "list_value":
            return [from_value(v) for v in value.list_value.values]
        case "struct_value":
            return {k: from_value(v) for k, v in value.struct_value.fields.items()}
        case _:
            return None


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError("bytes that are not UTF-8 cannot be an argument; send them as a stream") from None
