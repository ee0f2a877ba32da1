"""What an answer of the API server means in our error tree: the only place that knows its status codes."""

import re

import orjson

from lablease.errors import (
    AlreadyExists,
    Gone,
    InvalidField,
    LableaseError,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    OutcomeUnknown,
    Stale,
    Unavailable,
)
from lablease.kube.resources import Resource
from lablease.model.fields import as_list, as_mapping, as_string

_FIELD = re.compile(r"(?:^|\W)((?:spec|status|metadata)(?:\.[A-Za-z]+|\[\d+\])*)")


def failure(
    code: int, content: bytes, resource: Resource, name: str | None, *, creating: bool = False
) -> LableaseError:
    """Return the error for an HTTP answer of 400 and above; the message is the API server's own sentence."""
    message, field, reason = _read(content)
    subject = name or resource.plural
    match code:
        case 401:
            return NotAuthenticated("the API server does not know our credentials")
        case 403:
            return NotAllowed(message or f"the API server forbids {resource.plural}")
        case 404:
            return NotFound(resource.kind, subject)
        case 409 if creating and reason == "AlreadyExists":
            return AlreadyExists(resource.kind, _name(content) or subject)
        case 409:
            return Stale(f"{resource.kind} {subject} has changed meanwhile")
        case 410:
            return Gone(f"versions of {resource.plural} are no longer kept")
        case 400 | 413 | 415 | 422:
            return InvalidField(field, message or "the API server refuses the object")
        case 500 | 504:
            return OutcomeUnknown(f"API server answered {code}: {message}")
        case _:
            return Unavailable(f"API server answered {code}: {message}")


def _read(content: bytes) -> tuple[str, str, str]:
    try:
        status = as_mapping(orjson.loads(content), "answer")
    except (orjson.JSONDecodeError, InvalidField):
        return content[:200].decode("utf-8", "replace"), "metadata", ""
    message = as_string(status.get("message"), "message")
    causes = as_list(as_mapping(status.get("details"), "details").get("causes"), "details.causes")
    fields = [as_string(as_mapping(cause, "cause").get("field"), "field") for cause in causes]
    named = _FIELD.search(message)
    field = next((item for item in fields if item and item != "<nil>"), named[1] if named else "metadata")
    return message, field, as_string(status.get("reason"), "reason")


def _name(content: bytes) -> str:
    details = as_mapping(as_mapping(orjson.loads(content), "answer").get("details"), "details")
    return as_string(details.get("name"), "details.name")
