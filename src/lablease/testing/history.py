"""The record of a lab, judged: the API server's audit log and the devices' own logs."""

from lablease.testing.stack import Stack


def check(stack: Stack) -> str:
    """Let the checker read the record of a lab and return what it says.

    Raises:
        AssertionError: a sentence of the contract was broken; with the checker's words.
    """
    arguments = [str(log) for log in sorted(stack.control.audit_log.parent.glob("audit*.log"))]
    return stack.lablease("history", *arguments).ok().stdout
