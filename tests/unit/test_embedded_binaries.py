"""Where programs are looked for, and what is said about those that are not taken."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from lablease.embedded.binaries import ask_version, cached_bin, search
from lablease.embedded.errors import BuildError
from lablease.embedded.versions import BINARIES, ETCD_SERVER, KUBE_APISERVER, KUBECTL, Binary, Version, pinned

GOOD: Mapping[Binary, str] = {
    KUBE_APISERVER: 'echo "Kubernetes v1.36.3"',
    ETCD_SERVER: 'echo "etcd Version: 3.6.8"',
    KUBECTL: 'echo \'{"clientVersion": {"gitVersion": "v1.36.0"}}\'',
}


def program(folder: Path, binary: Binary, says: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / binary
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


def all_programs(folder: Path) -> Path:
    for binary, says in GOOD.items():
        program(folder, binary, says)
    return folder


def test_the_users_assets_come_before_path_and_path_before_the_cache(tmp_path: Path) -> None:
    assets, on_path = all_programs(tmp_path / "assets"), all_programs(tmp_path / "bin")
    cache = tmp_path / "cache"
    all_programs(cached_bin(cache))
    every = {"KUBEBUILDER_ASSETS": str(assets), "PATH": f"{on_path}:/bin"}
    assert {found.source for found in search(cache, every).found.values()} == {"KUBEBUILDER_ASSETS"}
    assert {found.source for found in search(cache, {"PATH": f"{on_path}:/bin"}).found.values()} == {"PATH"}
    assert {found.source for found in search(cache, {"PATH": ""}).found.values()} == {"cache"}


def test_what_the_assets_lack_is_looked_for_elsewhere(tmp_path: Path) -> None:
    assets, on_path = tmp_path / "assets", all_programs(tmp_path / "bin")
    program(assets, ETCD_SERVER, GOOD[ETCD_SERVER])
    found = search(tmp_path, {"KUBEBUILDER_ASSETS": str(assets), "PATH": f"{on_path}:/bin"}).found
    assert found[ETCD_SERVER].path == assets / "etcd"
    assert found[KUBE_APISERVER].path == on_path / "kube-apiserver"


def test_an_old_program_on_path_is_passed_over_and_named(tmp_path: Path) -> None:
    on_path = all_programs(tmp_path / "bin")
    old = program(on_path, KUBECTL, 'echo \'{"clientVersion": {"gitVersion": "v1.32.4"}}\'')
    outcome = search(tmp_path, {"PATH": f"{on_path}:/bin"})
    assert outcome.missing == (KUBECTL,)
    assert outcome.refused == (f"{old} is not used: 1.32.4 is outside 1.35 to 1.37",)


def test_an_old_program_in_the_assets_is_an_error_because_the_user_named_it(tmp_path: Path) -> None:
    path = program(tmp_path / "assets", KUBE_APISERVER, 'echo "Kubernetes v1.29.0"')
    with pytest.raises(BuildError) as refused:
        search(tmp_path, {"KUBEBUILDER_ASSETS": str(tmp_path / "assets"), "PATH": ""})
    assert refused.value.problem == f"{path} cannot be used: 1.29.0 is outside 1.33 to 1.37"
    assert "KUBEBUILDER_ASSETS" in refused.value.help


def test_kubectl_must_fit_the_api_server_that_was_found(tmp_path: Path) -> None:
    on_path = all_programs(tmp_path / "bin")
    program(on_path, KUBE_APISERVER, 'echo "Kubernetes v1.34.1"')
    outcome = search(tmp_path, {"PATH": f"{on_path}:/bin"})
    assert outcome.found[KUBE_APISERVER].version == Version(1, 34, 1)
    assert outcome.missing == (KUBECTL,)


def test_programs_in_the_cache_are_not_started_to_learn_their_version(tmp_path: Path) -> None:
    all_programs(cached_bin(tmp_path))

    def never(binary: Binary, path: Path) -> Version | None:
        raise AssertionError(f"{path} was started")

    found = search(tmp_path, {"PATH": ""}, never).found
    assert {binary: found[binary].version for binary in BINARIES} == {binary: pinned(binary) for binary in BINARIES}


def test_nothing_anywhere_means_everything_is_missing(tmp_path: Path) -> None:
    assert search(tmp_path, {"PATH": ""}).missing == BINARIES


@pytest.mark.parametrize("says", ["exit 3", "echo nonsense", "echo '{}'"])
def test_a_program_that_does_not_tell_its_version_has_none(tmp_path: Path, says: str) -> None:
    assert ask_version(KUBECTL, program(tmp_path, KUBECTL, says)) is None
    assert ask_version(ETCD_SERVER, program(tmp_path, ETCD_SERVER, says)) is None


def test_a_file_that_is_no_program_has_no_version(tmp_path: Path) -> None:
    path = tmp_path / "etcd"
    path.write_bytes(b"\x00\x01")
    path.chmod(0o755)
    assert ask_version(ETCD_SERVER, path) is None
