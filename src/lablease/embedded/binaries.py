"""Find etcd, kube-apiserver and kubectl; what is not found is left to `gobuild`."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lablease.embedded.errors import BuildError
from lablease.embedded.versions import (
    BINARIES,
    ETCD,
    ETCD_SERVER,
    KUBE_APISERVER,
    KUBECTL,
    KUBERNETES,
    Binary,
    Version,
    parse,
    pinned,
    refusal,
)

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
_VERSION_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Found:
    """A program that is good enough, and where it was found (`KUBEBUILDER_ASSETS`, `PATH`, `cache`)."""

    path: Path
    version: Version
    source: str


@dataclass(frozen=True, slots=True)
class Search:
    """Outcome of a search: what is there, and why candidates were passed over."""

    found: Mapping[Binary, Found]
    refused: tuple[str, ...]

    @property
    def missing(self) -> tuple[Binary, ...]:
        return tuple(binary for binary in BINARIES if binary not in self.found)


def cached_bin(cache: Path) -> Path:
    """Return the folder that takes what we build; another pinned version has another folder."""
    return cache / "bin" / f"kubernetes-{KUBERNETES}-etcd-{ETCD}"


def ask_version(binary: Binary, path: Path) -> Version | None:
    """Run the program to learn its version; None if it cannot be run or says nothing we understand."""
    arguments = ["version", "--client", "-o", "json"] if binary == KUBECTL else ["--version"]
    try:
        ran = subprocess.run(
            [str(path), *arguments], capture_output=True, text=True, timeout=_VERSION_PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if binary != KUBECTL:
        return parse(ran.stdout)
    try:
        return parse(str(json.loads(ran.stdout)["clientVersion"]["gitVersion"]))
    except (ValueError, KeyError, TypeError):
        return None


def search(
    cache: Path,
    environ: Mapping[str, str] = os.environ,
    ask: Callable[[Binary, Path], Version | None] = ask_version,
) -> Search:
    """Look in `KUBEBUILDER_ASSETS`, then on `PATH`, then in the cache.

    What the user names with `KUBEBUILDER_ASSETS` must fit: to use something else then would surprise.

    Raises:
        BuildError: a program in `KUBEBUILDER_ASSETS` has a version that we cannot use.
    """
    found: dict[Binary, Found] = {}
    refused: list[str] = []
    for binary in (KUBE_APISERVER, ETCD_SERVER, KUBECTL):  # kubectl last: it must fit the API server
        server = found.get(KUBE_APISERVER)
        server_version = server.version if server is not None else pinned(KUBE_APISERVER)
        for source, path in _candidates(binary, cache, environ):
            # What we built is named after its version; to start each program once more would cost time at every `up`.
            version = pinned(binary) if source == "cache" else ask(binary, path)
            why = "its version is unknown" if version is None else refusal(binary, version, server_version)
            if version is not None and why is None:
                found[binary] = Found(path, version, source)
                break
            if source == ASSETS_VARIABLE:
                raise BuildError(f"{path} cannot be used: {why}", f"Correct {ASSETS_VARIABLE} or unset it.")
            refused.append(f"{path} is not used: {why}")
    return Search(found, tuple(refused))


def _candidates(binary: Binary, cache: Path, environ: Mapping[str, str]) -> list[tuple[str, Path]]:
    candidates: list[tuple[str, Path]] = []
    assets = environ.get(ASSETS_VARIABLE)
    if assets:
        candidates.append((ASSETS_VARIABLE, Path(assets) / binary))
    on_path = shutil.which(binary, path=environ.get("PATH", ""))
    if on_path is not None:
        candidates.append(("PATH", Path(on_path)))
    candidates.append(("cache", cached_bin(cache) / binary))
    return [(source, path) for source, path in candidates if os.access(path, os.X_OK) and path.is_file()]
