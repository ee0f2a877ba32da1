"""Between messages of ``jumpstarter.v1`` and the model. Pure: no clock, no network."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lablease.errors import InvalidField
from lablease.model.exporter import ExporterStatus
from lablease.model.lease import Lease
from lablease.model.meta import Condition
from lablease.model.selector import Selector, parse_selector
from lablease.wire.jumpstarter.v1 import common_pb2, jumpstarter_pb2, kubernetes_pb2

_STATUS_NUMBERS: Mapping[ExporterStatus, "common_pb2.ExporterStatus.ValueType"] = MappingProxyType(
    {
        ExporterStatus.UNSPECIFIED: common_pb2.EXPORTER_STATUS_UNSPECIFIED,
        ExporterStatus.OFFLINE: common_pb2.EXPORTER_STATUS_OFFLINE,
        ExporterStatus.AVAILABLE: common_pb2.EXPORTER_STATUS_AVAILABLE,
        ExporterStatus.BEFORE_LEASE_HOOK: common_pb2.EXPORTER_STATUS_BEFORE_LEASE_HOOK,
        ExporterStatus.LEASE_READY: common_pb2.EXPORTER_STATUS_LEASE_READY,
        ExporterStatus.AFTER_LEASE_HOOK: common_pb2.EXPORTER_STATUS_AFTER_LEASE_HOOK,
        ExporterStatus.BEFORE_LEASE_HOOK_FAILED: common_pb2.EXPORTER_STATUS_BEFORE_LEASE_HOOK_FAILED,
        ExporterStatus.AFTER_LEASE_HOOK_FAILED: common_pb2.EXPORTER_STATUS_AFTER_LEASE_HOOK_FAILED,
    }
)
_STATUS_WORDS: Mapping[int, ExporterStatus] = {number: word for word, number in _STATUS_NUMBERS.items()}

_MAXIMUM_REQUIREMENTS = 100
"""Of a selector that a peer sends; no person writes more."""


def status_number(status: ExporterStatus | None) -> "common_pb2.ExporterStatus.ValueType":
    """Return the wire number; absent is 0, since jmp 0.9.0 fails on numbers that it does not know."""
    return _STATUS_NUMBERS[status or ExporterStatus.UNSPECIFIED]


def status_word(number: int) -> ExporterStatus:
    """Return the status of a wire number; one of a later version reads as Unspecified."""
    return _STATUS_WORDS.get(number, ExporterStatus.UNSPECIFIED)


def timestamp(value: datetime) -> Timestamp:
    """Return an instant as a message."""
    message = Timestamp()
    message.FromDatetime(value)
    return message


def duration(value: timedelta) -> Duration:
    """Return a length as a message."""
    message = Duration()
    message.FromTimedelta(value)
    return message


def read_timestamp(message: Timestamp, field: str) -> datetime:
    """Read an instant.

    Raises:
        InvalidField: outside the years 1 to 9999.
    """
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidField(field, "must be a time in the years 1 to 9999") from None


def read_duration(message: Duration, field: str) -> timedelta:
    """Read a length.

    Raises:
        InvalidField: longer than 10,000 years, or seconds and nanoseconds of opposite sign.
    """
    try:
        return message.ToTimedelta()
    except (ValueError, OverflowError):
        raise InvalidField(field, "must be a duration of at most 10,000 years") from None


def condition_message(item: Condition) -> kubernetes_pb2.Condition:
    """Return a condition as a message, each field present."""
    seconds = int(item.last_transition.timestamp())
    return kubernetes_pb2.Condition(
        type=item.type,
        status=str(item.status),
        observedGeneration=item.observed_generation,
        lastTransitionTime=kubernetes_pb2.Time(seconds=seconds, nanos=item.last_transition.microsecond * 1000),
        reason=item.reason,
        message=item.message,
    )


def selector_message(selector: Selector) -> kubernetes_pb2.LabelSelector:
    """Return a selector as a message."""
    return kubernetes_pb2.LabelSelector(
        match_labels=dict(selector.match_labels),
        match_expressions=[
            kubernetes_pb2.LabelSelectorRequirement(key=item.key, operator=str(item.operator), values=item.values)
            for item in selector.expressions
        ],
    )


def read_selector(message: kubernetes_pb2.LabelSelector, field: str) -> Selector:
    """Read a selector.

    Raises:
        InvalidField: an unknown operator, values where none belong or none where some do, or too many requirements.
    """
    if len(message.match_labels) + len(message.match_expressions) > _MAXIMUM_REQUIREMENTS:
        raise InvalidField(field, f"must have at most {_MAXIMUM_REQUIREMENTS} requirements")
    return parse_selector(
        {
            "matchLabels": dict(message.match_labels),
            "matchExpressions": [
                {"key": item.key, "operator": item.operator, "values": list(item.values)}
                for item in message.match_expressions
            ],
        },
        field,
    )


def device_reports(reports: Iterable[jumpstarter_pb2.DriverInstanceReport]) -> list[dict[str, object]]:
    """Return the tree of drivers as ``status.devices`` has it: help texts are not kept."""
    return [_device(item) for item in reports]


def _device(report: jumpstarter_pb2.DriverInstanceReport) -> dict[str, object]:
    device: dict[str, object] = {"uuid": report.uuid}
    if report.HasField("parent_uuid"):
        device["parent_uuid"] = report.parent_uuid
    if report.labels:
        device["labels"] = dict(report.labels)
    return device


def lease_response(lease: Lease, exporter_uid: str | None) -> jumpstarter_pb2.GetLeaseResponse:
    """Return a lease as ControllerService tells it."""
    message = jumpstarter_pb2.GetLeaseResponse(
        selector=selector_message(lease.spec.selector),
        exporter_uuid=exporter_uid,
        conditions=[condition_message(item) for item in lease.status.conditions],
    )
    if lease.spec.duration is not None:
        message.duration.FromTimedelta(lease.spec.duration)
    if lease.status.begin is not None:
        message.begin_time.FromDatetime(lease.status.begin)
    if lease.status.end is not None:
        message.end_time.FromDatetime(lease.status.end)
    return message
