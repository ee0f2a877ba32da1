"""Build the wheel, compare it with git, install it in a fresh environment, and start each entry point.

The role folders reach the package through links, which is easy to break without notice: a wheel that lacks a file, or
that only works from the checkout, fails here.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROLES = ("operator", "grpc_frontend", "exporter_agent")
ENTRY_POINTS = (
    ("--help",),
    ("version",),
    ("up", "--help"),
    ("operator", "--help"),
    ("frontend", "--help"),
    ("router", "--help"),
    ("exporter", "run", "--help"),
    ("lease", "--help"),
    ("shell", "--help"),
    ("call", "--help"),
    ("admin", "--help"),
    ("history", "--help"),
)


def run(*command: str | Path) -> str:
    """Run a command and return its output; on failure show it and stop."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd="/")
    if done.returncode != 0:
        sys.exit(f"{' '.join(str(part) for part in command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def tracked() -> set[str]:
    """Return the tracked Python files that are shipped, as paths inside the package."""
    listing = run("git", "-C", ROOT, "ls-files", "src/lablease", *ROLES)
    files = {line for line in listing.splitlines() if line.endswith(".py")}
    inside = {f"lablease/{name.removeprefix('src/lablease/')}" for name in files}
    return {name for name in inside if not name.startswith("lablease/testing/")}


def main() -> None:
    """Check the wheel; the exit status says how it went."""
    with tempfile.TemporaryDirectory(prefix="lablease-wheel-") as folder:
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
        (wheel,) = Path(folder).glob("*.whl")
        inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
        if inside != tracked():
            missing, extra = sorted(tracked() - inside), sorted(inside - tracked())
            sys.exit(f"the wheel and git differ: missing {missing}, not tracked {extra}")
        python = Path(folder) / "venv" / "bin" / "python"
        uv = Path(sys.executable).parent / "uv"
        run(uv, "venv", "-q", "-p", sys.executable, python.parent.parent)
        run(uv, "pip", "install", "-q", "-p", python, "--require-hashes", "-r", ROOT / "locks" / "run.lock")
        run(uv, "pip", "install", "-q", "-p", python, "--no-deps", wheel)
        for arguments in ENTRY_POINTS:
            run(python.parent / "lablease", *arguments)
    print(f"{wheel.name}: {len(inside)} modules, {len(ENTRY_POINTS)} entry points start")


if __name__ == "__main__":
    main()
