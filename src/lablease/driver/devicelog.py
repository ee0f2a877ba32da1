"""The emulated device's own record of who called it: written by the device, so nobody else can forge it."""

import json
import os
from datetime import datetime
from pathlib import Path

from lablease.driver.base import LeaseInfo


def record(path: Path, *, now: datetime, device: str, method: str, who: LeaseInfo, **facts: object) -> None:
    """Append one JSON line in one write, so that processes may share a file. Blocks for a disk write.

    Keys: ``time`` (UTC, RFC 3339 with microseconds), ``exporter``, ``device`` (dotted path), ``method``, ``lease``,
    ``client``, ``grant``, and ``facts``.
    """
    line = {
        "time": now.isoformat(timespec="microseconds"),
        "exporter": who.exporter,
        "device": device,
        "method": method,
        "lease": who.lease,
        "client": who.client,
        "grant": who.grant,
        **facts,
    }
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, json.dumps(line).encode() + b"\n")
    finally:
        os.close(fd)
