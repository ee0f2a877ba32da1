"""Resource handles: the two ways in which a client passes a file to a driver call."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Final, Literal
from urllib.parse import urljoin, urlsplit, urlunsplit
from uuid import UUID

from pydantic import BaseModel, Discriminator, Field, TypeAdapter

from lablease.driver.bytestream import BrokenStream, ByteStream, PipeEnd, pipe
from lablease.driver.encodings import EncodedStream

if TYPE_CHECKING:
    import aiohttp  # a third of a host's start-up time, and most sessions never need it

MAX_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PRIVATE_HEADERS: Final = ("authorization", "cookie", "proxy-authorization", "x-amz-", "x-ms-", "x-goog-")


class ClientStream(BaseModel):
    """Bytes that the client pumps through a resource stream of this session."""

    kind: Literal["client_stream"]
    uuid: UUID
    content_encoding: str | None = Field(default=None, alias="x_jmp_content_encoding")


class PresignedRequest(BaseModel):
    """An HTTPS request that the exporter makes itself."""

    kind: Literal["presigned_request"]
    method: Literal["GET", "PUT"]
    url: str
    headers: dict[str, str] = {}


_Handle: Final[TypeAdapter[ClientStream | PresignedRequest]] = TypeAdapter(
    Annotated[ClientStream | PresignedRequest, Discriminator("kind")]
)


@asynccontextmanager
async def open_resource(
    table: MutableMapping[UUID, PipeEnd], handle: object, *, timeout_seconds: float
) -> AsyncGenerator[ByteStream]:
    """Open a handle that a client passed as argument. ``table`` holds the open resource streams of the driver."""
    parsed = _Handle.validate_python(handle)
    if isinstance(parsed, ClientStream):
        async with _client_stream(table, parsed) as stream:
            yield stream
    elif parsed.method == "GET":
        async with _get(parsed, timeout_seconds) as stream:
            yield stream
    else:
        async with _put(parsed, timeout_seconds) as stream:
            yield stream


@asynccontextmanager
async def _client_stream(table: MutableMapping[UUID, PipeEnd], handle: ClientStream) -> AsyncGenerator[ByteStream]:
    end = table.pop(handle.uuid, None)
    if end is None:
        raise ValueError(f"resource {handle.uuid} is not open: pass the handle of a stream that is still open, once")
    stream: ByteStream = end if handle.content_encoding is None else EncodedStream(end, handle.content_encoding)
    finished = False
    try:
        yield stream
        finished = True
    finally:
        if finished:
            await stream.aclose()
        else:
            await end.abort("the driver call failed")


def public_url(url: str) -> str:
    """Return the URL without its query and user part, where credentials stand."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.hostname or "", parts.path, "", ""))


def require_https(url: str) -> None:
    """Refuse a URL that the exporter must not fetch.

    Raises:
        ValueError: the scheme is not https, or no host is named.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError(f"{public_url(url)}: only https URLs are fetched by the exporter")


def redirected(url: str, location: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the target of a redirect and the headers that may go there: credentials stay with their origin.

    Raises:
        ValueError: there is no target, or it is not https.
    """
    if not location:
        raise ValueError(f"{public_url(url)}: redirect without a Location header")
    target = urljoin(url, location)
    require_https(target)
    old, new = urlsplit(url), urlsplit(target)
    if (old.hostname, old.port or 443) == (new.hostname, new.port or 443):
        return target, dict(headers)
    return target, {key: value for key, value in headers.items() if not key.lower().startswith(_PRIVATE_HEADERS)}


@asynccontextmanager
async def _get(request: PresignedRequest, timeout_seconds: float) -> AsyncGenerator[ByteStream]:
    import aiohttp
    import yarl

    url, headers = request.url, dict(request.headers)
    require_https(url)
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        for _ in range(MAX_REDIRECTS + 1):
            async with session.get(yarl.URL(url, encoded=True), headers=headers, allow_redirects=False) as response:
                if response.status in _REDIRECTS:
                    url, headers = redirected(url, response.headers.get("Location", ""), headers)
                    continue
                if response.status >= 400:
                    raise RuntimeError(f"GET {public_url(url)}: HTTP status {response.status}")
                yield _HttpBody(response.content, public_url(url))
                return
    raise RuntimeError(f"GET {public_url(request.url)}: more than {MAX_REDIRECTS} redirects")


class _HttpBody:
    """The body of a GET as a ``ByteStream`` that can only be read."""

    def __init__(self, content: "aiohttp.StreamReader", url: str) -> None:
        self._content = content
        self._url = url

    async def receive(self) -> bytes:
        try:
            return await self._content.readany()
        except OSError as error:
            raise BrokenStream(f"GET {self._url}: {type(error).__name__}") from error

    async def send(self, data: bytes) -> None:
        raise BrokenStream(f"GET {self._url}: cannot be written")

    async def send_eof(self) -> None:
        return None

    async def aclose(self) -> None:
        return None


@asynccontextmanager
async def _put(request: PresignedRequest, timeout_seconds: float) -> AsyncGenerator[ByteStream]:
    require_https(request.url)
    ours, theirs = pipe()
    upload = asyncio.create_task(_upload(request, theirs, timeout_seconds))
    finished = False
    try:
        yield ours
        await ours.send_eof()
        finished = True
    except BrokenStream:
        await upload  # why the server took no more says more than that it took no more
        raise
    finally:
        if not finished:
            await ours.abort("the driver call failed")
            upload.cancel()
    await upload


async def _upload(request: PresignedRequest, source: PipeEnd, timeout_seconds: float) -> None:
    import aiohttp
    import yarl

    async def body() -> AsyncIterator[bytes]:
        while data := await source.receive():
            yield data

    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    url = yarl.URL(request.url, encoded=True)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.put(url, headers=request.headers, data=body(), allow_redirects=False) as response,
        ):
            if response.status >= 300:
                raise RuntimeError(f"PUT {public_url(request.url)}: HTTP status {response.status}")
    finally:
        await source.aclose()
