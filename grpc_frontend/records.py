"""What the front end keeps of stored objects beyond the model: enough to leave out writes that change nothing."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from lablease.model.exporter import Exporter, parse_exporter
from lablease.model.fields import Json, as_list, as_mapping, as_string, as_string_map
from lablease.model.keys import Key

REGISTER_MANAGER = "lablease-register"
"""Field manager of the labels that Register applies; labels of other managers stay theirs."""


@dataclass(frozen=True, slots=True)
class ExporterRecord:
    """An exporter, a digest of its devices, and the names of the labels that Register owns."""

    exporter: Exporter
    devices: bytes
    registered_labels: frozenset[str]


def parse_exporter_record(raw: Json) -> ExporterRecord:
    """Read a stored Exporter object."""
    status = as_mapping(raw.get("status"), "status")
    return ExporterRecord(
        exporter=parse_exporter(raw),
        devices=devices_digest(as_list(status.get("devices"), "status.devices")),
        registered_labels=_registered_labels(raw),
    )


def devices_digest(devices: object) -> bytes:
    """Return a digest that is equal for equal lists, whatever the order of keys."""
    return hashlib.sha256(orjson.dumps(devices, option=orjson.OPT_SORT_KEYS)).digest()


def _registered_labels(raw: Json) -> frozenset[str]:
    metadata = as_mapping(raw.get("metadata"), "metadata")
    names: set[str] = set()
    for item in as_list(metadata.get("managedFields"), "metadata.managedFields"):
        entry = as_mapping(item, "metadata.managedFields")
        if entry.get("manager") == REGISTER_MANAGER and entry.get("operation") == "Apply":
            fields = as_mapping(entry.get("fieldsV1"), "fieldsV1")
            labels = as_mapping(as_mapping(fields.get("f:metadata"), "f:metadata").get("f:labels"), "f:labels")
            names.update(name.removeprefix("f:") for name in labels if name.startswith("f:"))
    return frozenset(names)


@dataclass(frozen=True, slots=True)
class ConfigRecord:
    """The text values of one ConfigMap."""

    key: Key
    data: Mapping[str, str] = field(default_factory=dict[str, str])


def parse_config_record(raw: Json) -> ConfigRecord:
    """Read a ConfigMap."""
    metadata = as_mapping(raw.get("metadata"), "metadata")
    key = Key(as_string(metadata.get("namespace"), "namespace"), as_string(metadata.get("name"), "name"))
    return ConfigRecord(key, as_string_map(raw.get("data"), "data"))


def secret_token(raw: Json) -> str:
    """Return the text under ``token`` of a Secret, empty if it has none that can be read."""
    encoded = as_string(as_mapping(raw.get("data"), "data").get("token"), "data.token")
    try:
        return base64.b64decode(encoded, validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return ""
