"""Storage that clients write images to and read back."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final

from pydantic import Field

from lablease.driver.base import Driver, export

DEFAULT_TARGET: Final = "default"


@dataclass(kw_only=True)
class FileFlasher(Driver):
    """Keeps images in a directory: one file per target.

    ``root``: the directory, made if missing. ``max_bytes``: an image that is larger is refused, 0 means no limit.
    """

    client_class = "jumpstarter_driver_opendal.client.FlasherClient"

    root: Path
    max_bytes: Annotated[int, Field(ge=0)] = 0

    def start(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    @export
    async def flash(self, source: object, target: str | None = None) -> None:
        """Write an image. The old one stays until the new one is whole."""
        path = self._path(target)
        partial = path.with_name(f"{path.name}.partial")
        written = 0
        try:
            async with self.resource(source) as stream:
                with await asyncio.to_thread(partial.open, "wb") as file:
                    while data := await stream.receive():
                        written += len(data)
                        if 0 < self.max_bytes < written:
                            raise ValueError(f"image is larger than max_bytes = {self.max_bytes}")
                        await asyncio.to_thread(file.write, data)
                    await asyncio.to_thread(_settle, file)
                await asyncio.to_thread(partial.replace, path)
        finally:
            await asyncio.to_thread(partial.unlink, missing_ok=True)
        self.logger.info("flashed %s: %s bytes", path.name, written)

    @export
    async def dump(self, sink: object, target: str | None = None) -> None:
        """Read an image back."""
        path = self._path(target)
        if not path.is_file():
            raise ValueError(f"nothing was flashed to target {path.name!r}")
        async with self.resource(sink) as stream:
            with await asyncio.to_thread(path.open, "rb") as file:
                while data := await asyncio.to_thread(file.read, 64 * 1024):
                    await stream.send(data)

    def _path(self, target: str | None) -> Path:
        name = target or DEFAULT_TARGET
        if name != os.path.basename(name) or name in (".", "..") or name.endswith(".partial"):
            raise ValueError(f"target {name!r}: must be a plain file name")
        return self.root / name


def _settle(file: BinaryIO) -> None:
    """Put on disk what was written."""
    file.flush()
    os.fsync(file.fileno())


@dataclass(kw_only=True)
class FileStorageMux(Driver):
    """A card that is connected to the exporter, to the device, or to nothing; its content is one file."""

    client_class = "jumpstarter_driver_opendal.client.StorageMuxFlasherClient"

    path: Path

    def start(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.side = "off"

    @export
    async def host(self) -> None:
        """Connect the card to the exporter."""
        self.side = "host"

    @export
    async def dut(self) -> None:
        """Connect the card to the device."""
        self.side = "dut"

    @export
    async def off(self) -> None:
        """Disconnect the card."""
        self.side = "off"

    @export
    async def write(self, source: object) -> None:
        """Write the card's content."""
        self._require_host()
        async with self.resource(source) as stream:
            with await asyncio.to_thread(self.path.open, "wb") as file:
                while data := await stream.receive():
                    await asyncio.to_thread(file.write, data)

    @export
    async def read(self, sink: object) -> None:
        """Read the card's content."""
        self._require_host()
        if not self.path.is_file():
            raise ValueError("nothing was written to the card")
        async with self.resource(sink) as stream:
            with await asyncio.to_thread(self.path.open, "rb") as file:
                while data := await asyncio.to_thread(file.read, 64 * 1024):
                    await stream.send(data)

    def _require_host(self) -> None:
        if self.side != "host":
            raise ValueError(f"the card is on side {self.side!r}: call host first")
