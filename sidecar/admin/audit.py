"""The record of every change, and whether it is whole."""

from __future__ import annotations

from aiohttp import web

from sidecar.admin.calls import Asked, document_response, page_response
from sidecar.admin.parameters import CURSOR, LIMIT


async def listed(asked: Asked) -> web.Response:
    """Answer `GET /audit`."""
    return page_response(await asked.control.audit(asked.get(LIMIT), asked.get(CURSOR)))


async def verify(asked: Asked) -> web.Response:
    """Answer `GET /audit/verify`."""
    return document_response(await asked.control.verify())
