"""Client configuration files: the rules of jmp 0.9.0."""

import os
import stat
from pathlib import Path

import pytest

from lablease.client.channel import Trust, split_endpoint
from lablease.client.config import (
    ClientConfig,
    Leases,
    Metadata,
    choose_client,
    client_path,
    config_home,
    list_clients,
    read_client,
    read_user,
    use_client,
    write_client,
)
from lablease.client.errors import ConfigError

FILE = """\
apiVersion: jumpstarter.dev/v1alpha1
kind: ClientConfig
metadata: {namespace: lab, name: me}
endpoint: lab.example:443
token: secret-token
tls: {ca: "", insecure: true}
grpcOptions: {grpc.keepalive_time_ms: 1000}
drivers: {allow: "a.*,b.*"}
"""


def home(path: Path) -> dict[str, str]:
    return {"JMP_CLIENT_CONFIG_HOME": str(path)}


def test_a_file_of_jmp_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "me.yaml"
    file.write_text(FILE)
    config = read_client(file, {})
    assert config.metadata == Metadata(namespace="lab", name="me")
    assert config.tls.insecure
    assert config.grpc_options == {"grpc.keepalive_time_ms": 1000}
    assert config.drivers.allow == ["a.*", "b.*"]
    assert (config.leases.acquisition_timeout, config.leases.dial_timeout, config.leases.retry_timeout) == (
        7200,
        30,
        300,
    )


def test_values_of_the_file_win_over_the_environment_which_fills_gaps(tmp_path: Path) -> None:
    file = tmp_path / "me.yaml"
    file.write_text(FILE)
    config = read_client(
        file, {"JMP_TOKEN": "other", "JMP_NAME": "other", "DIAL_TIMEOUT": "7", "JMP_DRIVERS_ALLOW": "x"}
    )
    assert config.token == "secret-token"
    assert config.metadata.name == "me"
    assert config.leases.dial_timeout == 7
    assert config.drivers.allow == ["a.*", "b.*"]


@pytest.mark.parametrize(
    ("text", "key", "problem"),
    [
        (FILE + "colour: red\n", "colour", "unknown key"),
        (FILE.replace("name: me", "nam: me"), "metadata.name", "field required"),
        (FILE.replace("endpoint: lab.example:443\n", ""), "endpoint", "field required"),
        (FILE.replace("kind: ClientConfig", "kind: ExporterConfig"), "kind", "ClientConfig"),
        (FILE + "leases: {acquisition_timeout: 1}\n", "leases.acquisition_timeout", "greater than or equal to 5"),
        (FILE.replace("metadata: {namespace: lab, name: me}", "metadata: me"), "metadata", "dictionary"),
        ("a: [", "", "line 1"),
        ("- a", "", "must be a mapping"),
    ],
)
def test_an_error_names_the_file_and_the_key(tmp_path: Path, text: str, key: str, problem: str) -> None:
    file = tmp_path / "me.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_client(file, {})
    assert caught.value.key == key
    assert str(file) in str(caught.value)
    assert problem in str(caught.value)
    assert "secret-token" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file"):
        read_client(tmp_path / "gone.yaml", {})


def test_a_token_is_not_shown() -> None:
    config = ClientConfig(metadata=Metadata(namespace="lab", name="me"), endpoint="e:1", token="secret-token")
    assert "secret-token" not in repr(config)


def test_the_config_home_follows_the_variables_in_order() -> None:
    assert config_home({"JMP_CLIENT_CONFIG_HOME": "/a", "XDG_CONFIG_HOME": "/b"}) == Path("/a")
    assert config_home({"XDG_CONFIG_HOME": "/b"}) == Path("/b/jumpstarter")
    assert config_home({}) == Path.home() / ".config" / "jumpstarter"


@pytest.mark.parametrize("alias", ["", "..", "a/b", "/etc/passwd"])
def test_an_alias_is_a_plain_file_name(alias: str) -> None:
    with pytest.raises(ConfigError, match="not an alias"):
        client_path(alias, {})


def test_a_written_file_is_private_and_reads_back_equal(tmp_path: Path) -> None:
    env = home(tmp_path / "new")
    path = client_path("me", env)
    config = ClientConfig(metadata=Metadata(namespace="lab", name="me"), endpoint="e:1", token="t")
    write_client(path, config)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_client(path, {}) == config
    assert "leases" not in path.read_text()
    assert os.listdir(path.parent) == ["me.yaml"]


def test_leases_are_written_when_they_are_not_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "me.yaml"
    config = ClientConfig(
        metadata=Metadata(namespace="lab", name="me"), endpoint="e:1", token="t", leases=Leases(dial_timeout=9)
    )
    write_client(path, config)
    assert read_client(path, {}).leases.dial_timeout == 9


def test_the_current_client_is_used_unless_another_is_named(tmp_path: Path) -> None:
    env = home(tmp_path)
    for name in ("one", "two"):
        write_client(
            client_path(name, env),
            ClientConfig(metadata=Metadata(namespace="lab", name=name), endpoint="e:1", token="t"),
        )
    use_client("one", env)
    assert list_clients(env) == ("one", "two")
    assert choose_client(env=env).metadata.name == "one"
    assert choose_client("two", env=env).metadata.name == "two"
    assert choose_client(path=client_path("two", env), env=env).metadata.name == "two"


def test_the_environment_wins_over_the_current_client_if_it_names_one(tmp_path: Path) -> None:
    env = home(tmp_path) | {"JMP_NAME": "ci", "JMP_NAMESPACE": "lab", "JMP_ENDPOINT": "e:1", "JMP_TOKEN": "t"}
    assert choose_client(env=env).metadata.name == "ci"
    with pytest.raises(ConfigError, match="token"):
        choose_client(env={**env, "JMP_TOKEN": ""})


def test_without_any_client_the_error_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--client"):
        choose_client(env=home(tmp_path))


def test_a_dangling_current_client_counts_as_none(tmp_path: Path) -> None:
    env = home(tmp_path)
    use_client("gone", env)
    assert read_user(env).config.current_client == "gone"
    with pytest.raises(ConfigError, match="no client is chosen"):
        choose_client(env=env)


def test_alias_and_path_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either"):
        choose_client("one", tmp_path, env={})


@pytest.mark.parametrize(
    ("endpoint", "host", "port"),
    [("lab:443", "lab", 443), ("lab", "lab", 443), ("[::1]:80", "::1", 80), ("[::1]", "::1", 443)],
)
def test_an_endpoint_without_port_means_443(endpoint: str, host: str, port: int) -> None:
    assert split_endpoint(endpoint) == (host, port)


def test_an_endpoint_with_a_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match="host:port"):
        split_endpoint("https://lab")


@pytest.mark.parametrize("ca", ["not base64!", "aGVsbG8="])
def test_a_ca_that_is_no_certificate_is_named(ca: str) -> None:
    with pytest.raises(ConfigError, match=r"tls\.ca"):
        Trust.parse(ca, False, {}, {})


@pytest.mark.parametrize("variable", ["JMP_GRPC_INSECURE", "JUMPSTARTER_GRPC_INSECURE"])
def test_a_variable_makes_trust_insecure(variable: str) -> None:
    assert Trust.parse("", False, {}, {variable: "1"}).insecure
    assert not Trust.parse("", False, {}, {variable: "0"}).insecure
