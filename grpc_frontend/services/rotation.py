"""RotateToken: drop the caller's Secret, as ``jmp admin rotate`` does, and hand over the token that replaces it."""

import asyncio

import structlog

from lablease import clock
from lablease.errors import InvalidField, NotAllowed, NotFound, Unavailable
from lablease.grpc_frontend.auth import Caller
from lablease.grpc_frontend.bells import About, Topic
from lablease.grpc_frontend.parts import Parts
from lablease.grpc_frontend.records import secret_token
from lablease.model.client import Client
from lablease.model.keys import Key
from lablease.wire.codec import timestamp
from lablease.wire.codec_client import parse_parent
from lablease.wire.jumpstarter.client.v1 import client_pb2 as pb

log = structlog.get_logger(__name__)


class Rotation:
    """Only the operator signs; the front end waits for it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store

    async def rotate_token(self, caller: Caller, request: pb.RotateTokenRequest) -> pb.RotateTokenResponse:
        """Replace the caller's own token.

        Raises:
            NotAllowed: of another namespace.
            Unavailable: no new one was issued in time.
        """
        if parse_parent(request.parent) != caller.key.namespace:
            raise NotAllowed(f"namespace mismatch: {caller.key.name} is of {caller.key.namespace}")
        client = await self._store.read_client(caller.key)
        secret = Key(caller.key.namespace, client.credential or f"{caller.key.name}-client")
        await self._drop(secret)
        try:
            async with asyncio.timeout(self._parts.waits.rotation.total_seconds()):
                token = await self._next_token(client, secret)
        except TimeoutError:
            raise Unavailable("the operator did not issue a new token in time; it will, fetch it again") from None
        log.info("token.rotated", client=caller.key.name)
        return pb.RotateTokenResponse(
            token=token, expiry=timestamp(self._parts.authenticator.expiry(token, clock.utc_now()))
        )

    async def _drop(self, secret: Key) -> None:
        try:
            raw = await self._store.read_secret(secret)
            await self._store.delete_secret(secret, raw["metadata"]["uid"])
        except NotFound:
            log.info("token.was_missing", secret=secret.name)

    async def _next_token(self, before: Client, secret: Key) -> str:
        """Wait until the status names a later generation, then read the Secret: it is written first."""
        with self._store.bells.listen(Topic(About.CLIENT, before.key)) as bell:
            while True:
                bell.clear()
                client = self._store.clients.get(before.key)
                if client is None or client.meta.uid != before.meta.uid:
                    raise NotFound("client", before.key.name)
                if client.credential_generation > before.credential_generation:
                    token = secret_token(await self._store.read_secret(secret))
                    if not token:
                        raise InvalidField("token", f"of Secret {secret.name} cannot be read")
                    return token
                await bell.wait()
