"""Bearer tokens: issued and revoked by an admin."""

from __future__ import annotations

from aiohttp import web

from sidecar.admin.calls import Asked, document_response, list_response
from sidecar.admin.models import TokenBody
from sidecar.admin.parameters import TOKEN_NAME


async def listed(asked: Asked) -> web.Response:
    """Answer `GET /tokens`."""
    return list_response(asked.control.keyring.documents())


async def new(asked: Asked) -> web.Response:
    """Answer `POST /tokens`."""
    body = asked.body(TokenBody)
    return document_response(await asked.control.keyring.new(body.name, body.role, asked.token.name))


async def revoke(asked: Asked) -> web.Response:
    """Answer `DELETE /tokens/{name}`."""
    return document_response(asked.control.keyring.revoke(asked.get(TOKEN_NAME), asked.token.name))
