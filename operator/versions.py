"""Which version of each object was seen last: nothing older may come back, whether from a watch or from a late answer."""

from lablease.model.keys import Key
from lablease.operator.writes import Kind, Ref


class Versions:
    """Versions of one kind are ordered: etcd revisions, and by contract of the API since Kubernetes 1.35."""

    def __init__(self) -> None:
        self._seen: dict[Ref, int] = {}
        self._gone: dict[Ref, int] = {}
        self._marked = 0

    def advance(self, ref: Ref, version: int, *, gone: bool = False) -> bool:
        """Note a version; False if it says nothing new."""
        known = self._seen.get(ref, -1)
        if version < known or (version == known and not gone) or version <= self._gone.get(ref, -1):
            return False
        if gone:
            if self._seen.pop(ref, None) is None:
                return False
            self._gone[ref] = version
        else:
            self._seen[ref] = version
        return True

    def forget(self, ref: Ref) -> None:
        """An object is gone, and so are all versions of it that were seen."""
        version = self._seen.pop(ref, None)
        if version is not None:
            self._gone[ref] = version

    def missing(self, kind: Kind, namespace: str | None, present: frozenset[Key], version: int) -> list[Key]:
        """Return what is known of a kind, is not newer than a list, and was not in it.

        Deletions older than the list before are forgotten: no answer of a write takes as long.
        """
        self._gone = {ref: seen for ref, seen in self._gone.items() if ref.kind is not kind or seen > self._marked}
        self._marked = version
        return [
            ref.key
            for ref, seen in self._seen.items()
            if ref.kind is kind
            and seen <= version
            and ref.key not in present
            and (namespace is None or ref.key.namespace == namespace)
        ]
