"""The driver tree of an exporter, as its GetReport describes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lablease.client.errors import ClientError, NoSuchDriver
from lablease.wire.jumpstarter.v1.jumpstarter_pb2 import DriverInstanceReport, GetReportResponse

CLIENT_LABEL = "jumpstarter.dev/client"
NAME_LABEL = "jumpstarter.dev/name"
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class DriverNode:
    """One driver instance; ``uuid`` holds for this session only, ``path`` is stable."""

    uuid: str
    path: tuple[str, ...]
    client: str
    labels: Mapping[str, str]
    description: str = ""
    methods: Mapping[str, str] = field(default_factory=dict[str, str])
    children: Mapping[str, DriverNode] = field(default_factory=dict[str, "DriverNode"])

    @property
    def name(self) -> str:
        """Return the key in the parent, "" for the root."""
        return self.path[-1] if self.path else ""

    def walk(self) -> Iterator[DriverNode]:
        """Yield this node and everything below it, parents first."""
        yield self
        for child in self.children.values():
            yield from child.walk()

    def find(self, path: str) -> DriverNode:
        """Return the node at a dotted path ("" is this node).

        Raises:
            NoSuchDriver: with the names that would be right at the level where the path left the tree.
        """
        node = self
        for part in path.split(".") if path else ():
            if part not in node.children:
                inside = f" in {'.'.join(node.path)}" if node.path else ""
                offered = ", ".join(sorted(node.children)) or "nothing"
                raise NoSuchDriver(f"no driver {part!r}{inside}; the exporter offers {offered}")
            node = node.children[part]
        return node


def build_tree(report: GetReportResponse) -> DriverNode:
    """Build the tree from a depth-first report list, parents before children.

    An alias is reported again with the uuid of its target, so one uuid may stand at several places; a
    ``parent_uuid`` means its latest occurrence.

    Raises:
        ClientError: no root or several, a parent that was not reported before, a missing label, or more
            than ``MAX_DEPTH`` levels.
    """
    items = report.reports
    paths: list[tuple[str, ...]] = []
    below: list[list[int]] = [[] for _ in items]
    latest: dict[str, int] = {}
    roots: list[int] = []
    for index, item in enumerate(items):
        if item.HasField("parent_uuid"):
            parent = latest.get(item.parent_uuid)
            if parent is None:
                raise ClientError(f"exporter report: driver {item.uuid} names a parent that was not reported before it")
            below[parent].append(index)
            paths.append((*paths[parent], _label(item, NAME_LABEL)))
            if len(paths[-1]) > MAX_DEPTH:
                raise ClientError(f"exporter report: more than {MAX_DEPTH} levels of drivers")
        else:
            roots.append(index)
            paths.append(())
        latest[item.uuid] = index
    if len(roots) != 1:
        raise ClientError(f"exporter report: {len(roots)} root drivers, there must be one")
    nodes: dict[int, DriverNode] = {}
    for index in range(len(items) - 1, -1, -1):
        children = {nodes[child].name: nodes[child] for child in below[index]}
        nodes[index] = _node(items[index], paths[index], children)
    return nodes[roots[0]]


def _node(item: DriverInstanceReport, path: tuple[str, ...], children: Mapping[str, DriverNode]) -> DriverNode:
    return DriverNode(
        uuid=item.uuid,
        path=path,
        client=_label(item, CLIENT_LABEL),
        labels=dict(item.labels),
        description=item.description,
        methods=dict(item.methods_description),
        children=children,
    )


def _label(item: DriverInstanceReport, label: str) -> str:
    value = item.labels.get(label)
    if not value:
        raise ClientError(f"exporter report: driver {item.uuid} has no label {label}")
    return value
