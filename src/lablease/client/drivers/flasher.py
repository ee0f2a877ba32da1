"""Drivers that write an image to storage and read it back."""

from __future__ import annotations

from pathlib import Path

from lablease.client.drivers.base import DriverClient
from lablease.client.errors import ClientError
from lablease.client.files import (
    Encoding,
    Handle,
    Progress,
    download,
    ignore_progress,
    is_url,
    open_source,
    read_blocks,
    upload,
    use_url,
    writing,
)
from lablease.client.values import Json


class _ImageClient(DriverClient):
    async def _send(
        self, method: str, source: Path | str, *args: object, encoding: Encoding | None, progress: Progress
    ) -> None:
        async def use(handle: Handle) -> Json:
            return await self.call(method, handle, *args)

        if is_url(source):
            await use_url(str(source), use)
            return
        with open_source(Path(source)) as file:
            await upload(self.session, self.node.uuid, read_blocks(file), use, encoding, progress)

    async def _fetch(
        self, method: str, path: Path, *args: object, encoding: Encoding | None, progress: Progress
    ) -> None:
        async def use(handle: Handle) -> Json:
            return await self.call(method, handle, *args)

        async with writing(path) as sink:
            await download(self.session, self.node.uuid, sink, use, encoding, progress)


class FlasherClient(_ImageClient):
    """Flashes images."""

    async def flash(
        self,
        source: Path | str,
        target: str | None = None,
        encoding: Encoding | None = None,
        progress: Progress = ignore_progress,
    ) -> None:
        """Write a local file, or what an ``http(s)://`` URL names, to a target (None: the driver's default).

        Raises:
            OSError: the file cannot be read; DriverError: the driver failed.
        """
        await self._send("flash", source, target, encoding=encoding, progress=progress)

    async def dump(
        self,
        path: Path,
        target: str | None = None,
        encoding: Encoding | None = None,
        progress: Progress = ignore_progress,
    ) -> None:
        """Read a target back into a local file, which is whole or not there."""
        await self._fetch("dump", path, target, encoding=encoding, progress=progress)


class StorageMuxClient(_ImageClient):
    """A storage medium that is connected either to the exporter's host or to the device."""

    async def host(self) -> None:
        """Connect the medium to the exporter's host."""
        await self.call("host")

    async def dut(self) -> None:
        """Connect the medium to the device."""
        await self.call("dut")

    async def off(self) -> None:
        """Disconnect the medium."""
        await self.call("off")

    async def write(
        self, source: Path | str, encoding: Encoding | None = None, progress: Progress = ignore_progress
    ) -> None:
        """Write an image to the medium, which must be connected to the host."""
        await self._send("write", source, encoding=encoding, progress=progress)

    async def read(self, path: Path, encoding: Encoding | None = None, progress: Progress = ignore_progress) -> None:
        """Read the medium into a local file."""
        await self._fetch("read", path, encoding=encoding, progress=progress)


class StorageMuxFlasherClient(StorageMuxClient, FlasherClient):
    """A storage medium that is flashed while it is connected to the host; the device gets it back in any case."""

    async def flash(
        self,
        source: Path | str,
        target: str | None = None,
        encoding: Encoding | None = None,
        progress: Progress = ignore_progress,
    ) -> None:
        """Connect to the host, write, connect to the device. There is one target only."""
        _no_target(target)
        await self.host()
        try:
            await self.write(source, encoding, progress)
        finally:
            await self.dut()

    async def dump(
        self,
        path: Path,
        target: str | None = None,
        encoding: Encoding | None = None,
        progress: Progress = ignore_progress,
    ) -> None:
        """Connect to the host, read, connect to the device."""
        _no_target(target)
        await self.host()
        try:
            await self.read(path, encoding, progress)
        finally:
            await self.dut()


def _no_target(target: str | None) -> None:
    if target is not None:
        raise ClientError(f"target {target!r}: this storage has only one, leave it out")
