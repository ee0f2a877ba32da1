"""Our client library in a loop: as lessee.py.

own_lessee.py CONFIG SELECTOR TIMES
"""

import asyncio
import json
import sys
import time
from datetime import timedelta
from pathlib import Path

from lablease.client.config import read_client
from lablease.client.connect import connect_exporter
from lablease.client.drivers import driver
from lablease.client.drivers.power import PowerClient
from lablease.client.lease import hold
from lablease.client.resources import LeaseRequest
from lablease.client.service import connect


async def main(config: str, selector: str, times: str) -> None:
    async with connect(read_client(Path(config))) as controller:
        for _ in range(int(times)):
            asked = time.time()
            async with hold(controller, LeaseRequest(timedelta(minutes=10), selector)) as held:
                got = time.time()
                async with connect_exporter(held) as (session, _):
                    power = driver(session, "power", PowerClient)
                    await power.on()
                    await power.off()
                    await session.end()
                used = time.time()
                names = {"lease": held.info.name, "exporter": held.info.exporter}
            print(json.dumps({**names, "asked": asked, "got": got, "used": used}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
