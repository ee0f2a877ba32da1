"""The public HTTP port: a page for people, and what ``jmp login`` asks."""

import base64
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aiohttp import web

from lablease.errors import Unavailable
from lablease.grpc_frontend.router.settings import Address

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>lablease</title>
<style>body{{font:16px/1.5 system-ui;max-width:44rem;margin:4rem auto;padding:0 1rem}}
code,pre{{background:#8882;border-radius:4px;padding:.15rem .3rem}}pre{{padding: .8rem;overflow:auto}}</style></head>
<body><h1>lablease</h1><p>A lab that speaks <code>jumpstarter.v1</code> at <code>{endpoint}</code>,
namespace <code>{namespace}</code>.</p>
<p>With a client configuration from your administrator:</p>
<pre>jmp get exporters
jmp shell --selector board=demo</pre></body></html>
"""


@dataclass(frozen=True, slots=True)
class PublicFacts:
    """What is told to everybody."""

    endpoint: str
    router_endpoint: str | None
    namespace: str
    ca_bundle: Path | None = None

    def auth_config(self) -> dict[str, object]:
        """Return the answer of ``/v1/auth/config``; the bundle is read anew, since it is renewed in place."""
        facts: dict[str, object] = {"grpcEndpoint": self.endpoint, "namespace": self.namespace}
        if self.router_endpoint:
            facts["routerEndpoint"] = self.router_endpoint
        if self.ca_bundle is not None:
            facts["caBundle"] = base64.b64encode(self.ca_bundle.read_bytes()).decode("ascii")
        return facts


class PublicPort:
    """An HTTP server, started by ``start`` and stopped by ``stop``."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        self._runner = runner
        self.port = port

    @classmethod
    async def start(cls, address: Address, facts: PublicFacts) -> Self:
        """Listen; port 0 lets the system choose, ``port`` of the result tells which.

        Raises:
            Unavailable: the address cannot be bound.
        """
        page = _PAGE.format(endpoint=html.escape(facts.endpoint), namespace=html.escape(facts.namespace))

        async def landing(_request: web.Request) -> web.Response:
            return web.Response(text=page, content_type="text/html")

        async def healthz(_request: web.Request) -> web.Response:
            return web.Response(text="ok")

        async def auth_config(_request: web.Request) -> web.Response:
            try:
                return web.json_response(facts.auth_config())
            except OSError:
                return web.json_response({"error": "the CA bundle cannot be read now"}, status=503)

        app = web.Application(client_max_size=64 * 1024)
        app.router.add_get("/", landing)
        app.router.add_get("/healthz", healthz)
        app.router.add_get("/v1/auth/config", auth_config)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, address.host, address.port, reuse_address=True, reuse_port=True)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise Unavailable(f"cannot listen on {address}: {error.strerror}") from None
        return cls(runner, runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()
