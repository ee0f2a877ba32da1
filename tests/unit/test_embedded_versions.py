"""Which programs are good enough, and which data they may open."""

import re

import pytest

from lablease.embedded import resources
from lablease.embedded.versions import (
    ETCD,
    ETCD_SERVER,
    GO,
    KUBE_APISERVER,
    KUBECTL,
    KUBERNETES,
    Binary,
    Version,
    data_refusal,
    parse,
    refusal,
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Kubernetes v1.36.3\n", Version(1, 36, 3)),
        ("etcd Version: 3.6.8\nGit SHA: abc\nGo Version: go1.26.6", Version(3, 6, 8)),
        ("v1.32.4-dispatcher", Version(1, 32, 4)),
        ("go1.26", Version(1, 26, 0)),
        ("v1.33.0+k3s1", Version(1, 33, 0)),
        ("not a version", None),
        ("", None),
    ],
)
def test_a_version_is_read_from_what_programs_print(text: str, version: Version | None) -> None:
    assert parse(text) == version


@pytest.mark.parametrize(
    ("binary", "found", "usable"),
    [
        (KUBE_APISERVER, Version(1, 32, 9), False),
        (KUBE_APISERVER, Version(1, 33, 0), True),
        (KUBE_APISERVER, Version(1, 37, 9), True),
        (KUBE_APISERVER, Version(1, 38, 0), False),
        (ETCD_SERVER, Version(3, 4, 30), False),
        (ETCD_SERVER, Version(3, 5, 0), True),
        (ETCD_SERVER, Version(3, 6, 99), True),
        (ETCD_SERVER, Version(3, 7, 0), False),
        (KUBECTL, Version(1, 34, 9), False),
        (KUBECTL, Version(1, 35, 0), True),
        (KUBECTL, Version(1, 37, 0), True),
        (KUBECTL, Version(1, 38, 0), False),
    ],
)
def test_a_program_is_used_within_its_range_only(binary: Binary, found: Version, usable: bool) -> None:
    assert (refusal(binary, found, apiserver=Version(1, 36, 3)) is None) is usable


def test_kubectl_is_measured_by_the_api_server_that_runs_not_by_the_pinned_one() -> None:
    assert refusal(KUBECTL, Version(1, 33, 0), apiserver=Version(1, 34, 0)) is None
    assert refusal(KUBECTL, Version(1, 36, 3), apiserver=Version(1, 34, 0)) == "1.36.3 is outside 1.33 to 1.35"


@pytest.mark.parametrize(
    ("written", "now", "allowed"),
    [
        (Version(1, 36, 3), Version(1, 36, 3), True),
        (Version(1, 36, 9), Version(1, 36, 3), True),
        (Version(1, 35, 0), Version(1, 36, 3), True),
        (Version(1, 34, 0), Version(1, 36, 3), False),
        (Version(1, 37, 0), Version(1, 36, 3), False),
        (Version(2, 0, 0), Version(1, 36, 3), False),
        (Version(0, 36, 0), Version(1, 36, 3), False),
    ],
)
def test_data_are_opened_by_the_same_minor_or_the_next(written: Version, now: Version, allowed: bool) -> None:
    assert (data_refusal(written, now) is None) is allowed


def test_the_go_module_pins_the_versions_that_the_code_speaks_of() -> None:
    module = (resources.GO_MODULE / "go.mod").read_text()
    assert f"k8s.io/kubernetes v{KUBERNETES}\n" in module
    assert f"go.etcd.io/etcd/server/v3 v{ETCD}\n" in module
    assert f"\ngo {'.'.join(map(str, GO))}\n" in module
    staging = re.findall(r"^\t(k8s\.io/\S+) => (\S+) (\S+)$", module, re.MULTILINE)
    assert len(staging) == 33
    assert all(path == to and version == "v0" + KUBERNETES[1:] for path, to, version in staging)


def test_every_module_of_the_build_is_pinned_by_hash() -> None:
    module = (resources.GO_MODULE / "go.mod").read_text()
    sums = (resources.GO_MODULE / "go.sum").read_text()
    required = re.findall(r"^\t(\S+) (v\S+)(?: // indirect)?$", module, re.MULTILINE)
    assert len(required) > 100
    for path, version in required:
        replaced = "v0" + KUBERNETES[1:] if f"\t{path} => " in module else version
        assert f"{path} {replaced} h1:" in sums or f"{path} {replaced}/go.mod h1:" in sums
