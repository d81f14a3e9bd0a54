"""Circuit breakers, by hand."""

from __future__ import annotations

from aiohttp import web

from sidecar.admin.calls import Asked
from sidecar.admin.parameters import ROUTE
from sidecar.controller.commands import CloseBreaker


async def reset(asked: Asked) -> web.Response:
    """Answer `POST /breakers/{name}/reset`."""
    return await asked.do(CloseBreaker(asked.get(ROUTE), asked.token.name))
