"""Generate the Python modules of the wire packages from ``proto/``.

``python tools/make_proto.py`` writes them; with ``--check`` nothing is written and the exit status is 1 if the committed
files are not what would be written. The output depends on ``proto/`` and on the versions of grpcio-tools and
mypy-protobuf only.

protoc names Python modules after the path of the .proto file, and that path is part of the wire contract
(``jumpstarter/v1/common.proto`` must stay that). So protoc writes into a scratch folder, and the modules move under
``lablease.wire`` with their imports rewritten.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
WIRE = ROOT / "src" / "lablease" / "wire"

PACKAGES = {"jumpstarter": "jumpstarter", "lablease.internal": "internal"}
"""Python package that protoc writes -> folder under ``wire/`` where it lives. All of that folder is generated."""

IMPORT = re.compile(r"^(?P<verb>from|import) (?P<package>jumpstarter|lablease\.internal)(?=[. ])", re.MULTILINE)


def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description="Generate src/lablease/wire from proto/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the committed files differ")
    check: bool = parser.parse_args().check

    with tempfile.TemporaryDirectory(prefix="lablease-proto-") as scratch:
        wanted = generate(Path(scratch))
    present = {path.relative_to(WIRE): path.read_text("utf-8") for path in generated_files()}
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))

    if check:
        for name in stale:
            print(f"out of date: {(WIRE / name).relative_to(ROOT)} (run: make proto)", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        write(WIRE / name, wanted.get(name))
    print(f"{len(wanted)} files, {len(stale)} changed")
    return 0


def generate(scratch: Path) -> dict[Path, str]:
    """Run protoc in ``scratch`` and return the text of every wanted file by its path under ``wire/``."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    protoc = subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            f"--plugin=protoc-gen-mypy={plugin('protoc-gen-mypy')}",
            f"--plugin=protoc-gen-mypy_grpc={plugin('protoc-gen-mypy_grpc')}",
            f"--proto_path={PROTO}",
            f"--proto_path={annotations()}",
            f"--python_out={scratch}",
            f"--grpc_python_out={scratch}",
            f"--mypy_out=quiet:{scratch}",
            f"--mypy_grpc_out=quiet:{scratch}",
            *sources,
        ],
        check=False,
    )
    if protoc.returncode != 0:
        raise SystemExit(f"protoc failed with status {protoc.returncode}")

    files: dict[Path, str] = {}
    for package, home in PACKAGES.items():
        folder = scratch / package.replace(".", "/")
        for path in folder.rglob("*.py*"):
            name = Path(home) / path.relative_to(folder)
            files[name] = rewrite(path.read_text("utf-8"))
            files.update({parent / "__init__.py": "" for parent in name.parents if parent != Path(".")})
    return files


def rewrite(text: str) -> str:
    """Return the generated module with its imports of other generated modules moved under ``lablease.wire``."""
    return IMPORT.sub(lambda match: f"{match['verb']} lablease.wire.{PACKAGES[match['package']]}", text)


def plugin(name: str) -> Path:
    """Return the protoc plugin that is installed beside this interpreter; other versions on PATH do not count."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise SystemExit(f"{name} is not installed beside {sys.executable}: install the dev dependencies")
    return path


def annotations() -> Path:
    """Return the folder that holds ``google/api/annotations.proto`` of googleapis-common-protos."""
    return Path(str(resources.files("google.api") / "annotations.proto")).parents[2]


def generated_files() -> Iterator[Path]:
    """Yield every file in the generated folders, bytecode excepted."""
    for home in PACKAGES.values():
        yield from (path for path in (WIRE / home).rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def write(path: Path, text: str | None) -> None:
    """Write ``text``, or remove the file if it is None."""
    if text is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
