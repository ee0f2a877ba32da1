"""What can be set for a front end: flags win over environment variables ``LABLEASE_FRONTEND_<NAME>``."""

import os
import socket
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeFloat, model_validator
from pydantic_settings import SettingsConfigDict

from lablease.grpc_frontend.router.settings import ListenAddress
from lablease.obs.process import ServerSettings


class RouterEntry(BaseModel):
    """One router. On the command line the endpoint alone is enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: ListenAddress
    labels: dict[str, str] = Field(default_factory=dict)


def _router(value: object) -> object:
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return {"endpoint": value}
    return value


class FrontendSettings(ServerSettings):
    """Settings of one front end process."""

    model_config = SettingsConfigDict(
        env_prefix="LABLEASE_FRONTEND_", cli_kebab_case=True, cli_prog_name="lablease frontend", cli_hide_none_type=True
    )

    kubeconfig: Path | None = Field(None, description="of the API server (default: KUBECONFIG, else that of the pod)")
    namespace: str = Field(min_length=1, description="namespace that is served")
    system_namespace: str = Field("lablease-system", description="namespace of our own objects")
    id: str = Field("", description="name of this replica, unique (default: the host name)")
    listen: ListenAddress = Field("127.0.0.1:8082", description="where peers connect, host:port")
    endpoint: str = Field("", description="what peers dial, host:port (default: --listen)")
    router: list[Annotated[RouterEntry, BeforeValidator(_router)]] = Field(
        default_factory=list[RouterEntry],
        description='a router: host:port, or {"endpoint": "host:port", "labels": {...}}; may be repeated',
    )
    router_key_file: Path = Field(description="file with the router key, at least 32 bytes, used as they are")
    router_ca: Path | None = Field(None, description="PEM authorities of the routers (default: those of the system)")
    tls_cert: Path = Field(description="PEM certificate chain; read again when it changes")
    tls_key: Path = Field(description="PEM private key of the certificate")
    ca_bundle: Path | None = Field(None, description="PEM authorities that peers need, told by /v1/auth/config")
    public_http: ListenAddress | None = Field(None, description="public HTTP port: landing page and /v1/auth/config")
    private_http: ListenAddress | None = Field(None, description="private HTTP port for /metrics /healthz /readyz")
    drain_seconds: NonNegativeFloat = Field(5.0, description="how long open calls may go on after SIGTERM")

    @model_validator(mode="after")
    def _defaults(self) -> Self:
        if self.kubeconfig is None and os.environ.get("KUBECONFIG"):
            self.kubeconfig = Path(os.environ["KUBECONFIG"])
        self.id = self.id or socket.gethostname().lower()
        self.endpoint = self.endpoint or self.listen
        return self
