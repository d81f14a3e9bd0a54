"""Requests as they end, for those who look on: filtered in the workers, redacted, at most a few a second."""

from __future__ import annotations

import json
from typing import Final

from aiohttp import web

from sidecar.admin import stream
from sidecar.admin.calls import Asked
from sidecar.admin.errors import Problem
from sidecar.admin.parameters import TAP_CLIENT, TAP_REFUSED, TAP_ROUTE, TAP_SLOWER, TAP_STATUS
from sidecar.controller.ports import Document
from sidecar.link.frames import Tap

_ALL: Final = (0, 999)


async def serve(asked: Asked) -> web.StreamResponse:
    """Answer `GET /tap`."""
    route = asked.get(TAP_ROUTE)
    routes = [str(row["name"]) for row in asked.control.routes()]
    if route and route not in routes:
        raise Problem(404, f"there is no route '{route}'", f"the routes are {', '.join(routes)}")
    least, most = asked.get(TAP_STATUS) or _ALL
    wanted = Tap(
        "",
        0.0,
        route=route,
        client=asked.get(TAP_CLIENT),
        least_status=least,
        most_status=most,
        slower_s=asked.get(TAP_SLOWER),
        refused=asked.get(TAP_REFUSED),
    )
    return await stream.serve(asked, asked.control.taps.requests(wanted), encode)


def encode(request: Document) -> bytes:
    """Return one request as it goes on the wire."""
    return f"event: request\ndata: {json.dumps(request, separators=(',', ':'))}\n\n".encode("ascii")
