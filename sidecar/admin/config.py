"""The configuration: read, apply, confirm, compare, roll back."""

from __future__ import annotations

from aiohttp import web

from sidecar.admin import parameters
from sidecar.admin.calls import Asked, document_response, found, page_response
from sidecar.admin.models import RollbackBody


def etag(version: object) -> str:
    """Return the ETag of a version: `"v7"`."""
    return f'"v{version}"'


async def show(asked: Asked) -> web.Response:
    """Answer `GET /config`."""
    document = asked.control.config()
    return document_response(document, ETag=etag(document["version"]))


async def apply(asked: Asked) -> web.Response:
    """Answer `PUT /config`."""
    document = await asked.control.apply(
        asked.text,
        author=asked.token.name,
        reason=asked.get(parameters.REASON),
        if_match=asked.get(parameters.IF_MATCH),
        dry_run=asked.get(parameters.DRY_RUN),
        confirm_within_s=asked.get(parameters.CONFIRM_WITHIN),
    )
    return document_response(document, ETag=etag(asked.control.config()["version"]))


async def confirm(asked: Asked) -> web.Response:
    """Answer `POST /config/confirm`."""
    return document_response(await asked.control.confirm(asked.token.name))


async def versions(asked: Asked) -> web.Response:
    """Answer `GET /config/versions`."""
    return page_response(await asked.control.versions(asked.get(parameters.LIMIT), asked.get(parameters.CURSOR)))


async def version(asked: Asked) -> web.Response:
    """Answer `GET /config/versions/{version}`."""
    number = asked.get(parameters.VERSION)
    row = await asked.control.version(number)
    return document_response(found(row, f"config version {number}", "`sidecar config history` lists the versions"))


async def diff(asked: Asked) -> web.Response:
    """Answer `GET /config/diff`."""
    older, newer = asked.get(parameters.FROM), asked.get(parameters.TO)
    return document_response(await asked.control.diff(older, newer, asked.get(parameters.REPLAY)))


async def rollback(asked: Asked) -> web.Response:
    """Answer `POST /config/rollback`."""
    body = asked.body(RollbackBody)
    document = await asked.control.rollback(body.to, author=asked.token.name, reason=body.reason)
    return document_response(document, ETag=etag(asked.control.config()["version"]))
