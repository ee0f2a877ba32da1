"""Inside a shell of the stock client: send a file over a byte stream and keep what comes back, both at once.

exchange.py DRIVER SENT RECEIVED    (DRIVER: path of the driver below the root, for example net)
"""
# Runs in the interpreter that has the published packages, not in the project's.
# mypy: ignore-errors
# pyright: basic, reportMissingImports=false

import socket
import sys
import threading
from functools import reduce
from pathlib import Path

from jumpstarter.utils.env import env
from jumpstarter_driver_network.adapters import TcpPortforwardAdapter


def main(driver: str, sent: str, received: str) -> None:
    with env() as root:
        client = reduce(getattr, driver.split("."), root)
        with TcpPortforwardAdapter(client=client) as address, socket.create_connection(address) as connection:
            data = Path(sent).read_bytes()
            sender = threading.Thread(target=send, args=(connection, data))
            sender.start()
            with open(received, "wb") as sink:
                while chunk := connection.recv(65536):
                    sink.write(chunk)
            sender.join()


def send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(*sys.argv[1:])
