"""Inside a shell of the stock client: as exchange.py, for a console that has no end of file.

console.py DRIVER SENT RECEIVED SIZE    (stops when SIZE bytes came)
"""
# Runs in the interpreter that has the published packages, not in the project's.
# mypy: ignore-errors
# pyright: basic, reportMissingImports=false

import sys
import threading
from functools import reduce
from pathlib import Path

from jumpstarter.utils.env import env

CHUNK = 32768


def main(driver: str, sent: str, received: str, size: str) -> None:
    with env() as root:
        client = reduce(getattr, driver.split("."), root)
        with client.stream() as stream:
            data = Path(sent).read_bytes()
            sender = threading.Thread(target=send, args=(stream, data))
            sender.start()
            missing = int(size)
            with open(received, "wb") as sink:
                while missing > 0:
                    chunk = stream.receive()
                    sink.write(chunk)
                    missing -= len(chunk)
            sender.join()


def send(stream, data: bytes) -> None:
    for start in range(0, len(data), CHUNK):
        stream.send(data[start : start + CHUNK])


if __name__ == "__main__":
    main(*sys.argv[1:])
