"""The committed wire modules are what ``make proto`` writes."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WIRE = Path("src") / "lablease" / "wire"


def make_proto(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "tools" / "make_proto.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What make_proto reads and writes, to spoil."""
    for folder in ("proto", "tools", str(WIRE)):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_committed_modules_are_what_protoc_writes() -> None:
    done = make_proto(ROOT, "--check")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("path", "text", "reported"),
    [
        (WIRE / "internal/v1/router_control_pb2.pyi", None, "router_control_pb2.pyi"),
        (WIRE / "jumpstarter/v1/left_over_pb2.py", "", "left_over_pb2.py"),
        (WIRE / "jumpstarter/v1/common_pb2.py", "# edited\n", "common_pb2.py"),
        (Path("proto/jumpstarter/v1/more.proto"), 'syntax = "proto3";\nmessage M {}\n', "more_pb2.py"),
    ],
    ids=["missing", "left over", "edited", "new proto"],
)
def test_check_names_a_file_that_is_out_of_date(copy: Path, path: Path, text: str | None, reported: str) -> None:
    if text is None:
        (copy / path).unlink()
    else:
        (copy / path).write_text(text)
    before = sorted(copy.rglob("*"))

    done = make_proto(copy, "--check")

    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if reported in line]
    assert sorted(copy.rglob("*")) == before, "a check writes nothing"


def test_writing_repairs_what_check_reports(copy: Path) -> None:
    (copy / WIRE / "jumpstarter/v1/left_over_pb2.py").touch()
    (copy / WIRE / "jumpstarter/v1/common_pb2.py").unlink()

    assert make_proto(copy).returncode == 0
    assert make_proto(copy, "--check").returncode == 0


def test_the_oldest_allowed_runtimes_can_load_the_modules() -> None:
    """A generated module refuses a runtime that is older than its generator."""
    module = (ROOT / WIRE / "jumpstarter/v1/router_pb2.py").read_text()
    stub = (ROOT / WIRE / "jumpstarter/v1/router_pb2_grpc.py").read_text()
    protobuf = re.search(r"Domain\.PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+),", module)
    grpcio = re.search(r"GRPC_GENERATED_VERSION = '(\d+)\.(\d+)\.(\d+)'", stub)
    assert protobuf
    assert grpcio

    assert oldest_allowed("protobuf") >= tuple(map(int, protobuf.groups()))
    assert oldest_allowed("grpcio") >= tuple(map(int, grpcio.groups()))


def oldest_allowed(package: str) -> tuple[int, ...]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bound = next(line for line in project["dependencies"] if re.match(rf"{package}[<>=]", line))
    version = re.search(r">=\s*([\d.]+)", bound)
    assert version, f"{bound} has no lower bound"
    return tuple(map(int, version[1].split(".")))
