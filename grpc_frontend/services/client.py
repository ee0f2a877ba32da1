"""``jumpstarter.client.v1.ClientService``: exporters and leases as resources."""

from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from lablease import clock
from lablease.errors import InvalidField, NotAllowed, NotFound, NotNow, OutcomeUnknown, Stale
from lablease.grpc_frontend.auth import Caller
from lablease.grpc_frontend.bells import About, Topic
from lablease.grpc_frontend.gate import CLIENT, Gate, service
from lablease.grpc_frontend.ids import uuid7
from lablease.grpc_frontend.lab import Lab
from lablease.grpc_frontend.leases import RETENTION, active, check_owner, decided
from lablease.grpc_frontend.paging import page
from lablease.grpc_frontend.parts import Parts, rung
from lablease.grpc_frontend.places import Places
from lablease.grpc_frontend.services.rotation import Rotation
from lablease.grpc_frontend.updating import (
    Update,
    check_policy,
    check_transfer,
    handed_over,
    new_times,
    read_update,
    spec_patch,
)
from lablease.model.client import Client
from lablease.model.keys import Key
from lablease.model.lease import Lease, LeaseSpec
from lablease.model.meta import TAG_PREFIX
from lablease.model.selector import Requirement, Selector
from lablease.rules.names import check_object_name, check_tags
from lablease.rules.policy import Access
from lablease.rules.selectors import matches, parse
from lablease.rules.times import normalise
from lablease.wire.codec_client import (
    EXPORTERS,
    LEASES,
    exporter_message,
    lease_message,
    parse_parent,
    parse_resource_name,
    read_lease,
)
from lablease.wire.jumpstarter.client.v1 import client_pb2 as pb

NAME = "jumpstarter.client.v1.ClientService"
WAIT_HINT = "x-lablease-wait"
"""Metadata of GetLease: how many seconds to wait for a decision."""


class ClientExporters:
    """Looking at exporters."""

    def __init__(self, parts: Parts, lab: Lab) -> None:
        self._store = parts.store
        self._lab = lab

    async def get_exporter(self, caller: Caller, request: pb.GetExporterRequest) -> pb.Exporter:
        """Return one exporter.

        Raises:
            NotFound: there is none.
        """
        key = parse_resource_name(request.name, EXPORTERS, "name")
        check_namespace(caller, key.namespace)
        exporter = self._store.exporter(key)
        if exporter is None:
            raise NotFound("exporter", key.name)
        return exporter_message(exporter, self._lab.settings.labels, show_hidden=request.show_hidden_labels)

    async def list_exporters(self, caller: Caller, request: pb.ListExportersRequest) -> pb.ListExportersResponse:
        """Return a page of the exporters whose labels match."""
        check_namespace(caller, parse_parent(request.parent))
        wanted = parse(request.filter, "filter")
        found = (
            record.exporter
            for record in self._store.exporters.values()
            if record.exporter.key.namespace == caller.key.namespace and matches(wanted, record.exporter.meta.labels)
        )
        shown, token = page(found, lambda exporter: exporter.key.name, request.page_size, request.page_token)
        rules = self._lab.settings.labels
        return pb.ListExportersResponse(
            exporters=[exporter_message(item, rules, show_hidden=request.show_hidden_labels) for item in shown],
            next_page_token=token,
        )


class ClientLeases:
    """Leases of the caller, and looking at those of others."""

    def __init__(self, parts: Parts, lab: Lab, places: Places) -> None:
        self._places = places
        self._parts = parts
        self._store = parts.store
        self._leases = parts.leases
        self._lab = lab

    async def get_lease(self, caller: Caller, request: pb.GetLeaseRequest) -> pb.Lease:
        """Return one lease; one about which nothing is decided yet is held back for a moment.

        Raises:
            NotFound: there is none.
        """
        key = parse_resource_name(request.name, LEASES, "name")
        check_namespace(caller, key.namespace)
        seconds = self._patience(caller)
        lease = await self._leases.find(key, caller.user)
        if seconds > 0:
            lease = await self._until_decided(lease, seconds)
        now = clock.utc_now()
        return lease_message(lease, now, self._lab.settings.labels, self._places.of(lease, now))

    async def _until_decided(self, lease: Lease, seconds: float) -> Lease:
        deadline = clock.monotonic() + seconds
        with self._store.bells.listen(Topic(About.LEASE, lease.key)) as bell:
            while not decided(lease, clock.utc_now()) and not self._parts.draining.is_set():
                left = deadline - clock.monotonic()
                if left <= 0:
                    break
                await rung(bell, left)
                bell.clear()
                lease = self._store.leases.get(lease.key) or lease
        return lease

    def _patience(self, caller: Caller) -> float:
        """Return for how many seconds GetLease may be held."""
        hint = caller.hints.get(WAIT_HINT)
        if hint is None:
            return self._parts.waits.decision.total_seconds()
        try:
            asked = float(hint)
        except ValueError:
            raise InvalidField(WAIT_HINT, f"{hint[:50]!r} is no number of seconds") from None
        longest = self._parts.waits.longest.total_seconds()
        return min(asked, longest) if asked > 0 else 0.0

    async def list_leases(self, caller: Caller, request: pb.ListLeasesRequest) -> pb.ListLeasesResponse:
        """Return a page of the leases whose labels and tags match, of all clients."""
        check_namespace(caller, parse_parent(request.parent))
        wanted = parse(request.filter, "filter")
        tagged = tag_selector(request.tag_filter)
        only_active = request.only_active if request.HasField("only_active") else True
        found = (
            lease
            for lease in self._store.leases.values()
            if lease.key.namespace == caller.key.namespace
            and (not only_active or active(lease))
            and matches(wanted, lease.meta.labels)
            and matches(tagged, lease.meta.labels)
        )
        shown, token = page(found, lambda lease: lease.key.name, request.page_size, request.page_token)
        return pb.ListLeasesResponse(leases=[self._message(lease) for lease in shown], next_page_token=token)

    async def create_lease(self, caller: Caller, request: pb.CreateLeaseRequest) -> pb.Lease:
        """Ask for an exporter; nothing is decided inside this call.

        Raises:
            InvalidField: the request cannot be met by anybody.
            AlreadyExists: a lease of that name.
        """
        if not request.HasField("lease"):
            raise InvalidField("lease", "is required")
        wanted = read_lease(request.lease)
        check_tags(wanted.tags, "lease.tags", maximum=self._lab.settings.maximum_tags)
        check_namespace(caller, parse_parent(request.parent))
        name = check_object_name(request.lease_id, "lease_id") if request.lease_id else uuid7(clock.utc_now())
        times = normalise(wanted.times)
        spec = LeaseSpec(
            client=caller.key.name,
            selector=wanted.selector,
            exporter=wanted.exporter,
            duration=times.duration,
            begin=times.begin,
            end=times.end,
            allow_disabled=wanted.allow_disabled,
            tags=wanted.tags,
            context=wanted.context,
            idle_timeout=wanted.idle_timeout,
            wait_timeout=wanted.wait_timeout,
            ttl=RETENTION,
        )
        return self._message(await self._leases.create(name, spec))

    async def update_lease(self, caller: Caller, request: pb.UpdateLeaseRequest) -> pb.Lease:
        """Change the times or the owner of a lease, as far as policies allow it.

        Raises:
            NotFound: there is no such lease, or no such new owner.
            NotAllowed: it is another client's, or policies do not let the new owner have the exporter.
            NotNow: it has ended, or has no exporter that could go to another client.
            InvalidField: the new times cannot be.
        """
        if not request.HasField("lease"):
            raise InvalidField("lease", "is required")
        key = parse_resource_name(request.lease.name, LEASES, "lease.name")
        check_namespace(caller, key.namespace)
        update = read_update(request)
        lease = await self._leases.owned(caller, key.name)
        while True:
            check_owner(caller, lease)
            patch = await self._patch(lease, update)
            if not patch:
                return self._message(lease)
            try:
                lease = await self._store.patch_lease(key, {"spec": patch}, lease.meta.resource_version)
            except OutcomeUnknown:
                lease = await self._store.read_lease(key)
                if handed_over(lease, update):  # it was done: the caller is not the owner any more
                    return self._message(lease)
            except Stale:
                lease = await self._store.read_lease(key)
            else:
                return self._message(lease)

    async def _patch(self, lease: Lease, update: Update) -> dict[str, object]:
        if not active(lease):
            raise NotNow(f"lease {lease.key.name} has ended")
        times = new_times(lease, update)
        owner = update.client or Key(lease.key.namespace, lease.spec.client)
        if owner.name != lease.spec.client or owner.namespace != lease.key.namespace:
            check_transfer(lease, owner)
        patch = spec_patch(lease, times, owner.name)
        if patch and lease.status.exporter is not None:
            client = await self._client(owner)
            exporter = self._store.exporter(Key(lease.key.namespace, lease.status.exporter))
            check_policy(lease, times, client, exporter, Access(self._store.policies.values()))
        return patch

    async def _client(self, key: Key) -> Client:
        cached = self._store.clients.get(key)
        if cached is not None:
            return cached
        try:
            return await self._store.read_client(key)
        except NotFound:
            raise NotFound("client", key.name) from None

    async def delete_lease(self, caller: Caller, request: pb.DeleteLeaseRequest) -> Empty:
        """End a lease of the caller; the object stays for a while as a record.

        Raises:
            NotFound: there is none.
            NotAllowed: it is another client's.
            NotNow: its end was asked for before.
        """
        key = parse_resource_name(request.name, LEASES, "name")
        check_namespace(caller, key.namespace)
        lease = await self._leases.owned(caller, key.name)
        if lease.release_asked:
            raise NotNow(f"lease {key.name} was released before")
        await self._leases.release(lease, lambda seen: check_owner(caller, seen))
        return Empty()

    def _message(self, lease: Lease) -> pb.Lease:
        return lease_message(lease, clock.utc_now(), self._lab.settings.labels)


def check_namespace(caller: Caller, namespace: str) -> None:
    """Raise NotAllowed unless the caller names its own namespace."""
    if namespace != caller.key.namespace:
        raise NotAllowed(
            f"namespace mismatch: {caller.key.name} is of {caller.key.namespace}, not of {namespace[:100]}"
        )


def tag_selector(text: str) -> Selector:
    """Read a selector over tags; it becomes one over the labels in which they are stored.

    Raises:
        InvalidField: it cannot be read.
    """
    plain = parse(text, "tag_filter")
    return Selector(
        tuple((TAG_PREFIX + key, value) for key, value in plain.match_labels),
        tuple(Requirement(TAG_PREFIX + item.key, item.operator, item.values) for item in plain.expressions),
    )


def client_service(gate: Gate, parts: Parts, lab: Lab, places: Places) -> "grpc.GenericRpcHandler[Any, Any]":
    """Return the handler of the whole service."""
    exporters = ClientExporters(parts, lab)
    leases = ClientLeases(parts, lab, places)
    rotation = Rotation(parts)
    return service(
        NAME,
        {
            "GetExporter": gate.unary(CLIENT, exporters.get_exporter, pb.GetExporterRequest),
            "ListExporters": gate.unary(CLIENT, exporters.list_exporters, pb.ListExportersRequest),
            "GetLease": gate.unary(CLIENT, leases.get_lease, pb.GetLeaseRequest),
            "ListLeases": gate.unary(CLIENT, leases.list_leases, pb.ListLeasesRequest),
            "CreateLease": gate.unary(CLIENT, leases.create_lease, pb.CreateLeaseRequest),
            "UpdateLease": gate.unary(CLIENT, leases.update_lease, pb.UpdateLeaseRequest),
            "DeleteLease": gate.unary(CLIENT, leases.delete_lease, pb.DeleteLeaseRequest),
            "RotateToken": gate.unary(CLIENT, rotation.rotate_token, pb.RotateTokenRequest),
        },
    )
