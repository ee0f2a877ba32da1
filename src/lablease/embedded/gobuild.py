"""Build etcd, kube-apiserver and kubectl from the Go module proxy, once per user and pinned version.

The module in `gomod/` pins every dependency by hash, so that nothing but the pinned source can end up in a binary,
whichever proxy served it.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lablease.embedded import resources, toolchain
from lablease.embedded.binaries import Found, Search, cached_bin, search
from lablease.embedded.errors import BuildError
from lablease.embedded.paths import free_bytes
from lablease.embedded.process import locked
from lablease.embedded.versions import ETCD_SERVER, KUBE_APISERVER, KUBECTL, KUBERNETES, Binary, pinned

NEEDED_BYTES = 6 * 1024**3  # measured from empty caches: 1.6 GB of modules, 3.1 GB of build cache, 0.5 GB toolchain
_LOCK_POLL_SECONDS = 0.5

PACKAGES: Mapping[Binary, str] = {
    ETCD_SERVER: "go.etcd.io/etcd/server/v3",
    KUBE_APISERVER: "k8s.io/kubernetes/cmd/kube-apiserver",
    KUBECTL: "k8s.io/kubernetes/cmd/kubectl",
}

Report = Callable[[str, int, int], None]
"""Told what is done now, and how many steps of how many are done; 0 in all: it is not known how many."""


def ensure(cache: Path, report: Report, environ: Mapping[str, str] = os.environ) -> Mapping[Binary, Found]:
    """Return all three programs, after building what is not there.

    Two processes that need the same build do it once: the second waits for the first.

    Raises:
        BuildError: with what would help: no toolchain, no disk, no network.
    """
    first = search(cache, environ)
    if not first.missing:
        return first.found
    waiting = False
    while True:
        with locked(cache / "build.lock") as mine:
            if mine:
                return _build_missing(cache, report, environ)
        if not waiting:
            report("another process builds the binaries; waiting for it", 0, 0)
            waiting = True
        time.sleep(_LOCK_POLL_SECONDS)


def _build_missing(cache: Path, report: Report, environ: Mapping[str, str]) -> Mapping[Binary, Found]:
    before = search(cache, environ)
    if not before.missing:
        return before.found
    for line in before.refused:
        report(line, 0, 0)
    require_space(cache)
    go = toolchain.ensure(cache, lambda text: report(text, 0, 0), environ)
    target = cached_bin(cache)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=cache / "bin") as scratch:
        _build(go, before, Path(scratch), target, report, environ)
    go.forget_caches()
    after = search(cache, environ)
    if after.missing:
        raise BuildError(f"{', '.join(after.missing)} cannot be used although just built", "; ".join(after.refused))
    return after.found


def require_space(cache: Path) -> None:
    """Refuse to begin a build that the disk cannot hold.

    Raises:
        BuildError: less than 6 GiB are free.
    """
    cache.mkdir(parents=True, exist_ok=True)
    free = free_bytes(cache)
    if free < NEEDED_BYTES:
        raise BuildError(
            f"building etcd and kube-apiserver needs {NEEDED_BYTES / 1024**3:.0f} GiB in {cache}, "
            f"{free / 1024**3:.1f} GiB are free",
            "Free some space, or set XDG_CACHE_HOME to a larger disk, or name a folder that has the binaries with "
            "KUBEBUILDER_ASSETS.",
        )


def _build(
    go: toolchain.Go, before: Search, scratch: Path, target: Path, report: Report, environ: Mapping[str, str]
) -> None:
    module = scratch / "module"
    shutil.copytree(resources.GO_MODULE, module)
    env = environment(go, environ)
    packages = [PACKAGES[binary] for binary in before.missing]
    report("building from the Go module proxy; this is done once and takes about 5 minutes on two cores", 0, 0)
    downloads = 0

    def downloading(line: str) -> None:
        nonlocal downloads
        downloads += line.startswith("go: downloading")
        report("downloading Go modules", downloads, 0)

    listed = _run([str(go.program), "list", "-deps", *packages], module, env, downloading)
    compiled = 0
    for binary in before.missing:
        step, output = f"building {binary}", scratch / binary

        def compiling(line: str, step: str = step) -> None:
            nonlocal compiled
            compiled += not line.startswith("go:")
            report(step, min(compiled, len(listed)), len(listed))

        arguments = ["build", "-v", f"-ldflags={ldflags()}", "-o", str(output), PACKAGES[binary]]
        _run([str(go.program), *arguments], module, env, compiling)
        os.replace(output, target / binary)
        report(f"{binary} {pinned(binary)} is built", 0, 0)


def ldflags() -> str:
    """Return the linker flags: no symbol table, and the version that the programs report and put in their user agent."""
    version = pinned(KUBE_APISERVER)
    flags = ["-s", "-w"]
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        for name, value in (
            ("gitVersion", f"v{KUBERNETES}"),
            ("gitMajor", str(version.major)),
            ("gitMinor", str(version.minor)),
            ("gitCommit", ""),
            ("gitTreeState", "archive"),
        ):
            flags.append(f"-X {package}.{name}={value}")
    return " ".join(flags)


def environment(go: toolchain.Go, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of `go`: the user's proxy settings, our flags.

    `GOTOOLCHAIN=local`: no other toolchain is fetched. `-mod=readonly`: a dependency that go.sum does not pin is an
    error, so the checksum database is never asked.
    """
    return {
        **environ,
        **go.environment,
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }


def _run(argv: Sequence[str], folder: Path, env: Mapping[str, str], on_line: Callable[[str], None]) -> list[str]:
    """Run `go`; lines of stderr are reported as they come, lines of stdout returned.

    Raises:
        BuildError: it failed.
    """
    said: list[str] = []
    with tempfile.TemporaryFile("w+") as out:
        with subprocess.Popen(
            argv, cwd=folder, env=dict(env), stdout=out, stderr=subprocess.PIPE, text=True
        ) as process:
            for raw in process.stderr or ():
                line = raw.rstrip()
                said = [*said[-200:], line]
                on_line(line)
        if process.returncode != 0:
            raise explain(said, process.returncode)
        out.seek(0)
        return out.read().split()


_NETWORK = (
    r"dial tcp|no such host|connection refused|i/o timeout|proxyconnect|TLS handshake|unrecognized import path"
    r"|: 4\d\d |: 5\d\d |reading https?://"
)
_NETWORK_HELP = (
    "Set GOPROXY to a Go module proxy that this machine reaches, or name a folder that has etcd, kube-apiserver and "
    "kubectl with KUBEBUILDER_ASSETS."
)
_REASONS: tuple[tuple[str, str, str], ...] = (
    (
        r"no space left on device|disk quota exceeded",
        "the disk became full while building",
        "Free some space, or set XDG_CACHE_HOME (and GOCACHE, GOMODCACHE, TMPDIR) to a larger disk.",
    ),
    (
        r"checksum mismatch|SECURITY ERROR",
        "a module that was served is not the one that is pinned",
        "Do not use that proxy: compare GOPROXY with what your administrator recommends.",
    ),
    (
        r"signal: killed|cannot allocate memory|out of memory",
        "the compiler ran out of memory (it needs about 2 GB)",
        "Close other programs, or set GOMAXPROCS=1 and try again: what was compiled is kept.",
    ),
    (_NETWORK, "the Go modules cannot be downloaded", _NETWORK_HELP),
)


def explain(said: Sequence[str], status: int) -> BuildError:
    """Turn the last lines of a failed `go` into an error that says what helps."""
    text = "\n".join(said)
    for pattern, problem, help in _REASONS:
        found = re.search(f".*({pattern}).*", text)
        if found is not None:
            return BuildError(f"{problem}: {found[0].strip()[:400]}", help)
    shown = "\n".join(said[-10:])
    return BuildError(
        f"go failed with status {status}:\n{shown}", "Please report this; the pinned source should build."
    )
