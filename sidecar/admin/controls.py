"""Detectors as people judge them: brought back, put aside, told that they missed something."""

from __future__ import annotations

from aiohttp import web

from sidecar.admin.calls import Asked
from sidecar.admin.models import WhyBody
from sidecar.admin.parameters import CONTROL_NAME
from sidecar.controller.commands import Demote, Missed, Promote


async def promote(asked: Asked) -> web.Response:
    """Answer `POST /controls/{name}/promote`."""
    return await asked.do(Promote(asked.get(CONTROL_NAME), asked.token.name, asked.body(WhyBody).reason or ""))


async def demote(asked: Asked) -> web.Response:
    """Answer `POST /controls/{name}/demote`."""
    return await asked.do(Demote(asked.get(CONTROL_NAME), asked.token.name, asked.body(WhyBody).reason or ""))


async def missed(asked: Asked) -> web.Response:
    """Answer `POST /controls/{name}/missed`."""
    return await asked.do(Missed(asked.get(CONTROL_NAME), asked.token.name, asked.body(WhyBody).reason or ""))
