"""
How the admin API says no: `application/problem+json` (RFC 9457) for every answer of 400 and above.

Each problem says what is wrong (`detail`), what to do about it (`hint`) and, for input with several faults, every
fault at once (`errors`, rows of {path, line, column, problem, hint}).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.controller.ports import ConfigRefused, Unavailable

PROBLEM: Final = "application/problem+json"
__all__ = ["PROBLEM", "Handler", "Middleware", "Problem", "fault", "problem_of", "problems"]
_log = structlog.get_logger("admin")


class Problem(Exception):  # noqa: N818  RFC 9457 calls it a problem
    """An answer of 400 or above, raised anywhere behind the middleware."""

    def __init__(
        self,
        status: int,
        detail: str,
        hint: str = "",
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.errors = errors
        self.headers = headers or {}

    def response(self) -> web.Response:
        """Return the answer."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.hint:
            body["hint"] = self.hint
        if self.errors:
            body["errors"] = [dict(row) for row in self.errors]
        text = json.dumps(body, ensure_ascii=False)
        return web.Response(status=self.status, text=text, content_type=PROBLEM, headers=self.headers)


def fault(path: str, problem: str, hint: str = "", *, line: int = 0, column: int = 0) -> dict[str, Any]:
    """Return one row of `errors`; line and column are 0 where the input has none."""
    return {"path": path, "line": line, "column": column, "problem": problem, "hint": hint}


def _of_aiohttp(error: web.HTTPException, request: web.Request) -> Problem:
    where = f"{request.method} {request.path}"
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return Problem(405, f"{where} is not offered", f"use {allowed}", headers={"Allow": allowed})
        case web.HTTPNotFound():
            return Problem(404, f"there is no {request.path}", "GET /api/v1/openapi.json lists every call")
        case web.HTTPRequestEntityTooLarge():
            limit = request.client_max_size
            return Problem(413, f"the body is larger than {limit} bytes", "send a smaller one")
        case _:
            return Problem(error.status, error.text or error.reason or where)


def problem_of(error: Exception, request: web.Request) -> Problem:
    """Return what is answered when a handler raised *error*; one of ours is logged."""
    match error:
        case Problem():
            return error
        case ConfigRefused():
            return Problem(error.status, error.problem, error.hint, errors=error.errors)
        case Unavailable():
            return Problem(503, error.problem, error.hint, headers={"Retry-After": "5"})
        case web.HTTPException():
            return _of_aiohttp(error, request)
        case _:
            _log.error("admin call failed", method=request.method, path=request.path, exc_info=error)
            return Problem(500, "the sidecar failed on this call", "its log has the details; please report them")


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever is raised behind it into a problem; redirects and cancellations pass."""
    try:
        return await handler(request)
    except Exception as error:
        return problem_of(error, request).response()
