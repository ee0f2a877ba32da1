"""The stock client library in a loop: acquire, switch on, switch off, release.

lessee.py CONFIG SELECTOR TIMES    (one JSON line per lease: its name, exporter and times)
"""
# Runs in the interpreter that has the published packages, not in the project's.
# mypy: ignore-errors
# pyright: basic, reportMissingImports=false

import json
import logging
import sys
import time
from datetime import timedelta

from jumpstarter.config.client import ClientConfigV1Alpha1

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")


def main(config: str, selector: str, times: str) -> None:
    client = ClientConfigV1Alpha1.from_file(config)
    for _ in range(int(times)):
        asked = time.time()
        with client.lease(selector=selector, duration=timedelta(minutes=10)) as lease:
            got = time.time()
            with lease.connect() as root:
                root.power.on()
                root.power.off()
            used = time.time()
            line = {"lease": lease.name, "exporter": lease.exporter_name, "asked": asked, "got": got, "used": used}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
