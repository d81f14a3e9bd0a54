"""The `observe` listener: `/metrics`, `/livez`, `/readyz`. Read only, no token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def create_app(metrics: Callable[[], bytes], checks: Callable[[], Mapping[str, str]]) -> web.Application:
    """
    Return the application.

    Args:
        metrics: Renders the exposition.
        checks: What readiness rests on, by name; an empty text is well, another one says what is not.
    """

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": METRICS_TYPE})

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        found = checks()
        well = not any(found.values())
        lines = [
            f"[{'-' if problem else '+'}] {name}{': ' + problem if problem else ' ok'}"
            for name, problem in found.items()
        ]
        text = "\n".join(
            [*(lines if "verbose" in request.query or not well else []), "ok" if well else "not ready", ""]
        )
        return web.Response(text=text, status=200 if well else 503)

    app = web.Application()
    app.add_routes([web.get("/metrics", show_metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    return app
