"""Host of unmodified upstream driver packages (``jumpstarter-driver-*``).

Run by path, with the interpreter that has these packages; that interpreter needs nothing of ours installed, and none of
our generated protobuf is loaded: upstream's, which its packages import, takes the place of it.
"""

import importlib.util
import sys
import types
from pathlib import Path


def enter_package() -> None:
    """Make ``lablease`` importable from where this file lies, and put upstream's messages in place of ours.

    Putting our whole library directory on ``sys.path`` would shadow the packages of this interpreter.
    """
    root = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        "lablease", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {root}")
    package = importlib.util.module_from_spec(spec)
    sys.modules["lablease"] = package
    spec.loader.exec_module(package)
    messages = types.ModuleType("lablease.driver.messages")
    for name in ("jumpstarter_pb2", "jumpstarter_pb2_grpc"):
        setattr(messages, name, importlib.import_module(f"jumpstarter_protocol.jumpstarter.v1.{name}"))
    sys.modules["lablease.driver.messages"] = messages


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file: its modules are not to be had under short names
    enter_package()
    from lablease.driver.upstream import main

    main()
