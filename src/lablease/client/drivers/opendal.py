"""Storage near the exporter, by path."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from pathlib import Path
from typing import Literal

from lablease.client.drivers.base import DriverClient
from lablease.client.files import Handle, Progress, download, ignore_progress, open_source, read_blocks, upload, writing
from lablease.client.values import Json


class OpendalClient(DriverClient):
    """Files of the storage; paths are text, directories end in ``/``."""

    async def write_file(self, path: str, source: Path, progress: Progress = ignore_progress) -> None:
        """Write a local file to ``path``."""
        with open_source(source) as file:
            await self.write(path, read_blocks(file), progress)

    async def write_bytes(self, path: str, data: bytes) -> None:
        """Write ``data`` to ``path``."""

        async def one() -> AsyncGenerator[bytes]:
            yield data

        await self.write(path, one())

    async def write(self, path: str, source: AsyncIterable[bytes], progress: Progress = ignore_progress) -> None:
        """Write what ``source`` yields to ``path``."""
        fd = await self._open(path, "wb")
        try:
            await upload(self.session, self.node.uuid, source, self._with("file_write", fd), None, progress)
        finally:
            await self.call("file_close", fd)

    async def read_file(self, path: str, target: Path, progress: Progress = ignore_progress) -> None:
        """Read ``path`` into a local file, which is whole or not there."""
        async with writing(target) as sink:
            await self.read(path, sink, progress)

    async def read_bytes(self, path: str) -> bytes:
        """Return the content of ``path``, all of it in memory."""
        content = bytearray()

        async def keep(data: bytes) -> None:
            content.extend(data)

        await self.read(path, keep)
        return bytes(content)

    async def read(
        self, path: str, sink: Callable[[bytes], Awaitable[object]], progress: Progress = ignore_progress
    ) -> None:
        """Give the content of ``path`` to ``sink``, block by block."""
        fd = await self._open(path, "rb")
        try:
            await download(self.session, self.node.uuid, sink, self._with("file_read", fd), None, progress)
        finally:
            await self.call("file_close", fd)

    async def stat(self, path: str) -> Json:
        """Return ``content_length``, ``mode`` and the like."""
        return await self.call("stat", path)

    async def exists(self, path: str) -> bool:
        """Tell whether there is something at ``path``."""
        return bool(await self.call("exists", path))

    async def hash(self, path: str, algorithm: Literal["sha256", "md5"] = "sha256") -> str:
        """Return the digest of a file in hex."""
        return str(await self.call("hash", path, algorithm))

    async def list(self, path: str = "/", *, recursive: bool = False) -> AsyncGenerator[str]:
        """Yield what is in a directory."""
        async for entry in self.streaming_call("scan" if recursive else "list", path):
            yield str(entry)

    async def create_dir(self, path: str) -> None:
        """Create a directory; the name must end in ``/``."""
        await self.call("create_dir", path)

    async def copy(self, source: str, target: str) -> None:
        """Copy within the storage."""
        await self.call("copy", source, target)

    async def rename(self, source: str, target: str) -> None:
        """Move within the storage."""
        await self.call("rename", source, target)

    async def delete(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file or an empty directory; ``recursive`` deletes all below too."""
        await self.call("remove_all" if recursive else "delete", path)

    async def _open(self, path: str, mode: Literal["rb", "wb"]) -> str:
        fd = await self.call("open", path, mode)
        if not isinstance(fd, str):
            raise self.unexpected("open", fd)
        return fd

    def _with(self, method: str, fd: str) -> Callable[[Handle], Awaitable[Json]]:
        return lambda handle: self.call(method, fd, handle)
