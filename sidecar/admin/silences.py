"""Silences: maintenance windows, in which people are not told."""

from __future__ import annotations

from aiohttp import web

from sidecar.admin.calls import Asked, list_response
from sidecar.admin.models import SilenceBody
from sidecar.admin.parameters import SILENCE
from sidecar.config.units import parse_duration
from sidecar.controller.commands import AddSilence, EndSilence
from sidecar.facts import Scope


async def listed(asked: Asked) -> web.Response:
    """Answer `GET /silences`."""
    return list_response(asked.control.silences())


async def add(asked: Asked) -> web.Response:
    """Answer `POST /silences`."""
    body = asked.body(SilenceBody)
    ttl_s = parse_duration(body.ttl)
    return await asked.do(AddSilence(Scope.parse(body.scope), ttl_s, body.reason, asked.token.name))


async def end(asked: Asked) -> web.Response:
    """Answer `DELETE /silences/{id}`."""
    return await asked.do(EndSilence(asked.get(SILENCE), asked.token.name))
