"""Which kind of host an exporter needs: its drivers are native, or written for upstream's driver API, not both."""

from collections.abc import Mapping, Sequence
from typing import Final

from lablease.driver import control
from lablease.exporter_agent.errors import ConfigProblem
from lablease.exporter_agent.hosts import DriverHost, HostKind, choose_python, native_kind, upstream_kind

CLASSIFY_SECONDS: Final = 60.0


async def choose_kind(types: Sequence[tuple[str, str]], python: str | None, env: Mapping[str, str]) -> HostKind:
    """Return the kind for a tree with these (entry, class) pairs. Starts a host to look at classes whose name says nothing.

    Raises:
        ConfigProblem: the tree mixes both kinds.
        HostFailed: the host that looks at classes did not come up.
    """
    native = {entry for entry, dotted in types if dotted.startswith("lablease.")}
    unclear = [(entry, dotted) for entry, dotted in types if not dotted.startswith(("lablease.", "jumpstarter"))]
    if unclear:
        known = await _native_types([dotted for _, dotted in unclear])
        native |= {entry for entry, dotted in unclear if dotted in known}
    upstream = [entry for entry, _ in types if entry not in native]
    if native and upstream:
        raise ConfigProblem(
            f"export: {min(native)} is a native driver and {upstream[0]} is one of upstream's driver API; "
            "the drivers of one exporter must be of one kind"
        )
    names = tuple(sorted({dotted for _, dotted in types}))
    return upstream_kind(choose_python(python, env), names) if upstream else native_kind(names)


async def _native_types(types: list[str]) -> set[str]:
    host = await DriverHost.start(native_kind())
    try:
        host.send(control.Classify(types=types))
        answer = await host.answer(control.Classified, CLASSIFY_SECONDS)
    finally:
        await host.kill()
    return set(answer.native)
