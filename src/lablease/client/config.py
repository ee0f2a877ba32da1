"""Client configuration: the files that ``jmp`` 0.9.0 reads and writes, so people can use both commands.

Values in a file win over environment variables, which only fill gaps; that is what ``jmp`` does too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import yaml
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lablease.client.errors import ConfigError

_API_VERSION = AliasChoices("apiVersion", "api_version")


def _split(value: object) -> object:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Metadata(_Strict):
    """Which Client object the caller is."""

    namespace: str = Field(min_length=1)
    name: str = Field(min_length=1)


class Tls(_Strict):
    """``ca`` is base64 of PEM; ``insecure`` trusts whatever certificate the server presents first."""

    ca: str = ""
    insecure: bool = False


class Drivers(_Strict):
    """Which client classes of driver packages ``jmp`` may import; our own command imports none and ignores it."""

    allow: Annotated[list[str], BeforeValidator(_split)] = Field(default_factory=list[str])
    unsafe: bool = False


class Shell(_Strict):
    """``use_profiles``: start bash and zsh with the user's profile."""

    use_profiles: bool = False


class Leases(_Strict):
    """Limits in seconds; ``retry_timeout`` 0 never asks for another exporter."""

    acquisition_timeout: int = Field(default=7200, ge=5)
    dial_timeout: float = Field(default=30.0, ge=0)
    retry_timeout: float = Field(default=300.0, ge=0)


class ClientConfig(_Strict):
    """One ``clients/<alias>.yaml``."""

    api_version: Literal["jumpstarter.dev/v1alpha1"] = Field(
        default="jumpstarter.dev/v1alpha1", validation_alias=_API_VERSION, serialization_alias="apiVersion"
    )
    kind: Literal["ClientConfig"] = "ClientConfig"
    metadata: Metadata
    endpoint: str = Field(min_length=1)
    token: str = Field(min_length=1, repr=False)
    refresh_token: str | None = Field(default=None, repr=False)
    tls: Tls = Field(default_factory=Tls)
    grpc_options: dict[str, str | int] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("grpcOptions", "grpc_options"),
        serialization_alias="grpcOptions",
    )
    drivers: Drivers = Field(default_factory=Drivers)
    shell: Shell = Field(default_factory=Shell)
    leases: Leases = Field(default_factory=lambda: Leases())


class CurrentClient(_Strict):
    """What ``config.yaml`` remembers."""

    current_client: str | None = Field(
        default=None,
        validation_alias=AliasChoices("current-client", "current_client"),
        serialization_alias="current-client",
    )


class UserConfig(_Strict):
    """``config.yaml``."""

    api_version: Literal["jumpstarter.dev/v1alpha1"] = Field(
        default="jumpstarter.dev/v1alpha1", validation_alias=_API_VERSION, serialization_alias="apiVersion"
    )
    kind: Literal["UserConfig"] = "UserConfig"
    config: CurrentClient = Field(default_factory=lambda: CurrentClient())


Model = TypeVar("Model", bound=BaseModel)

# Variable -> path of the key it fills. The last three have no prefix in jmp 0.9.0 either.
_ENVIRONMENT: Mapping[str, tuple[str, ...]] = {
    "JMP_NAMESPACE": ("metadata", "namespace"),
    "JMP_NAME": ("metadata", "name"),
    "JMP_ENDPOINT": ("endpoint",),
    "JMP_TOKEN": ("token",),
    "JMP_DRIVERS_ALLOW": ("drivers", "allow"),
    "ACQUISITION_TIMEOUT": ("leases", "acquisition_timeout"),
    "DIAL_TIMEOUT": ("leases", "dial_timeout"),
    "RETRY_TIMEOUT": ("leases", "retry_timeout"),
}


def config_home(env: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of ``config.yaml``, ``clients/`` and ``exporters/``."""
    if home := env.get("JMP_CLIENT_CONFIG_HOME"):
        return Path(home)
    base = Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "jumpstarter"


def client_path(alias: str, env: Mapping[str, str] = os.environ) -> Path:
    """Return the file of a client alias.

    Raises:
        ConfigError: the alias is no plain file name.
    """
    if not alias or "/" in alias or alias in {".", ".."}:
        raise ConfigError("--client", "", f"{alias!r} is not an alias; it must be a plain file name without .yaml")
    return config_home(env) / "clients" / f"{alias}.yaml"


def read_client(path: Path, env: Mapping[str, str] = os.environ) -> ClientConfig:
    """Read one client file; variables fill what it does not say.

    Raises:
        ConfigError: names the file and the key.
    """
    return _validate(ClientConfig, _with_environment(_load(path), env), path)


def client_from_environment(env: Mapping[str, str] = os.environ) -> ClientConfig:
    """Build the configuration from variables alone.

    Raises:
        ConfigError: a value is missing or wrong.
    """
    return _validate(ClientConfig, _with_environment({}, env), "environment (JMP_NAME, JMP_NAMESPACE, JMP_ENDPOINT, …)")


def read_user(env: Mapping[str, str] = os.environ) -> UserConfig:
    """Read ``config.yaml``; a missing file is an empty one."""
    path = config_home(env) / "config.yaml"
    return _validate(UserConfig, _load(path), path) if path.exists() else UserConfig()


def choose_client(
    alias: str | None = None, path: Path | None = None, env: Mapping[str, str] = os.environ
) -> ClientConfig:
    """Return the configuration to use: the named one, the environment's, or the current client's.

    The environment counts only if both JMP_NAME and JMP_NAMESPACE are set.

    Raises:
        ConfigError: both were named, or none can be found; says how to get one.
    """
    if alias and path:
        raise ConfigError("--client-config", "", "give either --client or --client-config")
    if path:
        return read_client(path, env)
    if alias:
        return read_client(client_path(alias, env), env)
    if env.get("JMP_NAME") and env.get("JMP_NAMESPACE"):
        return client_from_environment(env)
    current = read_user(env).config.current_client
    if current and (file := client_path(current, env)).exists():
        return read_client(file, env)
    raise ConfigError(
        config_home(env) / "config.yaml",
        "config.current-client",
        "no client is chosen; name one with --client or --client-config, set JMP_NAME and JMP_NAMESPACE, "
        "or choose one with `jmp config client use`",
    )


def list_clients(env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the aliases there are, sorted."""
    return tuple(sorted(p.stem for p in (config_home(env) / "clients").glob("*.yaml")))


def write_client(path: Path, config: ClientConfig) -> None:
    """Write a client file, readable by its owner only. ``leases`` is left out while it is all defaults."""
    data = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    if config.leases == Leases():
        del data["leases"]
    write_private(path, data)


def use_client(alias: str | None, env: Mapping[str, str] = os.environ) -> None:
    """Make an alias the current client."""
    config = UserConfig(config=CurrentClient(current_client=alias))
    write_private(config_home(env) / "config.yaml", config.model_dump(mode="json", by_alias=True))


def write_private(path: Path, data: Mapping[str, Any]) -> None:
    """Write YAML at once or not at all (temporary file, fsync, rename), mode 0600.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                yaml.safe_dump(dict(data), file, sort_keys=False)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(path, "", f"cannot be written: {error.strerror}") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        data: Any = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(path, "", "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, "", f"cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(path, "", f"{place}not YAML: {getattr(error, 'problem', error)}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(path, "", f"must be a mapping, is a {type(data).__name__}")
    return cast("dict[str, Any]", data)


def _with_environment(data: dict[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    filled = dict(data)
    for variable, (*parents, key) in _ENVIRONMENT.items():
        if not (value := env.get(variable)):
            continue
        target = filled
        for parent in parents:
            inner: Any = target.get(parent) or {}
            if not isinstance(inner, dict):
                break  # validation will say so, with its key
            copy = dict(cast("dict[str, Any]", inner))
            target[parent] = copy
            target = copy
        else:
            target.setdefault(key, value)
    return filled


def _validate(model: type[Model], data: Mapping[str, Any], where: Path | str) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        problem = "unknown key" if first["type"] == "extra_forbidden" else first["msg"][:1].lower() + first["msg"][1:]
        raise ConfigError(where, key, problem) from None
