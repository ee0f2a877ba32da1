"""Which etcd, kube-apiserver and kubectl are good enough, and which data they may open."""

import re
from dataclasses import dataclass
from typing import NewType

KUBERNETES = "1.36.3"
ETCD = "3.6.8"  # the version that Kubernetes 1.36.3 itself requires: no dependency of the API server is lifted by it
GO = (1, 26, 0)  # the `go` line of gomod/go.mod
LAYOUT = 1  # of the data directory; raised when an older lablease could not read what this one writes

Binary = NewType("Binary", str)
KUBE_APISERVER = Binary("kube-apiserver")
ETCD_SERVER = Binary("etcd")
KUBECTL = Binary("kubectl")
BINARIES = (ETCD_SERVER, KUBE_APISERVER, KUBECTL)

_NUMBERS = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """Major, minor, patch; what follows the patch (`-rc.1`, `+k3s1`) does not count here."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def parse(text: str) -> Version | None:
    """Return the first version in `text` (`Kubernetes v1.36.3`, `etcd Version: 3.6.8`), None if there is none."""
    found = _NUMBERS.search(text)
    if found is None:
        return None
    return Version(int(found[1]), int(found[2]), int(found[3] or 0))


def pinned(binary: Binary) -> Version:
    """Return the version that we build."""
    version = parse(ETCD if binary == ETCD_SERVER else KUBERNETES)
    if version is None:
        raise ValueError(f"the pinned version of {binary} is no version")
    return version


def refusal(binary: Binary, found: Version, apiserver: Version) -> str | None:
    """Say why a binary that was found is not used, or None if it is.

    kube-apiserver: from 1.33 (CRD field selectors and ratcheting are on by default) to one minor above the pinned one.
    etcd: 3.5 and 3.6, the two series that these API servers are released with.
    kubectl: one minor around the API server, which is the version skew that Kubernetes supports.
    """
    if binary == KUBE_APISERVER:
        low, high = (1, 33), (1, pinned(binary).minor + 1)
    elif binary == ETCD_SERVER:
        low, high = (3, 5), (3, 6)
    else:
        low, high = (apiserver.major, apiserver.minor - 1), (apiserver.major, apiserver.minor + 1)
    if low <= (found.major, found.minor) <= high:
        return None
    return f"{found} is outside {low[0]}.{low[1]} to {high[0]}.{high[1]}"


def data_refusal(written: Version, now: Version) -> str | None:
    """Say why a program of version `now` must not open data that `written` wrote, or None if it may.

    Newer data are not opened (neither etcd nor the API server supports a downgrade), and no minor is skipped upwards.
    """
    if (now.major, now.minor) < (written.major, written.minor):
        return f"they were written by {written}, which is newer than {now}"
    if now.major != written.major or now.minor - written.minor > 1:
        return f"they were written by {written}, and {now} is more than one minor later"
    return None
