"""The CRDs on the real API server: what they accept, what they refuse and in which words, what they show and fill in."""

import copy
import json
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from lablease.embedded import kubeconfig

ROOT = Path(__file__).resolve().parents[2]
GROUP = "/apis/jumpstarter.dev/v1alpha1"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PLURALS = {
    "Client": "clients",
    "Exporter": "exporters",
    "Lease": "leases",
    "ExporterAccessPolicy": "exporteraccesspolicies",
}
DEFINED = {kind: yaml.safe_load((ROOT / "crds" / f"{plural}.yaml").read_text()) for kind, plural in PLURALS.items()}
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
NOON = "2030-01-31T12:00:00Z"
LARGEST = 2**63 - 1
MISSING = object()

FULL: dict[str, dict[str, Any]] = {
    whole["kind"]: whole for whole in yaml.safe_load_all(Path(__file__).with_name("crd_full_objects.yaml").read_text())
}
"""An object of each kind with every field set. A case changes one field of it."""

Case = tuple[str, str, object, object]
"""Kind, path, a value that is accepted there, a value that is refused. ``[]`` is the list's first item, ``*`` the key k."""


def selector_cases(kind: str, path: str) -> list[Case]:
    # The operator is not checked here: an unknown one is a condition of the object, so that one bad object stops no other.
    return [
        (kind, f"{path}.matchLabels.*", "", 1),
        (kind, f"{path}.matchExpressions", [], {}),
        (kind, f"{path}.matchExpressions[].key", "x", MISSING),
        (kind, f"{path}.matchExpressions[].operator", "Near", MISSING),
        (kind, f"{path}.matchExpressions[].values", MISSING, "b"),
        (kind, f"{path}.matchExpressions[].values[]", "", 1),
    ]


def condition_cases(kind: str) -> list[Case]:
    path = "status.conditions[]"
    return [
        (kind, f"{path}.type", "example.com/Ready", MISSING),
        (kind, f"{path}.type", "R" * 316, "R" * 317),
        (kind, f"{path}.type", "Ready.2", "-Ready"),
        *((kind, f"{path}.status", good, bad) for good, bad in [("True", "true"), ("False", ""), ("Unknown", MISSING)]),
        (kind, f"{path}.reason", "A", ""),
        (kind, f"{path}.reason", "NoAccess_2", "No access"),
        (kind, f"{path}.reason", "R" * 1024, "R" * 1025),
        (kind, f"{path}.reason", "Ready", MISSING),
        (kind, f"{path}.message", "m" * 32768, "m" * 32769),
        (kind, f"{path}.message", "", MISSING),
        (kind, f"{path}.lastTransitionTime", NOON, "noon"),
        (kind, f"{path}.lastTransitionTime", NOON, MISSING),
        (kind, f"{path}.observedGeneration", 0, -1),
    ]


def time_cases(kind: str, *paths: str) -> list[Case]:
    return [(kind, path, "2030-01-31T12:00:00.123456+01:00", "2030-01-31") for path in paths]


CASES: list[Case] = [
    ("Client", "spec.username", MISSING, 1),
    ("Client", "status.credential.name", MISSING, 1),
    ("Client", "status.credentialGeneration", LARGEST, "1"),
    ("Client", "status.endpoint", "", 1),
    *time_cases("Client", "status.tokenExpiresAt"),
    *condition_cases("Client"),
    ("Exporter", "spec.username", MISSING, 1),
    ("Exporter", "spec.enabled", False, "yes"),
    ("Exporter", "status.credential.name", MISSING, 1),
    ("Exporter", "status.credentialGeneration", LARGEST, 1.5),
    ("Exporter", "status.endpoint", "", 1),
    ("Exporter", "status.devices", [], {}),
    ("Exporter", "status.devices[].uuid", MISSING, 1),
    ("Exporter", "status.devices[].parent_uuid", MISSING, 1),
    ("Exporter", "status.devices[].labels.*", "", 1),
    ("Exporter", "status.leaseRef.name", MISSING, 1),
    ("Exporter", "status.grant", LARGEST, "1"),
    ("Exporter", "status.session.frontend", MISSING, 1),
    ("Exporter", "status.session.id", MISSING, 1),
    *time_cases("Exporter", "status.session.since", "status.lastSeen"),
    *(
        ("Exporter", "status.exporterStatus", good, bad)
        for good, bad in [
            ("Unspecified", ""),
            ("Offline", "offline"),
            ("Available", "EXPORTER_STATUS_AVAILABLE"),
            ("BeforeLeaseHook", 3),
            ("LeaseReady", "Leased"),
            ("AfterLeaseHook", "After"),
            ("BeforeLeaseHookFailed", "Failed"),
            ("AfterLeaseHookFailed", ["Available"]),
            (MISSING, "Restarting"),
        ]
    ),
    ("Exporter", "status.statusMessage", "", 1),
    *condition_cases("Exporter"),
    ("Lease", "spec.clientRef", {}, MISSING),
    ("Lease", "spec.clientRef.name", "", 1),
    ("Lease", "spec.selector", MISSING, "board=x"),
    *selector_cases("Lease", "spec.selector"),
    ("Lease", "spec.exporterRef", MISSING, "board"),
    ("Lease", "spec.exporterRef.name", "", 1),
    ("Lease", "spec.duration", "1d", 1800),  # the notation is checked by the operator, which says so in a condition
    *time_cases("Lease", "spec.beginTime", "spec.endTime"),
    ("Lease", "spec.release", True, "true"),
    ("Lease", "spec.allowDisabled", True, 1),
    ("Lease", "spec.tags.*", "", 1),
    ("Lease", "spec.tags", {f"t{number}": "" for number in range(10)}, {f"t{number}": "" for number in range(11)}),
    ("Lease", "spec.context.*", "", 1),
    ("Lease", "spec.context", {f"c{number}": "" for number in range(8)}, {f"c{number}": "" for number in range(9)}),
    ("Lease", "spec.idleTimeout", "10m", 600),
    ("Lease", "spec.waitTimeout", "10m", 600),
    ("Lease", "spec.ttlSecondsAfterEnded", 0, -1),
    ("Lease", "spec.ttlSecondsAfterEnded", LARGEST, "60"),
    ("Lease", "status.ended", True, MISSING),
    ("Lease", "status.ended", False, "no"),
    *time_cases("Lease", "status.beginTime", "status.endTime", "status.lastActivity"),
    ("Lease", "status.exporterRef.name", MISSING, 1),
    ("Lease", "status.grant", LARGEST, "1"),
    ("Lease", "status.priority", -1, "high"),
    ("Lease", "status.spotAccess", True, 1),
    *condition_cases("Lease"),
    *selector_cases("ExporterAccessPolicy", "spec.exporterSelector"),
    ("ExporterAccessPolicy", "spec.policies", [], {}),
    ("ExporterAccessPolicy", "spec.policies[].description", MISSING, 1),
    ("ExporterAccessPolicy", "spec.policies[].priority", -1, "high"),
    ("ExporterAccessPolicy", "spec.policies[].from", [], {}),
    *selector_cases("ExporterAccessPolicy", "spec.policies[].from[].clientSelector"),
    ("ExporterAccessPolicy", "spec.policies[].maximumDuration", "7d", 8),
    ("ExporterAccessPolicy", "spec.policies[].spotAccess", True, "yes"),
]

FILLED_IN = {"spec.selector"}
"""Required, but the API server sets it if it is missing."""

LONG, TOO_LONG = "x" * 32, "x" * 33
NEW_LEASES: list[tuple[str, dict[str, object], str | None]] = [
    ("labels", {"selector": {"matchLabels": {"a": "b"}}}, None),
    ("an expression", {"selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}, None),
    ("a pin", {"exporterRef": {"name": "board"}}, None),
    ("nothing", {}, "spec.selector"),
    ("empty label map", {"selector": {"matchLabels": {}}}, "spec.selector"),
    ("empty expression list", {"selector": {"matchExpressions": []}}, "spec.selector"),
    ("nameless pin", {"exporterRef": {}}, "spec.selector"),
    ("pin with an empty name", {"exporterRef": {"name": ""}}, "spec.selector"),
    ("longest context", {"exporterRef": {"name": "board"}, "context": {LONG: "v" * 64}}, None),
    ("context key too long", {"exporterRef": {"name": "board"}, "context": {TOO_LONG: "v"}}, "spec.context"),
    ("context value too long", {"exporterRef": {"name": "board"}, "context": {"k": "v" * 65}}, "spec.context"),
    ("one of two values too long", {"exporterRef": {"name": "b"}, "context": {"k": "", "l": "v" * 65}}, "spec.context"),
]
"""What is asked for in a new lease's spec, and the field that a refusal names."""

WITH: dict[str, object] = {"tags": {"a": "1"}, "context": {"b": "2"}}
CHANGED_LEASES: list[tuple[str, dict[str, object], dict[str, object], str | None]] = [
    ("same tags", WITH, {"tags": {"a": "1"}}, None),
    ("other tag value", WITH, {"tags": {"a": "2"}}, "spec.tags"),
    ("one more tag", WITH, {"tags": {"c": "3"}}, "spec.tags"),
    ("a tag less", WITH, {"tags": {"a": None}}, "spec.tags"),
    ("no tags any more", WITH, {"tags": None}, "spec.tags"),
    ("first tags", {}, {"tags": {"a": "1"}}, None),
    ("same context", WITH, {"context": {"b": "2"}}, None),
    ("other context value", WITH, {"context": {"b": "3"}}, "spec.context"),
    ("no context any more", WITH, {"context": None}, "spec.context"),
    ("first context", {}, {"context": {"b": "2"}}, None),
    ("context key too long later", {}, {"context": {TOO_LONG: ""}}, "spec.context"),
    ("selector emptied", {}, {"selector": {"matchLabels": None}}, "spec.selector"),
    ("selector replaced by a pin", {}, {"selector": {"matchLabels": None}, "exporterRef": {"name": "b"}}, None),
    ("another client", WITH, {"clientRef": {"name": "you"}}, None),
    ("longer", WITH, {"duration": "2h"}, None),
    ("released", WITH, {"release": True}, None),
]
"""What an existing lease has beyond a selector, a change of its spec, and the field that a refusal names."""

COLUMNS = {
    "Client": [("Name", "string", 0), ("Token Expires", "string", 0)],
    "Exporter": [("Name", "string", 0), ("Enabled", "boolean", 0), ("Status", "string", 0), ("Message", "string", 1)],
    "Lease": [("Name", "string", 0), ("Ended", "boolean", 0), ("Client", "string", 0), ("Exporter", "string", 0)],
    "ExporterAccessPolicy": [("Name", "string", 0), ("Age", "date", 0)],
}
CELLS = {
    "Client": [NOON],
    "Exporter": [True, "Available", "clean"],
    "Lease": [False, "me", "board"],
}


class ControlPlane(Protocol):
    """What these tests need of the fixture."""

    @property
    def kubeconfig(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))


@dataclass(frozen=True, slots=True)
class Server:
    """Plain requests, so that nothing between a test and the API server's answer can help."""

    access: kubeconfig.Access
    namespace: str

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> Answer:
        headers = {"Accept": accept, "Content-Type": content}
        if token := self.access.bearer():
            headers["Authorization"] = f"Bearer {token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.access.server + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.access.ssl_context()) as response:
                return Answer(response.status, json.load(response))
        except urllib.error.HTTPError as refusal:
            return Answer(refusal.code, json.load(refusal))

    def path(self, kind: str, name: str = "", query: str = "") -> str:
        tail = (f"/{name}" if name else "") + (f"?{query}" if query else "")
        return f"{GROUP}/namespaces/{self.namespace}/{PLURALS[kind]}{tail}"

    def create(self, kind: str, parts: Mapping[str, object], query: str = "") -> Answer:
        return self.call("POST", self.path(kind, query=query), an_object(kind, parts))

    def stored(self, kind: str, parts: Mapping[str, object]) -> str:
        """Create an object and return its name."""
        answer = self.create(kind, parts)
        assert answer.status == 201, answer.message
        return str(answer.body["metadata"]["name"])

    def merge(self, kind: str, name: str, change: Mapping[str, object], query: str = "") -> Answer:
        return self.call("PATCH", self.path(kind, name, query), change, MERGE)

    def apply(self, kind: str, name: str, parts: Mapping[str, object], manager: str) -> Answer:
        body = an_object(kind, parts) | {"metadata": {"name": name.partition("/")[0]}}
        return self.call("PATCH", self.path(kind, name, f"fieldManager={manager}"), body, APPLY)


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Server:
    """The server, with a namespace of its own; the fixture installed the CRDs."""
    server = Server(kubeconfig.read(Path(control_plane.kubeconfig)), f"crds-{uuid.uuid4().hex[:8]}")
    made = server.call("POST", "/api/v1/namespaces", {"metadata": {"name": server.namespace}})
    assert made.status == 201, made.message
    return server


def an_object(kind: str, parts: Mapping[str, object]) -> dict[str, object]:
    name = f"{kind.lower()}-{uuid.uuid4().hex[:8]}"
    return {"apiVersion": "jumpstarter.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, **parts}


def schema_of(kind: str) -> dict[str, Any]:
    (version,) = DEFINED[kind]["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def leaves(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the path of every value below spec and status that is not itself made of named fields."""
    for name, field in schema.get("properties", {}).items():
        if path or name in ("spec", "status"):
            yield from leaves(field, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from leaves(schema["items"], f"{path}[]")
    elif "additionalProperties" in schema:
        yield from leaves(schema["additionalProperties"], f"{path}.*")
    elif schema.get("type") not in ("object", None):
        yield path


def required(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    yield from (f"{path}.{name}" for name in schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        yield from required(field, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from required(schema["items"], f"{path}[]")


def changed(whole: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a copy in which the field at ``path`` has ``value``, or is not there."""
    result = copy.deepcopy(dict(whole))
    *way, last = [0 if step == "[]" else "k" if step == "*" else step for step in re.findall(r"\[\]|[^.\[\]]+", path)]
    target: Any = result
    for step in way:
        target = target[step]
    if value is MISSING:
        del target[last]
    else:
        target[last] = value
    return result


def in_words(path: str) -> str:
    """Spell a path as the API server does."""
    return path.replace("[]", "[0]").replace("*", "k")


def send(server: Server, kind: str, path: str, value: object, name: str) -> Answer:
    """Create the object, or patch the status of ``name``, without storing either."""
    parts = changed(FULL[kind], path, value)
    if path.startswith("spec"):
        return server.create(kind, {"spec": parts["spec"]}, "dryRun=All&fieldValidation=Strict")
    return server.merge(kind, f"{name}/status", {"status": parts["status"]}, "dryRun=All&fieldValidation=Strict")


@pytest.fixture(scope="module")
def names(server: Server) -> dict[str, str]:
    """One stored object of each kind."""
    return {kind: server.stored(kind, {"spec": parts["spec"]}) for kind, parts in FULL.items()}


def test_every_field_and_every_required_field_has_a_case() -> None:
    for kind in PLURALS:
        tried = {path for of_kind, path, *_ in CASES if of_kind == kind}
        left_out = {path for of_kind, path, _, bad in CASES if of_kind == kind and bad is MISSING}

        assert set(leaves(schema_of(kind))) - tried == set()
        assert set(required(schema_of(kind))) - left_out - FILLED_IN == set()


@pytest.mark.parametrize(
    ("kind", "path", "good", "bad"),
    CASES,
    ids=[f"{kind} {path} {number}" for number, (kind, path, *_) in enumerate(CASES)],
)
def test_a_field_accepts_a_good_value_and_a_refusal_names_it(
    server: Server, names: dict[str, str], kind: str, path: str, good: object, bad: object
) -> None:
    accepted = send(server, kind, path, good, names[kind])
    refused = send(server, kind, path, bad, names[kind])

    assert accepted.status in (200, 201), accepted.message
    assert refused.status == 422
    assert re.search(rf"(?<![\w.]){re.escape(in_words(path))}(?![\w.])", refused.message), refused.message


@pytest.mark.parametrize(("spec", "field"), [case[1:] for case in NEW_LEASES], ids=[case[0] for case in NEW_LEASES])
def test_a_new_lease_says_which_exporters_will_do_and_keeps_its_context_short(
    server: Server, spec: dict[str, object], field: str | None
) -> None:
    answer = server.create("Lease", {"spec": {"clientRef": {"name": "me"}, **spec}}, "dryRun=All")

    assert_decision(answer, field)


@pytest.mark.parametrize(
    ("before", "change", "field"), [case[1:] for case in CHANGED_LEASES], ids=[case[0] for case in CHANGED_LEASES]
)
def test_tags_and_context_stay_as_they_are_once_set_and_the_rest_may_change(
    server: Server, before: dict[str, object], change: dict[str, object], field: str | None
) -> None:
    spec = {"clientRef": {"name": "me"}, "selector": {"matchLabels": {"a": "b"}}, **before}
    name = server.stored("Lease", {"spec": spec})

    assert_decision(server.merge("Lease", name, {"spec": change}), field)


def assert_decision(answer: Answer, field: str | None) -> None:
    if field is None:
        assert answer.status in (200, 201), answer.message
    else:
        assert answer.status == 422
        assert [cause["field"] for cause in answer.body["details"]["causes"]] == [field], answer.message


@pytest.mark.parametrize("kind", PLURALS)
def test_kubectl_shows_the_columns(server: Server, names: dict[str, str], kind: str) -> None:
    server.merge(kind, f"{names[kind]}/status", {"status": FULL[kind].get("status", {})})
    table = server.call("GET", server.path(kind, names[kind]), accept=TABLE).body

    shown = [(column["name"], column["type"], column["priority"]) for column in table["columnDefinitions"]]
    assert shown == COLUMNS[kind]
    (row,) = table["rows"]
    assert row["cells"][0] == names[kind]
    assert kind not in CELLS or row["cells"][1:] == CELLS[kind]


@pytest.mark.parametrize("kind", PLURALS)
def test_a_kind_is_namespaced_has_a_status_and_no_short_names(server: Server, kind: str) -> None:
    found = {each["name"]: each for each in server.call("GET", GROUP).body["resources"]}

    resource = found[PLURALS[kind]]
    assert (resource["kind"], resource["singularName"], resource["namespaced"]) == (kind, kind.lower(), True)
    assert "shortNames" not in resource
    assert "categories" not in resource
    assert f"{PLURALS[kind]}/status" in found
    assert f"{PLURALS[kind]}/scale" not in found


@pytest.mark.parametrize("kind", PLURALS)
def test_a_definition_has_a_structural_schema_and_one_version(server: Server, kind: str) -> None:
    definition = server.call("GET", f"{DEFINITIONS}/{PLURALS[kind]}.jumpstarter.dev").body

    assert [version["name"] for version in definition["spec"]["versions"]] == ["v1alpha1"]
    assert definition["status"]["storedVersions"] == ["v1alpha1"]
    assert {each["type"] for each in definition["status"]["conditions"]} == {"NamesAccepted", "Established"}


def test_what_is_left_out_is_filled_in(server: Server) -> None:
    lease = server.create("Lease", {"spec": {"clientRef": {}, "exporterRef": {"name": "board"}}}).body
    exporter = server.create("Exporter", {"spec": {}}).body

    assert lease["spec"] == {"clientRef": {"name": ""}, "selector": {}, "exporterRef": {"name": "board"}}
    assert exporter["spec"] == {"enabled": True}


def test_a_field_that_nobody_defined_is_not_stored_and_strict_callers_are_told(server: Server) -> None:
    parts = {"spec": {"username": "me", "user": "me"}}

    assert server.create("Client", parts).body["spec"] == {"username": "me"}
    strict = server.create("Client", parts, "fieldValidation=Strict")
    assert strict.status == 400
    assert 'unknown field "spec.user"' in strict.message


def test_spec_and_status_are_written_apart(server: Server) -> None:
    whole = {part: FULL["Lease"][part] for part in ("spec", "status")}
    name = server.stored("Lease", whole)
    created = server.call("GET", server.path("Lease", name)).body
    told = server.merge("Lease", f"{name}/status", {"spec": {"release": True}, "status": whole["status"]}).body
    edited = server.merge("Lease", name, {"spec": {"release": True}, "status": {"ended": True}}).body

    assert "status" not in created
    assert (told["status"], told["spec"]) == (whole["status"], created["spec"])
    assert (edited["status"], edited["spec"]) == (whole["status"], created["spec"] | {"release": True})
    generations = [each["metadata"]["generation"] for each in (created, told, edited)]
    assert generations == [1, 1, 2]


@pytest.mark.parametrize("kind", PLURALS)
def test_applying_again_after_the_operator_wrote_the_status_changes_nothing(server: Server, kind: str) -> None:
    name = f"applied-{uuid.uuid4().hex[:8]}"
    spec = {"spec": FULL[kind]["spec"]}
    made = server.apply(kind, name, spec, "argocd")
    told = server.apply(kind, f"{name}/status", {"status": FULL[kind].get("status", {})}, "operator")
    again = server.apply(kind, name, spec, "argocd")

    assert [made.status, told.status, again.status] == [201, 200, 200]
    assert again.body["metadata"]["resourceVersion"] == told.body["metadata"]["resourceVersion"]
    assert again.body["spec"] == made.body["spec"]


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Client", "status.credential"),
        ("Client", "status.conditions"),
        ("Exporter", "status.credential"),
        ("Exporter", "status.leaseRef"),
        ("Exporter", "status.session"),
        ("Exporter", "status.conditions"),
        ("Lease", "spec.clientRef"),
        ("Lease", "spec.selector"),
        ("Lease", "spec.exporterRef"),
        ("Lease", "status.exporterRef"),
        ("Lease", "status.conditions"),
        ("ExporterAccessPolicy", "spec.exporterSelector"),
        ("ExporterAccessPolicy", "spec.policies"),
    ],
)
def test_a_whole_belongs_to_one_field_manager(server: Server, kind: str, path: str) -> None:
    part, field = path.split(".")
    name = f"owned-{uuid.uuid4().hex[:8]}"
    made = server.apply(kind, name, {"spec": FULL[kind]["spec"]}, "argocd")
    if part == "status":
        made = server.apply(kind, f"{name}/status", {"status": FULL[kind]["status"]}, "argocd")

    fields = [owner["fieldsV1"] for owner in made.body["metadata"]["managedFields"] if f"f:{part}" in owner["fieldsV1"]]
    assert [owned[f"f:{part}"][f"f:{field}"] for owned in fields] == [{}]
