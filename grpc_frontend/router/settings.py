"""What can be set for a router: flags win over environment variables ``LABLEASE_ROUTER_<NAME>``."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from lablease.obs.process import ServerSettings


class Address(str):
    """``host:port``; an IPv6 host stands in brackets."""

    @property
    def host(self) -> str:
        """The host without brackets."""
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port; 0 lets the system choose."""
        return int(self.rpartition(":")[2])


def _address(value: object) -> Address:
    host, _, port = str(value).rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("must be host:port with a port from 0 to 65535")
    return Address(value)


ListenAddress = Annotated[str, BeforeValidator(_address)]


class RouterSettings(ServerSettings):
    """Settings of one router process."""

    model_config = SettingsConfigDict(
        env_prefix="LABLEASE_ROUTER_", cli_kebab_case=True, cli_prog_name="lablease router", cli_hide_none_type=True
    )

    listen: ListenAddress = Field("127.0.0.1:8083", description="where peers connect, host:port")
    name: str = Field("", description="the endpoint that peers dial, as tokens carry it (default: --listen)")
    key_file: Path = Field(description="file with the router key, at least 32 bytes, used as they are")
    tls_cert: Path = Field(description="PEM certificate chain; read again when it changes")
    tls_key: Path = Field(description="PEM private key of the certificate")
    metrics: ListenAddress | None = Field(None, description="private HTTP port for /metrics /healthz /readyz")
    drain_seconds: NonNegativeFloat = Field(30.0, description="how long open tunnels may go on after SIGTERM")
    max_pending: PositiveInt = Field(1024, description="halves that may wait for their other half")
    max_pending_per_exporter: PositiveInt = Field(64, description="of them, for one exporter")
    max_tunnels: PositiveInt = Field(4096, description="tunnels that may be open")
