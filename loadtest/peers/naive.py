"""The proxy that one writes in ten minutes: aiohttp.web in front of a ClientSession, on uvloop. No protection at all."""

from __future__ import annotations

import ssl
import sys

import aiohttp
import uvloop
from aiohttp import web

HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "content-length",
    "content-encoding",
}


async def make(upstream: str) -> web.Application:
    app = web.Application()
    session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))

    async def forward(request: web.Request) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        body = await request.read() if request.can_read_body else None
        async with session.request(request.method, upstream + request.path_qs, headers=headers, data=body) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    app.router.add_route("*", "/{path:.*}", forward)
    return app


if __name__ == "__main__":
    uvloop.install()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if sys.argv[3] else None
    if tls is not None:
        tls.load_cert_chain(sys.argv[3])
    web.run_app(
        make(f"http://127.0.0.1:{sys.argv[2]}"),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        ssl_context=tls,
        access_log=None,
        print=None,
    )
