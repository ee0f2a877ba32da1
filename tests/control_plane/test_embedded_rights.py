"""What the account of each service may do, and what the API server refuses it."""

from collections.abc import Mapping

import pytest

from lablease.embedded import api, kubeconfig
from lablease.embedded.control_plane import ControlPlane
from lablease.embedded.errors import ApiError

SYSTEM = "lablease-system"


def as_account(control_plane: ControlPlane, name: str) -> api.Api:
    return api.Api(kubeconfig.read(control_plane.service_account_kubeconfig(SYSTEM, name)))


# ---- rights ---------------------------------------------------------------------------------------------------------

LAB = "/apis/jumpstarter.dev/v1alpha1/namespaces/lab"
CORE, SYSTEM_CORE = "/api/v1/namespaces/lab", f"/api/v1/namespaces/{SYSTEM}"
HEARTBEATS = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"

# (method, path, operator may, front end may). A name that does not exist is answered with 404 to who may, 403 to others.
RIGHTS: tuple[tuple[str, str, bool, bool], ...] = (
    ("GET", f"{LAB}/leases", True, True),
    ("GET", f"{LAB}/leases?watch=1&timeoutSeconds=1", True, True),
    ("GET", f"{LAB}/exporters/x", True, True),
    ("GET", f"{LAB}/clients", True, True),
    ("GET", f"{LAB}/exporteraccesspolicies", True, True),
    ("POST", f"{LAB}/leases", False, True),
    ("PUT", f"{LAB}/leases/x", False, True),
    ("PATCH", f"{LAB}/leases/x", True, True),
    ("PATCH", f"{LAB}/leases/x/status", True, False),
    ("PUT", f"{LAB}/leases/x/status", True, False),
    ("DELETE", f"{LAB}/leases/x", True, False),
    ("DELETE", f"{LAB}/leases", False, False),
    ("PATCH", f"{LAB}/exporters/x", False, True),
    ("PATCH", f"{LAB}/exporters/x/status", True, True),
    ("PUT", f"{LAB}/exporters/x/status", True, False),
    ("POST", f"{LAB}/exporters", False, False),
    ("DELETE", f"{LAB}/exporters/x", False, False),
    ("POST", f"{LAB}/clients", False, True),
    ("PATCH", f"{LAB}/clients/x", False, False),
    ("PATCH", f"{LAB}/clients/x/status", True, False),
    ("POST", f"{LAB}/exporteraccesspolicies", False, False),
    ("PATCH", f"{LAB}/exporteraccesspolicies/x", False, False),
    ("GET", f"{CORE}/secrets", True, False),
    ("GET", f"{CORE}/secrets/x", True, True),
    ("POST", f"{CORE}/secrets", True, False),
    ("PATCH", f"{CORE}/secrets/x", True, False),
    ("DELETE", f"{CORE}/secrets/x", True, True),
    ("GET", f"{CORE}/configmaps/x", True, True),
    ("POST", f"{CORE}/configmaps", False, False),
    ("PATCH", f"{CORE}/configmaps/jumpstarter-service-ca-cert", False, False),
    ("POST", f"{CORE}/events", True, False),
    ("POST", f"{CORE}/serviceaccounts/default/token", False, False),
    ("POST", f"{CORE}/pods", False, False),
    ("GET", f"{SYSTEM_CORE}/secrets/lablease-identity", True, False),
    ("GET", f"{SYSTEM_CORE}/secrets/another", False, False),
    ("GET", f"{SYSTEM_CORE}/secrets", False, False),
    ("POST", f"{SYSTEM_CORE}/secrets", True, False),
    ("PATCH", f"{SYSTEM_CORE}/secrets/lablease-identity", False, False),
    ("DELETE", f"{SYSTEM_CORE}/secrets/lablease-identity", False, False),
    ("GET", f"{SYSTEM_CORE}/configmaps/lablease-identity-keys", True, True),
    ("GET", f"{SYSTEM_CORE}/configmaps?fieldSelector=metadata.name%3Dlablease-identity-keys", True, True),
    ("GET", f"{SYSTEM_CORE}/configmaps", False, False),
    ("POST", f"{SYSTEM_CORE}/configmaps", True, False),
    ("PATCH", f"{SYSTEM_CORE}/configmaps/lablease-identity-keys", True, False),
    ("POST", f"{SYSTEM_CORE}/serviceaccounts/lablease-operator/token", False, False),
    ("GET", HEARTBEATS, True, True),
    ("POST", HEARTBEATS, True, True),
    ("PATCH", f"{HEARTBEATS}/x", True, True),
    ("DELETE", f"{HEARTBEATS}/x", False, True),
    ("GET", "/api/v1/namespaces/kube-system/secrets", False, False),
    ("GET", "/api/v1/secrets", False, False),
    ("GET", "/apis/jumpstarter.dev/v1alpha1/leases", False, False),
    ("POST", "/api/v1/namespaces", False, False),
    ("PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/leases.jumpstarter.dev", False, False),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/lab/rolebindings", False, False),
)


@pytest.fixture(scope="module")
def accounts(control_plane: ControlPlane) -> Mapping[str, api.Api]:
    return {name: as_account(control_plane, f"lablease-{name}") for name in ("operator", "frontend")}


@pytest.mark.parametrize(("method", "path", "operator", "frontend"), RIGHTS)
def test_each_service_may_do_what_it_needs_and_nothing_else(
    accounts: Mapping[str, api.Api], method: str, path: str, operator: bool, frontend: bool
) -> None:
    for name, allowed in (("operator", operator), ("frontend", frontend)):
        assert (status_of(accounts[name], method, path) != 403) is allowed, f"{name}: {method} {path}"


def status_of(account: api.Api, method: str, path: str) -> int:
    """Send a request that changes nothing (`dryRun`, an empty object) and return the status of the answer."""
    if method != "GET":
        path += "?dryRun=All"
    body: Mapping[str, object] | None = {} if method in ("POST", "PUT", "PATCH") else None
    try:
        account.request(method, path, body, "application/merge-patch+json" if method == "PATCH" else "application/json")
    except ApiError as refused:
        return refused.status
    return 200
