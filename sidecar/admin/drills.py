"""Drills: a fault on purpose, and how the loop did."""

from __future__ import annotations

from aiohttp import web

from sidecar.admin.calls import Asked, list_response
from sidecar.admin.models import DrillBody
from sidecar.config.units import parse_duration
from sidecar.controller.commands import StartDrill, StopDrill


async def listed(asked: Asked) -> web.Response:
    """Answer `GET /drills`."""
    return list_response(asked.control.drills())


async def start(asked: Asked) -> web.Response:
    """Answer `POST /drills`."""
    body = asked.body(DrillBody)
    for_s = parse_duration(body.duration)
    return await asked.do(StartDrill(body.kind, body.route, for_s, asked.token.name, body.share))


async def stop(asked: Asked) -> web.Response:
    """Answer `POST /drills/stop`."""
    return await asked.do(StopDrill(asked.token.name))
