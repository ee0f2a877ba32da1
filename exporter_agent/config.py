"""The exporter's configuration file: the format and the places of ``jmp run`` 0.9.0."""

import base64
import binascii
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lablease.driver.config import Entry
from lablease.exporter_agent.errors import ConfigProblem

SYSTEM_DIRECTORY: Final = Path("/etc/jumpstarter/exporters")
_MAPPING: Final[TypeAdapter[dict[str, object]]] = TypeAdapter(dict[str, object])
INSECURE_VARIABLES: Final = ("JUMPSTARTER_GRPC_INSECURE", "JMP_GRPC_INSECURE")


class Metadata(BaseModel):
    """Who the exporter is."""

    name: str = Field(min_length=1)
    namespace: str | None = None


class Tls(BaseModel):
    """``ca``: base64 of PEM. ``insecure``: trust the chain that the server shows; host names are still checked."""

    ca: str = ""
    insecure: bool = False


class Hook(BaseModel):
    """A script around a lease. ``timeout`` in seconds."""

    model_config = ConfigDict(populate_by_name=True)

    script: str = Field(min_length=1)
    timeout: int = Field(default=120, ge=1)
    on_failure: Literal["warn", "endLease", "exit"] = Field(
        default="warn", validation_alias=AliasChoices("onFailure", "on_failure")
    )
    exec: str | None = None


class Hooks(BaseModel):
    """Both hooks."""

    before_lease: Hook | None = Field(default=None, validation_alias=AliasChoices("beforeLease", "before_lease"))
    after_lease: Hook | None = Field(default=None, validation_alias=AliasChoices("afterLease", "after_lease"))


class FailureDetection(BaseModel):
    """A driver host that ends by itself ``max_rapid_failures`` times, each within the window of seconds, is given up."""

    max_rapid_failures: int = Field(
        default=5, ge=1, validation_alias=AliasChoices("maxRapidFailures", "max_rapid_failures")
    )
    rapid_failure_window: int = Field(
        default=60, ge=1, validation_alias=AliasChoices("rapidFailureWindow", "rapid_failure_window")
    )


class ExporterConfig(BaseModel):
    """One file."""

    api_version: Literal["jumpstarter.dev/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["ExporterConfig"]
    metadata: Metadata
    endpoint: str | None = None
    token: str | None = Field(default=None, repr=False)
    tls: Tls = Tls()
    grpc_options: dict[str, str | int] = Field(
        default_factory=dict, validation_alias=AliasChoices("grpcOptions", "grpcConfig")
    )
    description: str | None = None
    export: dict[str, Entry] = Field(default_factory=dict)
    hooks: Hooks = Hooks()
    failure_detection: FailureDetection = Field(default=FailureDetection(), alias="failureDetection")
    motd: str | None = None
    exit_on_lease_end: bool = Field(default=False, alias="exitOnLeaseEnd")
    driver_python: str | None = Field(default=None, alias="driverPython")
    """Interpreter that has the upstream driver packages; LABLEASE_DRIVER_PYTHON, else the agent's own."""

    def trusted_roots(self, env: Mapping[str, str]) -> bytes | None:
        """Return the configured roots as PEM, None for those of the system.

        Raises:
            ConfigProblem: ``tls.ca`` is no base64 of PEM.
        """
        if not self.tls.ca or self.insecure(env):
            return None
        try:
            pem = base64.b64decode(self.tls.ca, validate=True)
        except binascii.Error:
            pem = b""
        if b"-----BEGIN CERTIFICATE-----" not in pem:
            raise ConfigProblem("tls.ca: must be base64 of certificates in PEM form")
        return pem

    def insecure(self, env: Mapping[str, str]) -> bool:
        """Tell whether certificates are trusted as shown."""
        return self.tls.insecure or any(env.get(name) == "1" for name in INSECURE_VARIABLES)


def find(alias: str, env: Mapping[str, str], home: Path) -> Path:
    """Return the file of an exporter alias: the user's own wins over the system's.

    Raises:
        ConfigProblem: the alias is a path, or no file has that name.
    """
    if not alias or os.path.basename(alias) != alias:
        raise ConfigProblem(f"exporter {alias!r}: must be a plain name; use --exporter-config for a path")
    if config_home := env.get("JMP_CLIENT_CONFIG_HOME"):
        base = Path(config_home)
    elif xdg := env.get("XDG_CONFIG_HOME"):
        base = Path(xdg) / "jumpstarter"
    else:
        base = home / ".config" / "jumpstarter"
    candidates = [base / "exporters" / f"{alias}.yaml", SYSTEM_DIRECTORY / f"{alias}.yaml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ConfigProblem(f"exporter {alias!r}: no file {' and no file '.join(map(str, candidates))}")


def load(path: Path, env: Mapping[str, str]) -> tuple[ExporterConfig, tuple[str, ...]]:
    """Read a file. JMP_NAME, JMP_NAMESPACE, JMP_ENDPOINT and JMP_TOKEN fill what it leaves open.

    Returns:
        The configuration, and the names of top-level keys that mean nothing.

    Raises:
        ConfigProblem: unreadable, no YAML mapping, or a field that is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigProblem(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigProblem(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    try:
        fields = _MAPPING.validate_python(content)
        metadata = dict(_MAPPING.validate_python(fields.get("metadata") or {}))
    except ValidationError:
        raise ConfigProblem(f"{path}: must be a mapping with apiVersion, kind and metadata") from None
    for key, variable in (("name", "JMP_NAME"), ("namespace", "JMP_NAMESPACE")):
        if metadata.get(key) is None and variable in env:
            metadata[key] = env[variable]
    fields["metadata"] = metadata
    for key, variable in (("endpoint", "JMP_ENDPOINT"), ("token", "JMP_TOKEN")):
        if fields.get(key) is None and variable in env:
            fields[key] = env[variable]
    try:
        config = ExporterConfig.model_validate(fields)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigProblem(f"{path}: {problems}") from error
    return config, tuple(sorted(fields.keys() - _known_keys()))


def _known_keys() -> set[str]:
    known: set[str] = set()
    for name, field in ExporterConfig.model_fields.items():
        alias = field.validation_alias
        known |= {str(choice) for choice in alias.choices} if isinstance(alias, AliasChoices) else {str(alias or name)}
    return known


def store_token(path: Path, token: str) -> None:
    """Put a new token into the file, atomically and readable by its owner only; everything else stays.

    Comments do not survive. Raises OSError or ConfigProblem; the old file is then untouched.
    """
    try:
        content = _MAPPING.validate_python(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigProblem(f"{path}: must be a mapping") from error
    content["token"] = token
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w") as file:
            yaml.safe_dump(content, file, sort_keys=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
