"""The official Python client of Kubernetes sees our kinds as it sees any other: create, list, patch, watch, delete."""

import time
from typing import Any

import pytest
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from lablease.embedded.control_plane import ControlPlane
from lablease.model.meta import GROUP, VERSION

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

Api = Any
SPEC = {"clientRef": {"name": "ci"}, "selector": {"matchLabels": {"board": "official"}}, "duration": "10m"}


@pytest.fixture
def api(control_plane: ControlPlane) -> Api:
    connection: Api = config.new_client_from_config(str(control_plane.kubeconfig))  # type: ignore[no-untyped-call]
    return client.CustomObjectsApi(connection)


def lease(name: str, **spec: object) -> dict[str, object]:
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Lease", "metadata": {"name": name}, "spec": SPEC | spec}


def test_a_lease_is_created_followed_released_and_deleted(api: Api, control_plane: ControlPlane) -> None:
    where = (GROUP, VERSION, control_plane.namespace, "leases")
    made = api.create_namespaced_custom_object(*where, lease("official-1"))
    changed = api.patch_namespaced_custom_object(
        *where, "official-1", {"spec": {"release": True}}, _content_type="application/merge-patch+json"
    )
    assert changed["metadata"]["generation"] == made["metadata"]["generation"] + 1
    api.delete_namespaced_custom_object(*where, "official-1")
    seen: list[str] = []
    events: Api = watch.Watch()  # type: ignore[no-untyped-call]
    began = time.monotonic()
    for event in events.stream(
        api.list_namespaced_custom_object,
        *where,
        resource_version=made["metadata"]["resourceVersion"],
        field_selector="metadata.name=official-1",
        timeout_seconds=10,
    ):
        seen.append(event["type"])
        if event["type"] == "DELETED":
            events.stop()
    assert seen == ["MODIFIED", "DELETED"]
    assert time.monotonic() - began < 10


def test_a_refusal_names_the_field(api: Api, control_plane: ControlPlane) -> None:
    with pytest.raises(ApiException) as refused:
        api.create_namespaced_custom_object(
            GROUP, VERSION, control_plane.namespace, "leases", lease("official-2", selector={})
        )
    assert refused.value.status == 422
    assert "spec.selector" in str(refused.value.body)
