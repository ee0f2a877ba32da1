"""The layout: role folders at the root, links to them in the package, and a root folder that shadows no standard module.

A root folder ``operator/`` with an ``__init__.py`` would replace the standard library's ``operator`` for every Python
that is started in the root. Some machines hide that, because a .pth file imported ``operator`` before; so the check runs
with ``-S``.
"""

import importlib.util
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path("src") / "lablease"
ROLES = ("operator", "grpc_frontend", "exporter_agent")
LINKS = {PACKAGE / name: Path("..") / ".." / name for name in (*ROLES, "crds", "manifests")}


def tracked(*arguments: str) -> list[str]:
    """Return what ``git ls-files`` prints for these arguments.

    Raises:
        CalledProcessError: this is no clone, so that nothing can be compared.
    """
    command = ["git", "ls-files", "-z", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [entry for entry in done.stdout.split("\0") if entry]


def origin_of_operator(folder: Path) -> subprocess.CompletedProcess[str]:
    """Start a bare interpreter in ``folder`` and ask where its ``operator`` came from."""
    code = "import collections, operator; print(operator.__file__)"
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={}, check=False)


def test_a_bare_interpreter_in_the_root_gets_the_standard_operator() -> None:
    found = origin_of_operator(ROOT)

    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()).parent == Path(sysconfig.get_path("stdlib"))


def test_the_check_above_sees_an_operator_folder_that_is_a_package(tmp_path: Path) -> None:
    (tmp_path / "operator").mkdir()
    assert origin_of_operator(tmp_path).returncode == 0

    (tmp_path / "operator" / "__init__.py").touch()
    assert origin_of_operator(tmp_path).returncode != 0


@pytest.mark.parametrize("path", ["operator.py", "operator/__init__.py", "operator/handlers/__init__.py"])
def test_nothing_makes_the_operator_folder_a_package(path: str) -> None:
    assert not (ROOT / path).exists()


def test_each_link_is_tracked_as_a_link_and_leads_to_its_folder() -> None:
    links = {Path(entry.partition("\t")[2]) for entry in tracked("-s") if entry.startswith("120000 ")}

    assert links == LINKS.keys()
    for link, target in LINKS.items():
        assert (ROOT / link).readlink() == target
        assert (ROOT / link).is_dir(), f"{link} leads nowhere"


def module_name(path: Path) -> str:
    """Return the name under which a file of the package or of a role folder is imported."""
    inside = path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else path
    parts = ("lablease", *inside.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_python_file_that_git_knows_is_importable_under_lablease() -> None:
    files = [Path(name) for name in tracked("--", *map(str, (PACKAGE, *ROLES))) if name.endswith(".py")]
    assert len(files) > 50

    specs = {path: importlib.util.find_spec(module_name(path)) for path in files}
    origins = {path: Path(spec.origin).resolve() for path, spec in specs.items() if spec and spec.origin}

    assert origins == {path: ROOT / path for path in files}
    assert [name for name, count in Counter(map(module_name, files)).items() if count > 1] == []


def test_test_modules_have_names_of_their_own_and_no_package_around_them() -> None:
    files = [Path(name) for name in tracked("--", "tests") if name.endswith(".py")]

    assert Path(__file__).relative_to(ROOT) in files
    assert [path for path in files if path.name == "__init__.py"] == []
    names = Counter(path.name for path in files if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []
