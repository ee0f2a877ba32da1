"""Inside a shell of the stock client: hold an idle byte stream, and show at the end that it still bears bytes.

hold.py DRIVER STARTED GO    (STARTED is written when the stream is open; waits until the file GO exists)
"""
# Runs in the interpreter that has the published packages, not in the project's.
# mypy: ignore-errors
# pyright: basic, reportMissingImports=false

import socket
import sys
import time
from functools import reduce
from pathlib import Path

from jumpstarter.utils.env import env
from jumpstarter_driver_network.adapters import TcpPortforwardAdapter


def main(driver: str, started: str, go: str) -> None:
    with env() as root:
        client = reduce(getattr, driver.split("."), root)
        with TcpPortforwardAdapter(client=client) as address, socket.create_connection(address) as connection:
            say(connection, b"before")
            Path(started).write_text("open")
            while not Path(go).exists():
                time.sleep(0.2)
            say(connection, b"after")
            print("the idle stream still bears bytes")


def say(connection: socket.socket, words: bytes) -> None:
    connection.sendall(words)
    heard = b""
    while len(heard) < len(words):
        chunk = connection.recv(64)
        if not chunk:
            raise SystemExit(f"cut after {heard!r} of {words!r}")
        heard += chunk
    assert heard == words, heard


if __name__ == "__main__":
    main(*sys.argv[1:])
