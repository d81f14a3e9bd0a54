"""One call of the API, as data: what it is, who may do it, what it takes and answers; and how a request becomes it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from aiohttp import web

from sidecar.admin import auth
from sidecar.admin.errors import Problem
from sidecar.admin.models import B, Body, parse
from sidecar.admin.once import Once
from sidecar.admin.parameters import IDEMPOTENCY_KEY, Parameter, read_all
from sidecar.config.policies import Token
from sidecar.controller.commands import Asking, Done, Rejected, RejectedKind
from sidecar.controller.ports import Control, Document, Page

T = TypeVar("T")

JSON: Final = "application/json"
HTML: Final = "text/html"
MARKDOWN: Final = "text/markdown"
YAML: Final = "application/yaml"
EVENTS: Final = "text/event-stream"
LINES: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that passed every check: what a handler works with."""

    control: Control
    token: Token
    request: web.Request
    values: Mapping[Parameter[Any], Any]
    content: Body | str | None

    def get(self, parameter: Parameter[T]) -> T:
        """Return the value of a parameter that this call declares."""
        value: T = self.values[parameter]
        return value

    def body(self, model: type[B]) -> B:
        """Return the JSON body, which the call declares as *model*."""
        assert isinstance(self.content, model)
        return self.content

    @property
    def text(self) -> str:
        """Return the YAML body."""
        assert isinstance(self.content, str)
        return self.content

    async def do(self, command: Asking) -> web.Response:
        """Give *command* to the engine; 200 with the changed thing, or 404, 409, 422 with the reason why not."""
        match await self.control.command(command):
            case Done(document):
                return document_response(document)
            case Rejected(kind, problem, hint):
                raise Problem(_REJECTED[kind], problem, hint)


_REJECTED: Final = {RejectedKind.NOT_FOUND: 404, RejectedKind.CONFLICT: 409, RejectedKind.INVALID: 422}


@dataclass(frozen=True, slots=True)
class Call:
    """
    One row of the API's table.

    Attributes:
        path: Below `/api/v1`, with `{name}` for path parameters.
        role: The lowest role that may do it.
        takes: The model of its JSON body, `YAML`, or None.
        schema: Name of the answer's schema in `schemas.py`; empty for text.
        media: Media type of the 200.
        errors: Statuses beyond those that every call, or every call with a body, can have.
        etag: The 200 carries an ETag.
        secret: The 200 holds a secret, which is stored nowhere.
    """

    method: str
    path: str
    role: auth.Role
    handle: Callable[[Asked], Awaitable[web.StreamResponse]]
    summary: str
    schema: str = ""
    parameters: tuple[Parameter[Any], ...] = ()
    takes: type[Body] | str | None = None
    media: str = JSON
    errors: tuple[int, ...] = field(default=())
    etag: bool = False
    secret: bool = False

    @property
    def changes(self) -> bool:
        """Tell whether it changes anything."""
        return self.method != "GET"

    @property
    def declared(self) -> tuple[Parameter[Any], ...]:
        """Return its own parameters, and those of every change."""
        return (*self.parameters, IDEMPOTENCY_KEY) if self.changes else self.parameters

    def handler(self, control: Control, once: Once) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the aiohttp handler: role, parameters, body, then the handler proper; once for each Idempotency-Key."""

        async def run(request: web.Request) -> web.StreamResponse:
            token = request[auth.TOKEN]
            auth.require(token, self.role)
            values = read_all(self.declared, request)
            asked = Asked(control, token, request, values, await self._content(request))
            if not self.changes:
                return await self.handle(asked)
            key = values.get(IDEMPOTENCY_KEY)
            if key is None:
                response = await self.handle(asked)
            else:
                response = await once.do(request, token, key, lambda: self.handle(asked), secret=self.secret)
            await control.stored()
            return response

        return run

    async def _content(self, request: web.Request) -> Body | str | None:
        if self.takes is None:
            return None
        data = await request.read()
        wanted = YAML if isinstance(self.takes, str) else JSON
        if (data or wanted == YAML) and request.content_type != wanted:
            got = request.headers.get("Content-Type", "no Content-Type")
            raise Problem(415, f"the body came as {got[:80]!r}", f"send it with Content-Type: {wanted}")
        if not isinstance(self.takes, str):
            return parse(self.takes, data)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Problem(400, f"the body is no UTF-8: byte {error.start}", "save the file as UTF-8") from error


def document_response(document: Document, **headers: str) -> web.Response:
    """Return a 200 with a JSON document."""
    return web.Response(text=json.dumps(document, ensure_ascii=False), content_type=JSON, headers=headers)


def list_response(items: Sequence[Document]) -> web.Response:
    """Return a 200 with a whole list."""
    return document_response({"items": list(items), "next": None})


def page_response(page: Page) -> web.Response:
    """Return a 200 with one page of a list."""
    return document_response({"items": list(page.items), "next": page.next})


def found(document: T | None, what: str, hint: str) -> T:
    """
    Return *document*.

    Raises:
        Problem: 404 when there is none.
    """
    if document is None:
        raise Problem(404, f"there is no {what}", hint)
    return document
