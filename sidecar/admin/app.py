"""The admin API as one aiohttp application: `create_app`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from aiohttp import web

from sidecar.admin import auth, openapi
from sidecar.admin.errors import Handler, Middleware, Problem, problems
from sidecar.admin.once import Once
from sidecar.admin.origin import cross_site, is_ours
from sidecar.admin.stream import STREAMS, Streams
from sidecar.admin.table import CALLS
from sidecar.controller.ports import Control

MAX_BODY_BYTES: Final = 1024 * 1024

SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Server": "sidecar",
}


def create_app(
    control: Control, *, allowed_hosts: Collection[str] = (), streams: Streams | None = None
) -> web.Application:
    """
    Return the application that serves `/api/v1` for *control*.

    Args:
        allowed_hosts: Names in `Host` that are ours beyond loopback names and IP addresses, without port.
        streams: The bounds of the event streams; the defaults when None.
    """
    hosts = frozenset(name.lower() for name in allowed_hosts)
    gate = auth.Gate(control.tokens)
    app = web.Application(middlewares=[problems, _origin(hosts), auth.middleware(gate)], client_max_size=MAX_BODY_BYTES)
    app[STREAMS] = streams or Streams()
    app[openapi.DOCUMENT] = openapi.text(CALLS)
    once = Once(control.answers)
    for call in CALLS:
        app.router.add_route(call.method, openapi.PREFIX + call.path, call.handler(control, once))
    app.on_response_prepare.append(_secure)
    app.on_shutdown.append(_end_streams)
    return app


def _origin(hosts: Collection[str]) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if not is_ours(host, hosts):
            raise Problem(421, f"the Host {host[:80]!r} is not this sidecar's", "use its IP address or localhost")
        if (foreign := cross_site(request.method, request.headers)) is not None:
            raise Problem(403, f"a foreign web page may not do this: {foreign}", "call the API from its own origin")
        return await handler(request)

    return check


async def _secure(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)


async def _end_streams(app: web.Application) -> None:
    app[STREAMS].closing.set()
