"""Inside a shell of our client: as exchange.py.

own_exchange.py DRIVER SENT RECEIVED
"""

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path

from lablease.client.drivers import driver
from lablease.client.drivers.network import NetworkClient
from lablease.client.session import open_session


async def main(path: str, sent: str, received: str) -> None:
    async with open_session(os.environ["JUMPSTARTER_HOST"]) as session:
        await session.load()
        async with driver(session, path, NetworkClient).forward_tcp() as address:
            await asyncio.to_thread(exchange, address, Path(sent), Path(received))


def exchange(address: tuple[str, int], sent: Path, received: Path) -> None:
    with socket.create_connection(address) as connection, received.open("wb") as sink:
        sender = threading.Thread(target=send, args=(connection, sent.read_bytes()))
        sender.start()
        while chunk := connection.recv(65536):
            sink.write(chunk)
        sender.join()


def send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
