"""Reading the record: lines of kube-apiserver audit logs and of emulated devices, as values. Nothing is judged here."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast
from urllib.parse import parse_qs, urlsplit

from lablease.model.keys import Key

GROUP = "jumpstarter.dev"
Json = Mapping[str, object]

_WRITING = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class Unreadable(Exception):
    """A line of a log is not what it should be; says which and why."""


@dataclass(frozen=True, slots=True)
class Access:
    """One request that the API server has answered.

    ``received`` and ``answered`` are the server's own times. ``resource`` carries its group behind a dot unless it is
    the core group. ``object`` is what the answer contained, if the audit policy keeps it.
    """

    where: str
    received: datetime
    answered: datetime
    verb: str
    resource: str
    subresource: str
    key: Key
    user: str
    agent: str
    code: int
    dry_run: bool
    object: Json | None

    @property
    def writes(self) -> bool:
        """True if the request could change something."""
        return self.verb in _WRITING and not self.dry_run

    @property
    def succeeded(self) -> bool:
        """True if the caller was told that it worked."""
        return 200 <= self.code < 300


@dataclass(frozen=True, slots=True)
class DeviceCall:
    """One call that a device carried out. ``lease``, ``client`` and ``grant`` are None where the device cannot know."""

    where: str
    time: datetime
    exporter: str
    device: str
    method: str
    lease: str | None
    client: str | None
    grant: int | None


Entry = Access | DeviceCall


def read_lines(lines: Iterable[str], source: str) -> Iterator[Entry]:
    """Read a log of either kind; each line says by its keys which it is.

    Of an audit log only finished answers are kept (a watch is logged at its start and at its end: the start is left
    out). A last line without its end is left out too: its writer was killed.

    Raises:
        Unreadable: a line is neither.
    """
    for number, line in enumerate(lines, 1):
        where = f"{source}:{number}"
        if not line.strip():
            continue
        try:
            found: object = json.loads(line)
        except ValueError:
            if not line.endswith("\n"):
                return
            raise Unreadable(f"{where}: not JSON") from None
        if not isinstance(found, dict):
            raise Unreadable(f"{where}: must be an object")
        entry = cast(Json, found)
        if str(entry.get("apiVersion", "")).startswith("audit.k8s.io/"):
            if entry.get("stage") in ("ResponseComplete", "Panic"):
                yield _access(entry, where)
        elif "exporter" in entry and "method" in entry:
            yield _device_call(entry, where)
        else:
            raise Unreadable(f"{where}: neither an audit event nor a device call")


def at(found: object, *path: str) -> object:
    """Return what stands under these keys, None if any is missing."""
    for name in path:
        if not isinstance(found, Mapping):
            return None
        found = cast(Json, found).get(name)
    return found


def mapping_at(found: object, *path: str) -> Json:
    """Return the object under these keys, an empty one if there is none."""
    value = at(found, *path)
    return cast(Json, value) if isinstance(value, Mapping) else {}


def texts_at(found: object, *path: str) -> dict[str, str]:
    """Return the map of texts under these keys, an empty one if there is none."""
    return {name: value for name, value in mapping_at(found, *path).items() if isinstance(value, str)}


def list_at(found: object, *path: str) -> Sequence[object]:
    """Return the list under these keys, an empty one if there is none."""
    value = at(found, *path)
    return cast("Sequence[object]", value) if isinstance(value, list) else ()


def text_at(found: object, *path: str) -> str:
    """Return the text under these keys, empty if there is none."""
    value = at(found, *path)
    return value if isinstance(value, str) else ""


def whole_at(found: object, *path: str) -> int:
    """Return the whole number under these keys, 0 if there is none."""
    value = at(found, *path)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def time_at(found: object, *path: str) -> datetime | None:
    """Return the time (RFC 3339) under these keys, None if there is none that can be read."""
    value = text_at(found, *path)
    try:
        return parse_instant(value) if value else None
    except ValueError:
        return None


def parse_instant(text: str) -> datetime:
    """Read an RFC 3339 time; without a zone it counts as UTC.

    Raises:
        ValueError: it is none.
    """
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _access(entry: Json, where: str) -> Access:
    reference = at(entry, "objectRef")
    group = text_at(reference, "apiGroup")
    answer = at(entry, "responseObject")
    received, answered = time_at(entry, "requestReceivedTimestamp"), time_at(entry, "stageTimestamp")
    if received is None or answered is None:
        raise Unreadable(f"{where}: an audit event must have requestReceivedTimestamp and stageTimestamp")
    name = text_at(reference, "name") or text_at(answer, "metadata", "name")
    return Access(
        where=where,
        received=received,
        answered=answered,
        verb=text_at(entry, "verb"),
        resource=text_at(reference, "resource") + (f".{group}" if group else ""),
        subresource=text_at(reference, "subresource"),
        key=Key(text_at(reference, "namespace"), name),
        user=text_at(entry, "user", "username"),
        agent=text_at(entry, "userAgent"),
        code=whole_at(entry, "responseStatus", "code"),
        dry_run="dryRun" in parse_qs(urlsplit(text_at(entry, "requestURI")).query),
        object=mapping_at(answer) or None,
    )


def _device_call(entry: Json, where: str) -> DeviceCall:
    raw = entry.get("time")
    try:
        when = datetime.fromtimestamp(raw, UTC) if isinstance(raw, int | float) else parse_instant(str(raw))
    except (ValueError, OverflowError, OSError):
        raise Unreadable(f"{where}: time must be RFC 3339 or seconds since 1970") from None
    return DeviceCall(
        where=where,
        time=when,
        exporter=text_at(entry, "exporter"),
        device=text_at(entry, "device"),
        method=text_at(entry, "method"),
        lease=text_at(entry, "lease") or None,
        client=text_at(entry, "client") or None,
        grant=whole_at(entry, "grant") or None,
    )
