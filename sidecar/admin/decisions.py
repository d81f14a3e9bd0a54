"""Why a request was refused."""

from __future__ import annotations

from aiohttp import web

from sidecar.admin.calls import Asked, document_response, found
from sidecar.admin.parameters import DECISION


async def one(asked: Asked) -> web.Response:
    """Answer `GET /decisions/{id}`."""
    decision = asked.get(DECISION)
    row = asked.control.decision(decision)
    return document_response(found(row, f"decision '{decision}'", "only the most recent refusals are kept"))
