"""Inside a shell of our client: as stubborn.py, which says what it is for.

own_stubborn.py DRIVER LOG SECONDS
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from typing import TextIO

from lablease.client.drivers import driver
from lablease.client.drivers.network import NetworkClient
from lablease.client.session import open_session

PERIOD_SECONDS = 0.02


async def main(path: str, log: str, seconds: str) -> None:
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    async with open_session(os.environ["JUMPSTARTER_HOST"]) as session:
        await session.load()
        async with driver(session, path, NetworkClient).forward_tcp() as address:
            await asyncio.to_thread(talk, address, log, float(seconds))


def talk(address: tuple[str, int], log: str, seconds: float) -> None:
    with open(log, "w", buffering=1) as record, socket.create_connection(address) as connection:
        threading.Thread(target=receive, args=(connection, record), daemon=True).start()
        until, pause = time.monotonic() + seconds, threading.Event()
        while time.monotonic() < until:
            try:
                connection.sendall(f"{time.time():.4f}\n".encode())
            except OSError:
                record.write(f"cut {time.time():.4f}\n")
                return
            record.write(f"out {time.time():.4f}\n")
            pause.wait(PERIOD_SECONDS)


def receive(connection: socket.socket, record: TextIO) -> None:
    try:
        while connection.recv(65536):
            record.write(f"in {time.time():.4f}\n")
    except OSError as error:
        record.write(f"reset {time.time():.4f} {error}\n")
    else:
        record.write(f"eof {time.time():.4f}\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
