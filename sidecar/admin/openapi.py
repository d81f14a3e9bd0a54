"""The OpenAPI 3.1 document, made from the table of calls: what is documented is what is enforced."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from sidecar import __version__
from sidecar.admin import schemas
from sidecar.admin.calls import JSON, YAML, Asked, Call
from sidecar.admin.errors import PROBLEM
from sidecar.admin.models import Body

PREFIX: Final = "/api/v1"
DOCUMENT: Final = web.AppKey("openapi", str)

ALWAYS: Final = (400, 401, 403, 421, 429)
WITH_BODY: Final = (413, 415, 422)
OF_CHANGES: Final = (409, 422)  # an Idempotency-Key that is under way, or belongs to another call

_WHY: Final[Mapping[int, str]] = {
    400: "A malformed or unknown parameter, or a body that is no JSON; as plain text when it was no HTTP at all.",
    401: "No valid bearer token.",
    403: "The token's role is too low, or the request comes from a foreign web page.",
    404: "No such thing.",
    409: "Not in its present state; or the first call with this Idempotency-Key is under way.",
    412: "`If-Match` is not the active version.",
    413: "The body is too large.",
    415: "The body has the wrong Content-Type.",
    421: "The Host is none of this sidecar's names.",
    422: "The body does not fit, `errors` names every fault; or the Idempotency-Key belongs to another call.",
    428: "`If-Match` is missing.",
    429: "Too many wrong tokens.",
    503: "The store, or another part that this needs, is not available.",
}


async def serve(asked: Asked) -> web.Response:
    """Answer `GET /openapi.json`."""
    return web.Response(text=asked.request.app[DOCUMENT], content_type=JSON)


def document(calls: Iterable[Call]) -> dict[str, Any]:
    """Return the OpenAPI document of *calls*."""
    components = copy.deepcopy(dict(schemas.COMPONENTS))
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(PREFIX + call.path, {})[call.method.lower()] = _operation(call, components)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "sidecar admin API",
            "version": __version__,
            "summary": "See what the sidecar does, and tell it what to do.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": components,
        },
    }


def text(calls: Iterable[Call]) -> str:
    """Return the document as JSON."""
    return json.dumps(document(calls), ensure_ascii=False)


def operation_id(call: Call) -> str:
    """Return a stable name for generated clients, as `post_incidents_id_confirm`."""
    words = "".join(letter if letter.isalnum() else " " for letter in call.path).split()
    return "_".join([call.method.lower(), *words])


def _operation(call: Call, components: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation_id(call),
        "summary": call.summary,
        "description": f"Needs the role {call.role.name.lower()}.",
        "tags": [call.path.split("/")[1]],
        "parameters": [parameter.document() for parameter in call.declared],
        "responses": {"200": _success(call)} | {str(status): _problem(status) for status in statuses(call)},
    }
    if call.takes is not None:
        made["requestBody"] = _body(call.takes, components)
    return made


def statuses(call: Call) -> list[int]:
    """Return every status of 400 and above that *call* can answer."""
    with_body = WITH_BODY if call.takes is not None else ()
    return sorted({*ALWAYS, *with_body, *(OF_CHANGES if call.changes else ()), *call.errors})


def _success(call: Call) -> dict[str, Any]:
    schema = schemas.ref(call.schema) if call.schema else schemas.TEXT
    made: dict[str, Any] = {"description": call.summary, "content": {call.media: {"schema": schema}}}
    if call.etag:
        made["headers"] = {
            "ETag": {"description": "The active version.", "schema": {"type": "string", "pattern": r'^"v[0-9]+"$'}}
        }
    return made


def _problem(status: int) -> dict[str, Any]:
    made: dict[str, Any] = {"description": _WHY[status], "content": {PROBLEM: {"schema": schemas.ref("Problem")}}}
    if status == HTTPStatus.BAD_REQUEST:
        made["content"]["text/plain"] = {"schema": schemas.TEXT}  # from the HTTP parser, before there is a request
    if status == HTTPStatus.UNAUTHORIZED:
        made["headers"] = {"WWW-Authenticate": {"schema": schemas.TEXT}}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        made["headers"] = {"Retry-After": {"schema": schemas.TEXT}}
    return made


def _body(takes: type[Body] | str, components: dict[str, Any]) -> dict[str, Any]:
    if isinstance(takes, str):
        return {"required": True, "content": {YAML: {"schema": {"type": "string"}}}}
    components[takes.__name__] = takes.model_json_schema()
    needed = any(field.is_required() for field in takes.model_fields.values())  # no body at all stands for `{}`
    return {"required": needed, "content": {JSON: {"schema": schemas.ref(takes.__name__)}}}
