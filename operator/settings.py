"""What can be set for an operator: flags win over environment variables ``LABLEASE_OPERATOR_<NAME>``."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from lablease.errors import InvalidField
from lablease.model.durations import parse_duration
from lablease.obs.process import ServerSettings


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError("must be host:port, for example 127.0.0.1:8080 or [::1]:8080")
    return text


def _duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value, "duration")
    except InvalidField as problem:
        raise ValueError(problem.problem) from None


Address = Annotated[str, AfterValidator(_address)]


class Settings(ServerSettings):
    """Settings of one operator process."""

    model_config = SettingsConfigDict(
        env_prefix="LABLEASE_OPERATOR_", cli_kebab_case=True, cli_prog_name="lablease operator", cli_hide_none_type=True
    )

    kubeconfig: Path | None = Field(None, description="of the API server (default: KUBECONFIG, else that of the pod)")
    namespace: list[str] = Field(
        default_factory=list[str], description="namespace that is served; may be repeated (default: all)"
    )
    system_namespace: str = Field("lablease-system", description="namespace of our own objects")
    endpoint: Address = Field("localhost:8082", description="where clients and exporters connect, host:port")
    token_lifetime: Annotated[timedelta, BeforeValidator(_duration)] = Field(
        timedelta(days=365), description="of identities, for example 8760h", gt=timedelta(minutes=1)
    )
    metrics: Address | None = Field(None, description="private HTTP port for /metrics /healthz /readyz, host:port")

    @model_validator(mode="after")
    def _defaults(self) -> Self:
        if self.kubeconfig is None and os.environ.get("KUBECONFIG"):
            self.kubeconfig = Path(os.environ["KUBECONFIG"])
        return self
