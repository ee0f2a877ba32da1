"""Our wire packages against the published jumpstarter-protocol 0.9.0, element by element.

A process can register a .proto file name once, and both packages use the same names; so the published descriptors are
dumped by another interpreter, the one that ``make upstream`` sets up.
"""

import importlib
import os
import pkgutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from lablease.wire import jumpstarter

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM_VERSION = "0.9.0"
OUR_MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(jumpstarter.__path__, jumpstarter.__name__ + ".")
    if module.name.endswith("_pb2")
]
"""Loaded before any dump is parsed: they bring the google.api extensions, without which options are bare numbers."""

DUMP = """
import importlib, importlib.metadata, pkgutil, sys
import jumpstarter_protocol as package
from google.protobuf import descriptor_pb2
files = descriptor_pb2.FileDescriptorSet()
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name.endswith("_pb2"):
        importlib.import_module(module.name).DESCRIPTOR.CopyToProto(files.file.add())
sys.stdout.buffer.write(importlib.metadata.version("jumpstarter-protocol").encode() + b"\\n" + files.SerializeToString())
"""

ADDED = frozenset(
    {
        # Newer than 0.9.0, from the additive successors of the published package.
        "rpc jumpstarter.v1.ControllerService.GetServiceEndpoints",
        "message jumpstarter.v1.GetServiceEndpointsRequest",
        "message jumpstarter.v1.GetServiceEndpointsResponse",
        "field jumpstarter.v1.GetServiceEndpointsResponse.telemetry_endpoints",
        "message jumpstarter.v1.TelemetryEndpoint",
        "field jumpstarter.v1.TelemetryEndpoint.endpoint",
        "field jumpstarter.v1.TelemetryEndpoint.certificate",
        "field jumpstarter.v1.TelemetryEndpoint.min_severity",
        "field jumpstarter.v1.StatusResponse.context",
        "field jumpstarter.v1.GetReportResponse.motd",
        "field jumpstarter.v1.LogStreamResponse.driver_type",
        "field jumpstarter.v1.LogStreamResponse.operation",
        "field jumpstarter.v1.LogStreamResponse.timestamp",
        "field jumpstarter.v1.LogStreamResponse.structured_fields",
        "field jumpstarter.client.v1.Lease.context",
        "file jumpstarter/v1/telemetry.proto",
        "service jumpstarter.v1.TelemetryService",
        "rpc jumpstarter.v1.TelemetryService.PushLogs",
        "message jumpstarter.v1.PushLogsRequest",
        "field jumpstarter.v1.PushLogsRequest.entries",
        "message jumpstarter.v1.PushLogsResponse",
        "field jumpstarter.v1.PushLogsResponse.accepted",
        "field jumpstarter.v1.PushLogsResponse.dropped",
        "message jumpstarter.v1.LogEntry",
        "field jumpstarter.v1.LogEntry.timestamp",
        "field jumpstarter.v1.LogEntry.severity",
        "field jumpstarter.v1.LogEntry.message",
        "field jumpstarter.v1.LogEntry.component",
        "field jumpstarter.v1.LogEntry.exporter",
        "field jumpstarter.v1.LogEntry.lease",
        "field jumpstarter.v1.LogEntry.client",
        "field jumpstarter.v1.LogEntry.operation",
        "field jumpstarter.v1.LogEntry.result",
        "field jumpstarter.v1.LogEntry.driver_type",
        "field jumpstarter.v1.LogEntry.extra_fields",
        "field jumpstarter.v1.LogEntry.namespace",
        # Ours, numbered from 1000.
        "field jumpstarter.v1.StatusResponse.grant",
        "field jumpstarter.v1.StatusResponse.planned_end",
        "field jumpstarter.v1.StatusResponse.released_grant",
        "field jumpstarter.v1.ReportStatusRequest.grant",
        "field jumpstarter.v1.ReleaseLeaseRequest.grant",
        "field jumpstarter.client.v1.Lease.grant",
        "field jumpstarter.client.v1.Lease.queue_position",
        "field jumpstarter.client.v1.Lease.estimated_begin",
        "field jumpstarter.client.v1.Lease.idle_timeout",
        "field jumpstarter.client.v1.Lease.wait_timeout",
    }
)

OURS = {
    "field jumpstarter.v1.StatusResponse.grant": "1000 uint64",
    "field jumpstarter.v1.StatusResponse.planned_end": "1001 .google.protobuf.Timestamp",
    "field jumpstarter.v1.StatusResponse.released_grant": "1002 uint64",
    "field jumpstarter.v1.ReportStatusRequest.grant": "1000 uint64",
    "field jumpstarter.v1.ReleaseLeaseRequest.grant": "1000 uint64",
    "field jumpstarter.client.v1.Lease.grant": "1000 uint64 [google.api.field_behavior]: OUTPUT_ONLY",
    "field jumpstarter.client.v1.Lease.queue_position": "1001 uint32 [google.api.field_behavior]: OUTPUT_ONLY",
    "field jumpstarter.client.v1.Lease.estimated_begin": "1002 .google.protobuf.Timestamp [google.api.field_behavior]: OUTPUT_ONLY",
    "field jumpstarter.client.v1.Lease.idle_timeout": "1003 .google.protobuf.Duration",
    "field jumpstarter.client.v1.Lease.wait_timeout": "1004 .google.protobuf.Duration",
    "field jumpstarter.client.v1.Lease.context": "15 map<string, string> [google.api.field_behavior]: IMMUTABLE",
    "field jumpstarter.v1.StatusResponse.context": "4 map<string, string>",
    "field jumpstarter.v1.GetReportResponse.motd": "5 string",
    "field jumpstarter.v1.LogStreamResponse.driver_type": "5 optional string",
    "field jumpstarter.v1.LogStreamResponse.operation": "6 optional string",
    "field jumpstarter.v1.LogStreamResponse.timestamp": "7 optional .google.protobuf.Timestamp",
    "field jumpstarter.v1.LogStreamResponse.structured_fields": "8 map<string, string>",
    "rpc jumpstarter.v1.ControllerService.GetServiceEndpoints": (
        ".jumpstarter.v1.GetServiceEndpointsRequest -> .jumpstarter.v1.GetServiceEndpointsResponse"
    ),
    "rpc jumpstarter.v1.TelemetryService.PushLogs": (
        ".jumpstarter.v1.PushLogsRequest -> .jumpstarter.v1.PushLogsResponse"
    ),
}


def test_every_published_element_is_there_and_equal() -> None:
    published, ours = upstream_elements(), our_elements()

    differences = [f"{name}: published {shape!r}, ours {ours.get(name)!r}" for name, shape in published.items()]
    assert [line for name, line in zip(published, differences, strict=True) if ours.get(name) != published[name]] == []


def test_exactly_the_listed_elements_are_added() -> None:
    added = our_elements().keys() - upstream_elements().keys()

    assert added - ADDED == set(), "add these to the list, or take them out of the .proto files"
    assert ADDED - added == set(), "listed as additions, but not there or published meanwhile"


@pytest.mark.parametrize(("name", "shape"), OURS.items(), ids=OURS)
def test_an_addition_has_the_number_and_type_it_was_given(name: str, shape: str) -> None:
    assert our_elements()[name] == shape


def test_the_dump_sees_the_whole_published_package() -> None:
    kinds = [name.split()[0] for name in upstream_elements()]

    assert Counter(kinds) == {"file": 5, "service": 4, "rpc": 27, "enum": 3, "message": 54, "field": 131}


@cache
def our_elements() -> dict[str, str]:
    files = FileDescriptorSet()
    for module in OUR_MODULES:
        module.DESCRIPTOR.CopyToProto(files.file.add())
    return elements(files)


@cache
def upstream_elements() -> dict[str, str]:
    python = Path(os.environ.get("LABLEASE_UPSTREAM_PYTHON") or ROOT / ".venv-upstream" / "bin" / "python")
    if not python.exists():
        pytest.fail(f"no interpreter with jumpstarter-protocol {UPSTREAM_VERSION} at {python}: run `make upstream`")
    dump = subprocess.run([python, "-c", DUMP], capture_output=True, check=False, timeout=60)
    if dump.returncode != 0:
        pytest.fail(f"{python} cannot dump jumpstarter-protocol, run `make upstream`:\n{dump.stderr.decode()}")
    version, _, files = dump.stdout.partition(b"\n")
    assert version.decode() == UPSTREAM_VERSION, f"{python} has another release: run `make upstream`"
    return elements(FileDescriptorSet.FromString(files))


def elements(files: FileDescriptorSet) -> dict[str, str]:
    """Name every element of the files and describe what a peer can tell about it; order and comments are left out."""
    found: dict[str, str] = {}
    for file in files.file:
        for name, shape in of_file(file):
            assert name not in found, f"{name} is there twice"
            found[name] = shape
    return found


def of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    yield f"file {file.name}", f"package {file.package} {file.syntax}"
    for message in file.message_type:
        yield from of_message(message, file.package)
    for enum in file.enum_type:
        yield from of_enum(enum, file.package)
    for service in file.service:
        yield from of_service(service, file.package)


def of_message(message: DescriptorProto, scope: str) -> Iterator[tuple[str, str]]:
    full_name = f"{scope}.{message.name}"
    yield f"message {full_name}", options(message)
    maps = {f".{full_name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    for field in message.field:
        yield f"field {full_name}.{field.name}", field_shape(field, message, maps)
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from of_message(nested, full_name)
    for enum in message.enum_type:
        yield from of_enum(enum, full_name)


def field_shape(field: FieldDescriptorProto, message: DescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    if entry := maps.get(field.type_name):
        key, value = sorted(entry.field, key=lambda part: part.number)
        return f"{field.number} map<{type_name(key)}, {type_name(value)}> {options(field)}".rstrip()
    words = [str(field.number)]
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        words.append("repeated")
    elif field.proto3_optional:
        words.append("optional")
    elif field.HasField("oneof_index"):
        words.append(f"oneof {message.oneof_decl[field.oneof_index].name}")
    words.append(type_name(field))
    return " ".join([*words, options(field)]).rstrip()


def type_name(field: FieldDescriptorProto) -> str:
    return field.type_name or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def of_enum(enum: EnumDescriptorProto, scope: str) -> Iterator[tuple[str, str]]:
    values = sorted((value.number, value.name) for value in enum.value)
    yield f"enum {scope}.{enum.name}", ", ".join(f"{name} = {number}" for number, name in values)


def of_service(service: ServiceDescriptorProto, scope: str) -> Iterator[tuple[str, str]]:
    yield f"service {scope}.{service.name}", ""
    for method in service.method:
        request = f"{'stream ' if method.client_streaming else ''}{method.input_type}"
        response = f"{'stream ' if method.server_streaming else ''}{method.output_type}"
        yield f"rpc {scope}.{service.name}.{method.name}", f"{request} -> {response} {options(method)}".rstrip()


def options(element: DescriptorProto | FieldDescriptorProto | MethodDescriptorProto) -> str:
    """Spell out all options: deprecation, and the REST mapping and resource names of the google.api annotations."""
    return text_format.MessageToString(element.options, as_one_line=True)
