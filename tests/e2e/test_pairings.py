"""Every client with every exporter: power, bytes both ways, an image written and read back, and again."""

import os
import pty
import threading
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lablease.testing.boards import native_drivers, stock_drivers
from lablease.testing.payload import digest, payload
from lablease.testing.peers import Exchange
from lablease.testing.processes import Finished
from lablease.testing.stack import SCRIPTS, Identity, Stack

MEGABYTE = 1024 * 1024
STREAM_BYTES = 10 * MEGABYTE
IMAGE_BYTES = 20 * MEGABYTE
ANSWER = payload("what the device says", STREAM_BYTES)
QUESTION = payload("what the client says", STREAM_BYTES)
IMAGE = payload("an image", IMAGE_BYTES)


@dataclass(frozen=True, slots=True)
class Board:
    """An exporter that runs, and the far side of its network driver."""

    exporter: Identity
    peer: Exchange


@dataclass(frozen=True, slots=True)
class Commands:
    """How a client says things inside of its shell: words of a POSIX shell, file names to be put in."""

    shell: Callable[[Stack, Identity, Board, str], Finished]
    on: str
    off: str
    flash: str
    dump: str
    exchange: str


def stock_shell(stack: Stack, client: Identity, board: Board, script: str) -> Finished:
    return stack.shell(client, "-l", f"board={board.exporter}", "--", "sh", "-ec", script, within_seconds=120)


def our_shell(stack: Stack, client: Identity, board: Board, script: str) -> Finished:
    options = ["--client-config", str(client.config), "-l", f"board={board.exporter}"]
    return stack.lablease("shell", *options, "--", "sh", "-ec", script, within_seconds=120)


STOCK = Commands(
    shell=stock_shell,
    on="j power on",
    off="j power off",
    flash="j flasher flash {image}",
    dump="j flasher dump {copy}",
    exchange=f"python {SCRIPTS}/exchange.py net {{sent}} {{received}}",
)
OURS = Commands(
    shell=our_shell,
    on="lablease call power on",
    off="lablease call power off",
    flash="lablease call flasher flash {image}",
    dump="lablease call flasher dump {copy}",
    exchange=f"python {SCRIPTS}/own_exchange.py net {{sent}} {{received}}",
)


@pytest.fixture
def stock_board(stack: Stack) -> Iterator[Board]:
    with Exchange(ANSWER) as peer:
        exporter = stack.make_exporter()
        stack.start_stock_exporter(exporter, stock_drivers(exporter.name, stack.device_log, peer.port))
        yield Board(exporter, peer)


@pytest.fixture
def native_board(stack: Stack, tmp_path: Path) -> Iterator[Board]:
    with Exchange(ANSWER) as peer:
        exporter = stack.make_exporter()
        stack.start_agent(exporter, native_drivers(stack.device_log, tmp_path / "images", peer.port))
        yield Board(exporter, peer)


@pytest.fixture
def upstream_drivers_board(stack: Stack) -> Iterator[Board]:
    with Exchange(ANSWER) as peer:
        exporter = stack.make_exporter()
        stack.start_agent(exporter, stock_drivers(exporter.name, stack.device_log, peer.port))
        yield Board(exporter, peer)


@pytest.mark.parametrize(
    ("board", "commands"),
    [
        pytest.param("stock_board", STOCK, id="stock-client-stock-exporter"),
        pytest.param("native_board", STOCK, id="stock-client-our-agent-native-drivers"),
        pytest.param("upstream_drivers_board", STOCK, id="stock-client-our-agent-upstream-drivers"),
        pytest.param("stock_board", OURS, id="our-client-stock-exporter"),
        pytest.param("native_board", OURS, id="our-client-our-agent"),
    ],
)
def test_a_client_and_an_exporter_work_together(
    stack: Stack, board: str, commands: Commands, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bench: Board = request.getfixturevalue(board)
    client = stack.make_client()
    files = {name: tmp_path / name for name in ("sent", "received", "image", "copy")}
    files["sent"].write_bytes(QUESTION)
    files["image"].write_bytes(IMAGE)
    before = len(device_calls(stack, bench))

    # One shell, several commands after each other: each is a connection, and a tunnel, of its own.
    steps = (commands.on, commands.exchange, commands.flash, commands.dump, commands.off)
    script = "\n".join((*steps, "echo all done")).format(**files)
    assert "all done" in commands.shell(stack, client, bench, script).ok().stdout

    conversation = bench.peer.conversations[-1]
    assert_same(bytes(conversation.received), QUESTION, "what reached the device")
    assert_same(files["received"].read_bytes(), ANSWER, "what reached the client")
    assert_same(files["copy"].read_bytes(), IMAGE, "the image that was read back")
    assert device_calls(stack, bench)[before:] == ["on", "off"]

    # And all of it leaves the exporter as it was.
    stack.until_free(bench.exporter.name)
    commands.shell(stack, client, bench, f"{commands.on}; {commands.off}").ok()
    assert device_calls(stack, bench)[before:] == ["on", "off", "on", "off"]
    stack.until_free(bench.exporter.name)


def test_a_serial_console_bears_ten_megabytes_each_way(stack: Stack, tmp_path: Path) -> None:
    device, console = pty.openpty()
    tty.setraw(console)
    exporter, client = stack.make_exporter(), stack.make_client()
    received = bytearray()
    talk = threading.Thread(target=be_a_device, args=(device, received), daemon=True)
    try:
        stack.start_agent(exporter, native_drivers(stack.device_log, tmp_path / "images", console=os.ttyname(console)))
        (tmp_path / "sent").write_bytes(QUESTION)
        script = f"{SCRIPTS}/console.py console {tmp_path}/sent {tmp_path}/received {len(ANSWER)}"
        talk.start()
        stack.shell(client, "-l", f"board={exporter}", "--", "python", *script.split(), within_seconds=120).ok()
        assert_same((tmp_path / "received").read_bytes(), ANSWER, "what the console said")
        talk.join(timeout=10)
        assert_same(bytes(received), QUESTION, "what was typed")
    finally:
        os.close(console)
        os.close(device)


def be_a_device(device: int, received: bytearray) -> None:
    """Listen, and talk at the same time from the first byte on: what was said before anybody listened may be lost.

    The last byte says that all was heard: a console has no end of file, and the published client drops what is still on
    its way when its command ends.
    """
    received += os.read(device, 65536)
    talk = threading.Thread(target=write_pty, args=(device, ANSWER[:-1]), daemon=True)
    talk.start()
    while len(received) < len(QUESTION):
        received += os.read(device, 65536)
    talk.join()
    write_pty(device, ANSWER[-1:])


def write_pty(device: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(device, view[:4096]) :]


def assert_same(got: bytes, wanted: bytes, what: str) -> None:
    """Compare byte by byte; the message says where they part, and is short."""
    if got == wanted:
        return
    at = next(
        (index for index, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted))
    )
    pytest.fail(
        f"{what}: {len(got)} bytes ({digest(got)[:12]}), wanted {len(wanted)} ({digest(wanted)[:12]}), differ at {at}"
    )


def device_calls(stack: Stack, board: Board) -> list[str]:
    """Return the calls that the board's switch noted, oldest first."""
    return [line["method"] for line in stack.device_calls(board.exporter.name)]
