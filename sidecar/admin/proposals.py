"""Proposals: what incidents taught, for a person to apply or to dismiss."""

from __future__ import annotations

from aiohttp import web

from sidecar.admin.calls import Asked, document_response, found, list_response
from sidecar.admin.models import ApplyBody, DismissBody
from sidecar.admin.parameters import PROPOSAL, PROPOSAL_STATE
from sidecar.config.units import parse_duration


async def listed(asked: Asked) -> web.Response:
    """Answer `GET /proposals`."""
    return list_response(asked.control.learning.proposals(asked.get(PROPOSAL_STATE)))


async def one(asked: Asked) -> web.Response:
    """Answer `GET /proposals/{id}`."""
    number = asked.get(PROPOSAL)
    row = asked.control.learning.proposal(number)
    return document_response(found(row, f"proposal {number}", "`sidecar proposal list` shows them"))


async def apply(asked: Asked) -> web.Response:
    """Answer `POST /proposals/{id}/apply`."""
    within = asked.body(ApplyBody).confirm_within
    within_s = parse_duration(within) if within is not None else None
    return document_response(await asked.control.learning.apply(asked.get(PROPOSAL), asked.token.name, within_s))


async def dismiss(asked: Asked) -> web.Response:
    """Answer `POST /proposals/{id}/dismiss`."""
    reason = asked.body(DismissBody).reason or ""
    return document_response(asked.control.learning.dismiss(asked.get(PROPOSAL), asked.token.name, reason))
