"""The record of a lab, judged: the API server's audit log and the devices' own logs."""

import json

from lablease.testing.stack import Stack

KINDS = ("clients", "exporters", "leases", "exporteraccesspolicies")


def check(stack: Stack) -> str:
    """Let the checker read the record of a lab and what is there at its end; return what it says.

    Raises:
        AssertionError: a sentence of the contract was broken; with the checker's words.
    """
    final = stack.folder / "final.json"
    items = [item for kind in KINDS for item in stack.kube.list(kind)]
    final.write_text(json.dumps({"kind": "List", "items": items}))
    logs = sorted(stack.control.audit_log.parent.glob("audit*.log"))
    options = [word for log in logs for word in ("--audit", str(log))]
    if stack.device_log.exists():
        options += ["--device", str(stack.device_log)]
    return stack.lablease("history", *options, "--final", str(final), within_seconds=120).ok().stdout
