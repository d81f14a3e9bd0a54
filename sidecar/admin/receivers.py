"""Receivers of alerts: does a message arrive?"""

from __future__ import annotations

from aiohttp import web

from sidecar.admin.calls import Asked, document_response, found
from sidecar.admin.parameters import RECEIVER


async def test(asked: Asked) -> web.Response:
    """Answer `POST /notify/{name}/test`."""
    name = asked.get(RECEIVER)
    outcome = await asked.control.notify_test(name)
    receivers = ", ".join(str(row["name"]) for row in asked.control.status()["receivers"])
    hint = f"the receivers are {receivers}" if receivers else "`notify` of the config names none"
    return document_response(found(outcome, f"receiver '{name}'", hint))
