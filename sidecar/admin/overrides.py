"""Overrides: a person's decision about a scope, for a time, with a reason."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from sidecar.admin.actions import parse_action
from sidecar.admin.calls import Asked, document_response, found, list_response
from sidecar.admin.errors import Problem, fault
from sidecar.admin.models import OverrideBody
from sidecar.admin.parameters import SCOPE
from sidecar.config.units import parse_duration
from sidecar.controller.commands import ClearOverride, SetOverride
from sidecar.facts import Scope, ScopeKind

HASHED: Final = "-"  # the KEY that stands for "hash header_value for me", so that no secret enters a URL


async def listed(asked: Asked) -> web.Response:
    """Answer `GET /overrides`."""
    return list_response(asked.control.overrides())


async def one(asked: Asked) -> web.Response:
    """Answer `GET /overrides/{scope}`."""
    scope = str(asked.get(SCOPE))
    row = next((row for row in asked.control.overrides() if row["scope"] == scope), None)
    return document_response(found(row, f"override on {scope}", "`sidecar override list` shows those in force"))


async def put(asked: Asked) -> web.Response:
    """Answer `PUT /overrides/{scope}`."""
    body = asked.body(OverrideBody)
    wanted = parse_action(body.action)
    return await asked.do(
        SetOverride(
            scope=_target(asked, body.header_value),
            action=wanted.action,
            ttl_s=parse_duration(body.ttl),
            reason=body.reason,
            author=asked.token.name,
            rate_per_s=wanted.rate_per_s,
            share_ratio=wanted.share_ratio,
        )
    )


async def delete(asked: Asked) -> web.Response:
    """Answer `DELETE /overrides/{scope}`."""
    return await asked.do(ClearOverride(asked.get(SCOPE), asked.token.name))


def _target(asked: Asked, header_value: str | None) -> Scope:
    scope = asked.get(SCOPE)
    placeholder = scope.kind is ScopeKind.CLIENT and scope.key == HASHED
    if placeholder and header_value is not None:
        return Scope.client(scope.name, asked.control.client_key(header_value))
    if placeholder == (header_value is not None):
        return scope
    problem = "the scope asks for a hashed key" if placeholder else "header_value does not belong to this scope"
    hint = "send header_value with the scope client:ROUTE:-, and only with it"
    raise Problem(422, problem, hint, errors=[fault("header_value", problem, hint)])
