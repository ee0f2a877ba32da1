"""The embedded control plane: accounts, what is installed, and the audit log."""

import base64
import json
import stat
import subprocess
from collections.abc import Mapping
from datetime import timedelta

import pytest

from lablease.embedded import api, kubeconfig
from lablease.embedded.control_plane import ControlPlane
from lablease.embedded.errors import ApiError
from lablease.embedded.tree import at, elements, mapping, text

SYSTEM = "lablease-system"
LEASES = "/apis/jumpstarter.dev/v1alpha1/namespaces/lab/leases"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def lease(name: str) -> Mapping[str, object]:
    return {
        "apiVersion": "jumpstarter.dev/v1alpha1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {"clientRef": {"name": "c"}, "duration": "1m", "selector": {"matchLabels": {"a": "b"}}},
    }


def claims(token: str) -> object:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


# ---- accounts -------------------------------------------------------------------------------------------------------


def test_a_service_account_gets_a_token_that_the_api_server_takes_and_that_ends(control_plane: ControlPlane) -> None:
    path = control_plane.service_account_kubeconfig("default", "visitor")
    access = kubeconfig.read(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert access.token is None, "the token is in a file of its own, so that it can be renewed"
    token = access.bearer() or ""
    assert text(claims(token), "sub") == "system:serviceaccount:default:visitor"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = api.Api(access).request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    assert text(answer, "status", "userInfo", "username") == "system:serviceaccount:default:visitor"
    lifetime = int(str(at(claims(token), "exp"))) - int(str(at(claims(token), "iat")))
    assert lifetime == 3600


def test_a_stranger_is_not_let_in(control_plane: ControlPlane) -> None:
    stranger = kubeconfig.Access(control_plane.url, control_plane.api.access.ca)
    for path in ("/version", "/api/v1/namespaces"):
        with pytest.raises(ApiError) as refused:
            api.Api(stranger).request("GET", path)
        assert refused.value.status == 401


def test_a_forged_token_is_not_let_in(control_plane: ControlPlane) -> None:
    token = kubeconfig.read(control_plane.service_account_kubeconfig("default", "visitor")).bearer() or ""
    head, payload, signature = token.split(".")
    forged = f"{head}.{payload}.{signature[:-8]}AAAAAAAA"
    with pytest.raises(ApiError) as refused:
        api.Api(kubeconfig.Access(control_plane.url, control_plane.api.access.ca, token=forged)).request(
            "GET", "/version"
        )
    assert refused.value.status == 401


# ---- what is installed ----------------------------------------------------------------------------------------------


def test_admin_tools_find_the_ca_of_our_services_in_the_lab(control_plane: ControlPlane) -> None:
    found = control_plane.api.get("/api/v1/namespaces/lab/configmaps/jumpstarter-service-ca-cert")
    assert text(found, "data", "ca.crt") == control_plane.data.dev_ca.read_text()


def test_installing_again_changes_nothing(control_plane: ControlPlane) -> None:
    def versions() -> list[str]:
        paths = (
            "/apis/rbac.authorization.k8s.io/v1/roles",
            "/api/v1/serviceaccounts",
            "/api/v1/namespaces",
            CONFIG_MAPS,
        )
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        listed = [elements(control_plane.api.request("GET", path), "items") for path in (*paths, crds)]
        return [text(item, "metadata", "resourceVersion") for items in listed for item in items]

    before = versions()
    control_plane.install()
    assert versions() == before


def test_a_manifest_of_an_unknown_kind_is_named(control_plane: ControlPlane) -> None:
    with pytest.raises(ApiError, match="Toaster crisp: the API server has no kind Toaster in v1"):
        control_plane.api.apply([{"apiVersion": "v1", "kind": "Toaster", "metadata": {"name": "crisp"}}])


def test_kubectl_works_with_the_kubeconfig(control_plane: ControlPlane) -> None:
    argv = [str(control_plane.kubectl), "--kubeconfig", str(control_plane.kubeconfig), "get", "leases.jumpstarter.dev"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "No resources found in lab namespace.\n")


# ---- audit log ------------------------------------------------------------------------------------------------------


def audit_events(control_plane: ControlPlane, resource: str, name: str) -> list[object]:
    """Return what the log says about one object; the log is written before a request is answered."""
    found: list[object] = []
    for line in control_plane.audit_log.read_text().splitlines():
        event: object = json.loads(line)
        reference = mapping(event, "objectRef")
        if reference.get("resource") == resource and name in (
            reference.get("name"),
            text(event, "responseObject", "metadata", "name"),
        ):
            found.append(event)
    return found


def test_the_audit_log_has_every_write_to_our_kinds_with_both_bodies(control_plane: ControlPlane) -> None:
    server = control_plane.api
    server.request("POST", LEASES, lease("audited"))
    server.request("PATCH", f"{LEASES}/audited", {"spec": {"release": True}}, "application/merge-patch+json")
    status: Mapping[str, object] = {"status": {"ended": True}}
    server.request("PATCH", f"{LEASES}/audited/status", status, "application/merge-patch+json")
    server.request("GET", f"{LEASES}/audited")
    server.request("DELETE", f"{LEASES}/audited")
    events = audit_events(control_plane, "leases", "audited")
    assert [text(event, "verb") for event in events] == ["create", "patch", "patch", "get", "delete"]
    create, release, end, read, _ = events
    assert text(create, "requestObject", "spec", "duration") == "1m"
    assert at(release, "requestObject") == {"spec": {"release": True}}
    assert text(end, "objectRef", "subresource") == "status"
    numbers = [int(text(event, "responseObject", "metadata", "resourceVersion")) for event in (create, release, end)]
    assert numbers == sorted(set(numbers)), "who reads the log sees which write had an effect"
    assert (text(read, "level"), at(read, "responseObject")) == ("Metadata", None)
    assert not [event for event in events if at(event, "responseObject", "metadata", "managedFields")]


def test_no_secret_and_no_token_is_in_the_audit_log(control_plane: ControlPlane) -> None:
    server, value = control_plane.api, base64.b64encode(b"very secret").decode()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"token": value}}
    server.request("POST", "/api/v1/namespaces/lab/secrets", secret)
    token = server.token(SYSTEM, "lablease-frontend", timedelta(hours=1))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    server.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    server.request("GET", "/api/v1/namespaces/lab/secrets/s")
    server.request("DELETE", "/api/v1/namespaces/lab/secrets/s")
    log = control_plane.audit_log.read_text()
    assert value not in log
    assert token not in log
    assert token.rpartition(".")[2] not in log
    assert [text(event, "verb") for event in audit_events(control_plane, "secrets", "s")][-2:] == ["get", "delete"]
    assert [text(event, "level") for event in audit_events(control_plane, "secrets", "s")] == ["Metadata"] * 3
