"""Incidents, their evidence and post-mortem, and what people say of them."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web

from sidecar.admin.calls import HTML, MARKDOWN, Asked, document_response, found, page_response
from sidecar.admin.models import NoteBody, ReleaseBody, TickBody
from sidecar.admin.parameters import CURSOR, INCIDENT, LIMIT, STATE
from sidecar.controller.commands import Acknowledge, Close, Confirm, Note, Release, ReleaseVerdict, Tick

T = TypeVar("T")


def _found(asked: Asked, document: T | None, what: str) -> T:
    return found(document, f"{what} {asked.get(INCIDENT)}", "`sidecar incident list` shows the incidents")


async def listed(asked: Asked) -> web.Response:
    """Answer `GET /incidents`."""
    return page_response(await asked.control.incidents(asked.get(STATE), asked.get(LIMIT), asked.get(CURSOR)))


async def one(asked: Asked) -> web.Response:
    """Answer `GET /incidents/{id}`."""
    return document_response(_found(asked, await asked.control.incident(asked.get(INCIDENT)), "incident"))


async def evidence(asked: Asked) -> web.Response:
    """Answer `GET /incidents/{id}/evidence`."""
    frozen = await asked.control.evidence(asked.get(INCIDENT))
    return document_response(_found(asked, frozen, "evidence of incident"))


async def postmortem(asked: Asked) -> web.Response:
    """Answer `GET /incidents/{id}/postmortem`, in Markdown."""
    text = _found(asked, await asked.control.postmortem(asked.get(INCIDENT)), "incident")
    return web.Response(text=text, content_type=MARKDOWN)


async def report(asked: Asked) -> web.Response:
    """Answer `GET /incidents/{id}/postmortem.html`: one page without scripts, whose own styles a browser may use."""
    text = _found(asked, await asked.control.report(asked.get(INCIDENT)), "incident")
    allowed = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    return web.Response(text=text, content_type=HTML, headers={"Content-Security-Policy": allowed})


async def acknowledge(asked: Asked) -> web.Response:
    """Answer `POST /incidents/{id}/acknowledge`."""
    return await asked.do(Acknowledge(asked.get(INCIDENT), asked.token.name))


async def confirm(asked: Asked) -> web.Response:
    """Answer `POST /incidents/{id}/confirm`."""
    return await asked.do(Confirm(asked.get(INCIDENT), asked.token.name))


async def release(asked: Asked) -> web.Response:
    """Answer `POST /incidents/{id}/release`."""
    body = asked.body(ReleaseBody)
    verdict = ReleaseVerdict(body.verdict)
    return await asked.do(Release(asked.get(INCIDENT), asked.token.name, verdict, body.reason or ""))


async def note(asked: Asked) -> web.Response:
    """Answer `POST /incidents/{id}/notes`."""
    return await asked.do(Note(asked.get(INCIDENT), asked.token.name, asked.body(NoteBody).text))


async def tick(asked: Asked) -> web.Response:
    """Answer `POST /incidents/{id}/checklist`."""
    body = asked.body(TickBody)
    return await asked.do(Tick(asked.get(INCIDENT), asked.token.name, body.step, body.done))


async def close(asked: Asked) -> web.Response:
    """Answer `POST /incidents/{id}/close`."""
    return await asked.do(Close(asked.get(INCIDENT), asked.token.name))
