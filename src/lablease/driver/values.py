"""Arguments and results of driver calls: Python values to and from ``google.protobuf.Value``.

The wire form is the JSON form of the value, as pydantic writes it: bytes must be UTF-8, NaN and infinities become null,
sets become lists, keys become strings, dataclasses and models become objects. Every number arrives as a float.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, cast

from google.protobuf.struct_pb2 import ListValue, NullValue, Struct, Value
from pydantic import TypeAdapter

JsonValue: TypeAlias = "bool | float | str | list[JsonValue] | dict[str, JsonValue] | None"

_ANY: Final[TypeAdapter[object]] = TypeAdapter(Any)
_NULL: Final = NullValue.Value("NULL_VALUE")


def encode_value(value: object) -> Value:
    """Return the wire form of a result.

    Raises:
        ValueError: the value has no JSON form (bytes that are no UTF-8, an arbitrary object).
    """
    match value:
        case None:
            return Value(null_value=_NULL)
        case bool():
            return Value(bool_value=value)
        case str() if type(value) is str:
            return Value(string_value=value)
        case int() | float() if type(value) in (int, float) and math.isfinite(value):
            return Value(number_value=float(value))
        case _:
            return _from_json(json.loads(_ANY.dump_json(value)))


def decode_value(value: Value) -> JsonValue:
    """Return the Python value; a Value in which nothing is set is None."""
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            return value.number_value
        case "string_value":
            return value.string_value
        case "list_value":
            return [decode_value(item) for item in value.list_value.values]
        case "struct_value":
            return {key: decode_value(item) for key, item in value.struct_value.fields.items()}
        case _:
            return None


def _from_json(value: object) -> Value:
    match value:
        case None:
            return Value(null_value=_NULL)
        case bool():
            return Value(bool_value=value)
        case int() | float():
            return Value(number_value=float(value))
        case str():
            return Value(string_value=value)
        case list():
            items = cast("Iterable[object]", value)
            return Value(list_value=ListValue(values=[_from_json(item) for item in items]))
        case dict():
            fields = cast("Mapping[str, object]", value)
            return Value(struct_value=Struct(fields={key: _from_json(item) for key, item in fields.items()}))
        case _:
            raise ValueError(f"{type(value).__name__} has no JSON form")
