"""Receivers of alerts: does a message arrive?"""

from __future__ import annotations

from aiohttp import web

from sidecar.admin.calls import Asked, document_response, found
from sidecar.admin.parameters import RECEIVER


async def test(asked: Asked) -> web.Response:
    """Answer `POST /notify/{name}/test`."""
    name = asked.get(RECEIVER)
    outcome = await asked.control.notify_test(name)
    return document_response(found(outcome, f"receiver '{name}'", "`sidecar status` lists the receivers"))
