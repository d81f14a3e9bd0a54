"""What is going on: status, the inventory of controls, routes and their series, isolations."""

from __future__ import annotations

from aiohttp import web

from sidecar.admin import parameters
from sidecar.admin.calls import Asked, document_response, found, list_response


async def status(asked: Asked) -> web.Response:
    """Answer `GET /status`, with who asks."""
    you = {"name": asked.token.name, "role": asked.token.role}
    return document_response({**asked.control.status(), "token": you})


async def controls(asked: Asked) -> web.Response:
    """Answer `GET /controls`."""
    return list_response(asked.control.controls())


async def routes(asked: Asked) -> web.Response:
    """Answer `GET /routes`."""
    return list_response(asked.control.routes())


async def series(asked: Asked) -> web.Response:
    """Answer `GET /routes/{name}/series`."""
    name = asked.get(parameters.ROUTE)
    points = asked.control.series(name, asked.get(parameters.WINDOW), asked.get(parameters.STEP))
    return document_response(found(points, f"route '{name}'", parameters.ROUTE.hint))


async def isolations(asked: Asked) -> web.Response:
    """Answer `GET /isolations`."""
    return list_response(asked.control.isolations())
