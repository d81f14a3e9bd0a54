"""Why a request was refused."""

from __future__ import annotations

from aiohttp import web

from sidecar.admin.calls import Asked, document_response, found
from sidecar.admin.parameters import DECISION


async def one(asked: Asked) -> web.Response:
    """Answer `GET /decisions/{id}`."""
    decision = asked.get(DECISION)
    row = asked.control.decision(decision)
    hint = "take the `decision` of a refused answer; only the most recent refusals are kept"
    return document_response(found(row, f"decision '{decision}'", hint))
