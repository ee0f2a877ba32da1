"""What the lab's administrator set in the ConfigMap that jumpstarter's controller reads, as far as it concerns us."""

from dataclasses import dataclass, field
from typing import Any

import structlog
import yaml

from lablease.errors import InvalidField
from lablease.grpc_frontend.records import ConfigRecord
from lablease.grpc_frontend.store import Store
from lablease.model.fields import as_int, as_list, as_mapping, as_string, as_string_map
from lablease.rules.names import MAXIMUM_TAGS
from lablease.wire.codec_client import LabelRules

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LabSettings:
    """Settings of the lab; without the ConfigMap the defaults hold."""

    labels: LabelRules = field(default_factory=LabelRules)
    maximum_tags: int = MAXIMUM_TAGS


def parse_lab_settings(text: str) -> LabSettings:
    """Read the value ``config`` of the ConfigMap.

    Raises:
        InvalidField: it is no YAML, or one of our fields has another type.
    """
    try:
        parsed: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidField("config", f"is no YAML: {error}") from None
    raw = as_mapping(parsed, "config")
    hidden = as_mapping(raw.get("hiddenLabels"), "hiddenLabels")
    deprecated = as_mapping(raw.get("deprecatedLabels"), "deprecatedLabels")
    policy = as_mapping(raw.get("leasePolicy"), "leasePolicy")
    keys = [as_string(item, "hiddenLabels.keys") for item in as_list(hidden.get("keys"), "hiddenLabels.keys")]
    limit = as_int(policy.get("maxTags"), "leasePolicy.maxTags")
    return LabSettings(
        LabelRules(frozenset(keys), as_string_map(deprecated.get("keys"), "deprecatedLabels.keys")),
        min(limit, MAXIMUM_TAGS) if limit > 0 else MAXIMUM_TAGS,
    )


class Lab:
    """The settings as they are now."""

    def __init__(self, store: Store) -> None:
        self.settings = LabSettings()
        store.lab_settings.add_listener(self._changed)

    def _changed(self, _old: ConfigRecord | None, new: ConfigRecord | None) -> None:
        try:
            self.settings = parse_lab_settings(new.data.get("config", "")) if new is not None else LabSettings()
        except InvalidField as error:
            log.error("lab_settings.unreadable", reason=str(error))
