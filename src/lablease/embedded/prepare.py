"""`python -m lablease.embedded.prepare`: find or build the programs, and print where they are.

For `make` and CI, so that minutes of building are seen as such and not as a test that hangs.
"""

import sys

from lablease.embedded import gobuild
from lablease.embedded.errors import BuildError
from lablease.embedded.paths import cache_dir
from lablease.embedded.versions import BINARIES

_EVERY = 100  # lines of progress for about 2,300 packages: one or two a minute on two cores


def main() -> int:
    """Return 0 when all three programs are there, 1 with an error on stderr if not."""

    def report(step: str, done: int, total: int) -> None:
        if done % _EVERY == 0:
            sys.stderr.write(f"{step} ({done} of {total})\n" if done and total else f"{step}\n")

    try:
        found = gobuild.ensure(cache_dir(), report)
    except BuildError as failed:
        sys.stderr.write(f"error: {failed}\n")
        return 1
    for binary in BINARIES:
        sys.stdout.write(f"{binary} {found[binary].version} ({found[binary].source}) {found[binary].path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
