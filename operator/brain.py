"""The one task that decides. Events only say what to look at; a look reads memory, decides, and hands out writes.

What is in flight is reserved: nothing else is decided about an object until its write is settled. A write that was
refused, or whose outcome nobody knows, is settled by reading the object again, never by trying blindly.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable
from datetime import datetime

import structlog

from lablease import clock
from lablease.errors import InvalidField, LableaseError, NotAllowed, NotFound, Unavailable
from lablease.kube.api import KubeApi, RawObject
from lablease.model.client import parse_client
from lablease.model.exporter import Exporter, parse_exporter
from lablease.model.keys import Key
from lablease.model.lease import parse_lease
from lablease.model.meta import Meta
from lablease.model.policy import parse_policy
from lablease.operator.events import Event
from lablease.operator.look import Look
from lablease.operator.realm import Realm
from lablease.operator.tokens import Keeper, owner_of
from lablease.operator.versions import Versions
from lablease.operator.writes import RESOURCES, Kind, Pool, Ref, Write, perform
from lablease.rules.liveness import Presence
from lablease.rules.world import World

_MAXIMUM_SLEEP_SECONDS = 1.0
"""So long a step of the wall clock can go unnoticed."""
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between reads of an object whose write is not settled; the last repeats."""
_REFUSED_SECONDS = 30.0
"""How long an object is left alone whose write the API server will never accept: only an edit can help it."""

log = structlog.get_logger("lablease.operator")


class Brain:
    """Knows all namespaces that it serves.

    ``writing`` False is a warm standby: it follows everything and decides nothing.
    """

    def __init__(
        self,
        api: KubeApi,
        keeper: Keeper,
        namespaces: Iterable[str] = (),
        presence: Callable[[str], Presence] = lambda _: Presence(),
        tell: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.writing = True
        self._api = api
        self._keeper = keeper
        self._namespaces = frozenset(namespaces)
        self._presence = presence
        self._tell = tell
        self._realms: dict[str, Realm] = {}
        self._versions = Versions()
        self._pool = Pool(self._settle)
        self._wakeup = asyncio.Event()
        self._alarms: list[tuple[datetime, int, str, Kind, str]] = []
        self._numbers = itertools.count()
        self._set: dict[tuple[str, Kind, str], datetime] = {}

    # What is seen

    def observe(self, kind: Kind, raw: RawObject, *, gone: bool = False) -> None:
        """Take in an object as it is at its version; what is older than what is known is dropped.

        An object that cannot be read is left out and logged: it stops nothing else.
        """
        key = Key(raw["metadata"].get("namespace", ""), raw["metadata"]["name"])
        version = int(raw["metadata"]["resourceVersion"])
        if self._namespaces and key.namespace not in self._namespaces:
            return
        if not self._versions.advance(Ref(kind, key), version, gone=gone):
            return
        realm = self._realm(key.namespace)
        current = realm.writing.get(Ref(kind, key))
        if current is not None and current.held:
            self._done(current)
        try:
            if gone:
                self._gone(realm, kind, key.name)
            else:
                self._seen(realm, kind, raw)
        except InvalidField as problem:
            log.warning(
                "object.unreadable", kind=str(kind), namespace=key.namespace, name=key.name, reason=str(problem)
            )
            self._gone(realm, kind, key.name)
        self._wakeup.set()

    def missing(self, kind: Kind, namespace: str | None, present: Iterable[Key], version: int) -> int:
        """Forget what a complete list at a version did not have; return how many that were."""
        lost = self._versions.missing(kind, namespace, frozenset(present), version)
        for key in lost:
            self._versions.advance(Ref(kind, key), version, gone=True)
            self._gone(self._realm(key.namespace), kind, key.name)
        self._wakeup.set()
        return len(lost)

    def frontend_changed(self, frontend: str) -> None:
        """A front end was lost or came back: look at the exporters whose sessions it holds."""
        for realm in self._realms.values():
            for exporter in realm.world.exporters.values():
                if exporter.session is not None and exporter.session.frontend == frontend:
                    self._look_up(realm, exporter)
                    realm.exporter_seen(exporter)
                    realm.restless = True
        self._wakeup.set()

    def wake(self) -> None:
        """Look now: time has passed."""
        self._wakeup.set()

    def promote(self) -> None:
        """Begin to decide, about everything."""
        self.writing = True
        for realm in self._realms.values():
            realm.everything_is_dirty()
        self._wakeup.set()

    def _realm(self, namespace: str) -> Realm:
        realm = self._realms.get(namespace)
        if realm is None:
            realm = self._realms[namespace] = Realm(World(namespace))
        return realm

    def _seen(self, realm: Realm, kind: Kind, raw: RawObject) -> None:
        match kind:
            case Kind.LEASE:
                realm.lease_seen(parse_lease(raw))
            case Kind.EXPORTER:
                exporter = parse_exporter(raw)
                self._look_up(realm, exporter)
                realm.exporter_seen(exporter)
            case Kind.CLIENT:
                realm.client_seen(parse_client(raw))
            case Kind.POLICY:
                policy = parse_policy(raw)
                realm.policy_seen(policy)
                self._warn(kind, policy.meta, policy.problems)
            case Kind.SECRET:
                owner = owner_of(raw["metadata"]["name"])
                if owner is not None:
                    realm.token_seen(*owner, self._keeper.read(raw, clock.utc_now()))

    def _warn(self, kind: Kind, meta: Meta, problems: Iterable[InvalidField]) -> None:
        """Tell what is wrong with an object that has no conditions; the rest of it counts."""
        for problem in problems:
            self._tell(Event(kind, meta, "InvalidSpec", f"ignored: {problem}", clock.utc_now()))

    def _gone(self, realm: Realm, kind: Kind, name: str) -> None:
        match kind:
            case Kind.LEASE:
                lease = realm.world.leases.get(name)
                if lease is not None and lease.status.exporter is not None:
                    facts = {
                        "client": lease.spec.client,
                        "exporter": lease.status.exporter,
                        "grant": lease.status.grant,
                    }
                    log.info("lease.ended", namespace=realm.world.namespace, lease=name, reason="Deleted", **facts)
                realm.lease_gone(name)
            case Kind.EXPORTER:
                realm.exporter_gone(name)
            case Kind.CLIENT:
                realm.client_gone(name)
            case Kind.POLICY:
                realm.policy_gone(name)
            case Kind.SECRET:
                owner = owner_of(name)
                if owner is not None:
                    realm.token_gone(*owner)

    def _look_up(self, realm: Realm, exporter: Exporter) -> None:
        """Note what is known of the front end that holds the exporter's session."""
        name = exporter.key.name
        presence = Presence() if exporter.session is None else self._presence(exporter.session.frontend)
        if presence.lost is None:
            realm.world.presences.pop(name, None)
            return
        realm.world.presences[name] = presence

    # The loop

    async def run(self) -> None:
        """Decide until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pool.run())
            group.create_task(self._loop())

    async def settled(self) -> None:
        """Decide nothing any more, and wait until what is in flight is answered."""
        self.writing = False
        await self._pool.settled()

    async def _loop(self) -> None:
        while True:
            await self._rest()
            self._ring()
            if self.writing:
                self._look()

    async def _rest(self) -> None:
        seconds = _MAXIMUM_SLEEP_SECONDS
        if self._alarms:
            seconds = min(seconds, (self._alarms[0][0] - clock.utc_now()).total_seconds())
        if seconds > 0 and not self._wakeup.is_set():
            handle = asyncio.get_running_loop().call_later(seconds, self._wakeup.set)
            await self._wakeup.wait()
            handle.cancel()
        self._wakeup.clear()
        await asyncio.sleep(0)  # let what else has arrived join this look

    def _alarm(self, namespace: str, kind: Kind, name: str, when: datetime) -> None:
        entry = namespace, kind, name
        earlier = self._set.get(entry)
        if earlier is None or when < earlier:
            self._set[entry] = when
            heapq.heappush(self._alarms, (when, next(self._numbers), *entry))

    def _ring(self) -> None:
        now = clock.utc_now()
        while self._alarms and self._alarms[0][0] <= now:
            when, _, namespace, kind, name = heapq.heappop(self._alarms)
            if self._set.get((namespace, kind, name)) == when:
                del self._set[namespace, kind, name]
                self._mark(self._realm(namespace), kind, name)

    def _mark(self, realm: Realm, kind: Kind, name: str) -> None:
        match kind:
            case Kind.LEASE if name in realm.world.ended:
                realm.over[name] = None
            case Kind.LEASE:
                realm.dirty_leases[name] = None
            case Kind.EXPORTER:
                realm.dirty_exporters[name] = None
                realm.dirty_owners[kind, name] = None
                realm.dirty_leases |= dict.fromkeys(realm.world.leases_on(name))
                realm.restless = True
            case Kind.CLIENT:
                realm.dirty_owners[kind, name] = None
            case Kind.SECRET:
                owner = owner_of(name)
                if owner is not None:
                    realm.dirty_owners[owner] = None
            case Kind.POLICY:
                pass  # nothing is ever written to a policy

    def _look(self) -> None:
        now = clock.utc_now()
        for namespace, realm in self._realms.items():
            if not realm.dirty:
                continue

            def alarm(kind: Kind, name: str, when: datetime, namespace: str = namespace) -> None:
                self._alarm(namespace, kind, name, when)

            for write in Look(realm, now, alarm).run():
                self._pool.put(write)
            self._credentials(realm, now)

    def _credentials(self, realm: Realm, now: datetime) -> None:
        owners, realm.dirty_owners = realm.dirty_owners, {}
        for kind, name in owners:
            write, again = self._keeper.look(realm, kind, name, now)
            if write is not None:
                realm.writing[write.ref] = write
                self._pool.put(write)
            if again is not None:
                self._alarm(realm.world.namespace, kind, name, again)

    # Writes

    async def _settle(self, write: Write) -> None:
        """Perform a write, and take in what is true then."""
        bound = log.bind(namespace=write.ref.key.namespace, kind=str(write.ref.kind), name=write.ref.key.name)
        try:
            self._accepted(write, await perform(self._api, write))
        except (InvalidField, NotAllowed) as problem:
            bound.error("write.refused", reason=str(problem))
            self._hold(write)
            return
        except Unavailable as problem:
            bound.warning("write.unsettled", reason=str(problem))
            await self._read_again(write)
        except LableaseError as problem:
            bound.debug("write.overtaken", reason=str(problem))
            await self._read_again(write)
        self._done(write)

    def _accepted(self, write: Write, raw: RawObject | None) -> None:
        if raw is None:
            self._gone_for_good(write.ref)
        else:
            self.observe(write.ref.kind, raw)
        if write.event:
            noun = "lease" if write.ref.kind is Kind.LEASE else "name"
            log.info(write.event, namespace=write.ref.key.namespace, **{noun: write.ref.key.name}, **write.facts)

    def _hold(self, write: Write) -> None:
        """Leave an object alone that the API server will not let us change, until it changes or a while has passed."""
        write.held = True
        asyncio.get_running_loop().call_later(_REFUSED_SECONDS, self._done, write)

    def _done(self, write: Write) -> None:
        """A write is settled: what it was about may be decided again."""
        realm = self._realm(write.ref.key.namespace)
        if realm.writing.get(write.ref) is not write:
            return
        del realm.writing[write.ref]
        if write.promise:
            realm.world.promises.pop(write.promise, None)
            realm.dirty_leases[write.promise] = None
        self._mark(realm, write.ref.kind, write.ref.key.name)
        self._wakeup.set()

    async def _read_again(self, write: Write) -> None:
        """Read an object until the API server answers, and take in what it says."""
        ref, attempt = write.ref, 0
        while True:
            try:
                self.observe(ref.kind, await self._api.get(RESOURCES[ref.kind], ref.key))
                return
            except NotFound:
                self._gone_for_good(ref)
                return
            except LableaseError as problem:
                if attempt % 20 == 0:
                    log.warning("read.failed", kind=str(ref.kind), name=str(ref.key), reason=str(problem))
                await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
                attempt += 1

    def _gone_for_good(self, ref: Ref) -> None:
        self._versions.forget(ref)
        self._gone(self._realm(ref.key.namespace), ref.kind, ref.key.name)
