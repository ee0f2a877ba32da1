"""Inside a shell of the stock client: use a byte stream for as long as it bears bytes, whatever the lease says.

stubborn.py DRIVER LOG SECONDS    (writes a line `in|out TIME` for each chunk that came and each line that was sent)

SIGHUP, with which the stock shell tells that the lease has ended, is ignored.
"""
# Runs in the interpreter that has the published packages, not in the project's.
# mypy: ignore-errors
# pyright: basic, reportMissingImports=false

import signal
import socket
import sys
import threading
import time
from functools import reduce

from jumpstarter.utils.env import env
from jumpstarter_driver_network.adapters import TcpPortforwardAdapter

PERIOD_SECONDS = 0.02


def main(driver: str, log: str, seconds: str) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with open(log, "w", buffering=1) as record, env() as root:
        client = reduce(getattr, driver.split("."), root)
        with TcpPortforwardAdapter(client=client) as address, socket.create_connection(address) as connection:
            threading.Thread(target=receive, args=(connection, record), daemon=True).start()
            until = time.monotonic() + float(seconds)
            pause = threading.Event()
            while time.monotonic() < until:
                try:
                    connection.sendall(f"{time.time():.4f}\n".encode())
                except OSError:
                    record.write(f"cut {time.time():.4f}\n")
                    break
                record.write(f"out {time.time():.4f}\n")
                pause.wait(PERIOD_SECONDS)


def receive(connection: socket.socket, record) -> None:
    try:
        while connection.recv(65536):
            record.write(f"in {time.time():.4f}\n")
    except OSError as error:
        record.write(f"reset {time.time():.4f} {error}\n")
    else:
        record.write(f"eof {time.time():.4f}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
