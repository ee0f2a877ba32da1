"""Files of a data directory: versions, ports, keys, kubeconfigs; and where the directory is."""

import ipaddress
import json
import socket
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from lablease.embedded import commands, kubeconfig, pki
from lablease.embedded.errors import EmbeddedError, ForeignData, PortTaken
from lablease.embedded.paths import DataDir, cache_dir, default_data_dir, write_private
from lablease.embedded.state import API_SERVER, State, check_version, claim_port, load_state, save_state
from lablease.embedded.versions import Version

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KUBERNETES, ETCD = Version(1, 36, 3), Version(3, 6, 8)


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    data = DataDir(tmp_path / "data")
    data.make()
    return data


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_xdg_folders_are_used_and_relative_ones_ignored() -> None:
    assert cache_dir({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/lablease")
    assert cache_dir({"XDG_CACHE_HOME": "c", "HOME": "/h"}) == Path("/h/.cache/lablease")
    assert default_data_dir({"XDG_DATA_HOME": "/d"}) == Path("/d/lablease/control-plane")
    assert default_data_dir({"HOME": "/h"}) == Path("/h/.local/share/lablease/control-plane")


def test_fresh_data_are_marked_with_the_versions_that_write_them(data: DataDir) -> None:
    check_version(data, KUBERNETES, ETCD)
    assert json.loads(data.version.read_text()) == {"layout": 1, "kubernetes": "1.36.3", "etcd": "3.6.8"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"layout": 2, "kubernetes": "1.36.3", "etcd": "3.6.8"}', "its layout is 2, this lablease reads 1"),
        ('{"layout": 1, "kubernetes": "1.37.0", "etcd": "3.6.8"}', "written by 1.37.0, which is newer than 1.36.3"),
        ('{"layout": 1, "kubernetes": "1.34.0", "etcd": "3.6.8"}', "more than one minor later"),
        ('{"layout": 1, "kubernetes": "1.36.3", "etcd": "3.7.0"}', "etcd data: they were written by 3.7.0"),
        ('{"layout": 1, "kubernetes": "?", "etcd": "3.6.8"}', "their version is unknown"),
        ("{}", "VERSION in it cannot be read"),
        ("", "VERSION in it cannot be read"),
    ],
)
def test_data_of_another_version_are_refused_and_left_alone(data: DataDir, content: str, says: str) -> None:
    data.version.write_text(content)
    with pytest.raises(ForeignData) as refused:
        check_version(data, KUBERNETES, ETCD)
    assert says in refused.value.problem
    assert "--data-dir" in refused.value.help
    assert "down --purge" in refused.value.help
    assert data.version.read_text() == content


def test_etcd_data_without_a_version_are_refused(data: DataDir) -> None:
    data.etcd.mkdir()
    with pytest.raises(ForeignData, match="no file VERSION"):
        check_version(data, KUBERNETES, ETCD)


def test_an_upgrade_by_one_minor_is_allowed_and_remembered(data: DataDir) -> None:
    check_version(data, Version(1, 35, 0), ETCD)
    check_version(data, KUBERNETES, ETCD)
    with pytest.raises(ForeignData):
        check_version(data, Version(1, 35, 0), ETCD)


def test_a_port_is_chosen_once_and_kept(data: DataDir) -> None:
    state = load_state(data, None)
    port = claim_port(state, API_SERVER, None, "--api-port")
    save_state(data, state)
    again = load_state(data, None)
    assert claim_port(again, API_SERVER, None, "--api-port") == port


def test_a_port_that_somebody_else_took_is_said_with_what_helps() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken) as refused:
            claim_port(State("lab", {API_SERVER: port}), API_SERVER, None, "--api-port")
    assert f"port {port} of 127.0.0.1, where kube-apiserver should listen, is used" in refused.value.problem
    assert "--api-port" in refused.value.help


def test_the_namespace_of_the_first_start_is_kept_until_another_is_asked_for(data: DataDir) -> None:
    assert load_state(data, None).namespace == "lab"
    save_state(data, State("bench"))
    assert load_state(data, None).namespace == "bench"
    assert load_state(data, "other").namespace == "other"


@pytest.mark.parametrize("content", ["", "[]", '{"namespace": "lab"}', '{"namespace": "lab", "ports": {"a": "x"}}'])
def test_a_damaged_state_is_said(data: DataDir, content: str) -> None:
    data.state.write_text(content)
    with pytest.raises(EmbeddedError, match="is damaged"):
        load_state(data, None)


def test_everything_in_the_data_directory_is_private(data: DataDir) -> None:
    keys = pki.ensure(data, NOW)
    kubeconfig.write(data.kubeconfig, kubeconfig.Access("https://127.0.0.1:1", b"ca"), "admin", "lab")
    assert mode(data.root) == 0o700
    private = [keys.ca.key, keys.admin.key, keys.api_server.key, keys.service_account_key, keys.service.key]
    assert {mode(path) for path in [*private, data.kubeconfig]} == {0o600}


def test_a_private_file_replaces_a_readable_one_with_its_own_mode(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["token"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_the_development_certificate_is_good_for_every_name_of_loopback(data: DataDir, host: str) -> None:
    pki.ensure(data, NOW)
    name = x509.DNSName(host) if host == "localhost" else x509.IPAddress(ipaddress.ip_address(host))
    store = Store([x509.load_pem_x509_certificate(data.dev_ca.read_bytes())])
    chain = PolicyBuilder().store(store).time(NOW).build_server_verifier(name)
    cert = x509.load_pem_x509_certificate(data.dev_cert.read_bytes())
    assert len(chain.verify(cert, [])) == 2
    key = load_pem_private_key(data.dev_key.read_bytes(), None)
    assert key.public_key() == cert.public_key()


def test_keys_are_made_once_and_a_certificate_is_renewed_in_its_last_60_days(data: DataDir) -> None:
    keys = pki.ensure(data, NOW)
    cert, ca = keys.api_server.cert.read_bytes(), keys.ca.cert.read_bytes()
    pki.ensure(data, NOW + pki.LEAF_LIFETIME - pki.RENEW_BEFORE - timedelta(hours=1))
    assert keys.api_server.cert.read_bytes() == cert
    pki.ensure(data, NOW + pki.LEAF_LIFETIME - pki.RENEW_BEFORE)
    assert keys.api_server.cert.read_bytes() != cert
    assert keys.ca.cert.read_bytes() == ca


def test_a_lost_authority_takes_its_certificates_with_it(data: DataDir) -> None:
    keys = pki.ensure(data, NOW)
    before = keys.admin.cert.read_bytes()
    keys.ca.key.unlink()
    pki.ensure(data, NOW)
    assert keys.admin.cert.read_bytes() != before


def test_a_kubeconfig_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    for access in (
        kubeconfig.Access("https://127.0.0.1:1", b"ca", client=(b"cert", b"key")),
        kubeconfig.Access("https://127.0.0.1:1", b"ca", token_file=tmp_path / "token"),
        kubeconfig.Access("https://127.0.0.1:1", None, token="t", verify=False),
    ):
        kubeconfig.write(path, access, "user", "lab")
        assert kubeconfig.read(path) == access


def test_a_token_file_is_read_again_each_time(tmp_path: Path) -> None:
    token = tmp_path / "token"
    access = kubeconfig.Access("https://127.0.0.1:1", None, token_file=token)
    for content in ("first", "second"):
        token.write_text(content + "\n")
        assert access.bearer() == content


EXEC = """
current-context: a
contexts: [{name: a, context: {cluster: a, user: me}}]
clusters: [{name: a, cluster: {server: "https://example.invalid"}}]
users: [{name: me, user: {exec: {command: aws}}}]
"""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no kubeconfig"),
        ("a: [", "is no YAML"),
        ("", "has no current context with a server"),
        ("current-context: gone\ncontexts: []\n", "has no current context with a server"),
        (EXEC, "the user 'me' of .* logs in with a plugin"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_why(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EmbeddedError, match=says):
        kubeconfig.read(path)


def test_the_api_server_is_on_loopback_with_rbac_and_lets_nobody_in_unnamed(data: DataDir) -> None:
    argv = commands.kube_apiserver(Path("/bin/kube-apiserver"), data, pki.ensure(data, NOW), 6443)
    assert {"--bind-address=127.0.0.1", "--secure-port=6443", "--authorization-mode=RBAC"} <= set(argv)
    assert {"--anonymous-auth=false", "--audit-log-mode=blocking"} <= set(argv)


def test_etcd_has_no_port_and_keeps_fsync(data: DataDir) -> None:
    argv = commands.etcd(Path("/bin/etcd"), data)
    listeners = [argument.partition("=")[2] for argument in argv if argument.startswith("--listen")]
    assert len(listeners) == 2
    assert all(url.startswith("unix://") for url in listeners)
    assert not [argument for argument in argv if "fsync" in argument]


def test_neither_program_sees_a_proxy_or_stray_settings() -> None:
    env = commands.environment({"PATH": "/bin", "HOME": "/h", "HTTPS_PROXY": "http://x", "ETCD_DATA_DIR": "/other"})
    assert env == {"PATH": "/bin", "HOME": "/h"}
