"""
`Idempotency-Key`: a call that is repeated with its key does nothing, and is answered as the first one was.

Tables (of one token; another token's keys are its own)

    key         call          the first one is    answer
    new         –             –                   it is carried out, and its answer kept
    known       the same      answered            the same answer, with `Idempotency-Replayed: true`
    known       the same      under way           409, ask again in a second
    known       another       –                   422
    (the same: method, path, query, If-Match and body, byte for byte)

What can go wrong
    The call failed because of us (5xx): nothing is kept, and the next one is carried out. A call that was not understood
    (400, 401, 403, 413, 415, 422 of its body) was not carried out either, and keeps nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from sidecar.admin.errors import Problem, problem_of
from sidecar.config.policies import Token
from sidecar.controller.ports import Document, KeptAnswers

REPLAYED: Final = "Idempotency-Replayed"
_KEPT_HEADERS: Final = ("ETag", "Retry-After")


class Once:
    """Carries calls with a key out once."""

    def __init__(self, answers: KeptAnswers) -> None:
        self._answers = answers
        self._under_way: set[str] = set()

    def __repr__(self) -> str:
        return f"<Once {len(self._under_way)} under way>"

    async def do(
        self,
        request: web.Request,
        token: Token,
        key: str,
        run: Callable[[], Awaitable[web.StreamResponse]],
        *,
        secret: bool,
    ) -> web.StreamResponse:
        """
        Answer *request* with what *run* makes of it, or with what it made of it before.

        Args:
            key: As the client sent it.
            run: Carries the call out.
            secret: The answer may not be stored.

        Raises:
            Problem: 409 while the first one is under way, 422 when the key belongs to another call.
        """
        name = _digest(token.sha256.encode(), key.encode())
        fingerprint = await _fingerprint(request)
        known = self._answers.find(name)
        if known is not None:
            return _again(known, fingerprint)
        if name in self._under_way:
            hint = "ask again in a second, with the same key"
            raise Problem(
                409, "the first call with this Idempotency-Key is under way", hint, headers={"Retry-After": "1"}
            )
        self._under_way.add(name)
        try:
            response = await _carried_out(request, run)
            if response.status < 500 and isinstance(response, web.Response):
                await self._answers.keep(name, _document(response, fingerprint), secret=secret)
        finally:
            self._under_way.discard(name)
        return response


async def _carried_out(request: web.Request, run: Callable[[], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    try:
        return await run()
    except Exception as error:
        return problem_of(error, request).response()


def _again(known: Document, fingerprint: str) -> web.Response:
    if known["fingerprint"] != fingerprint:
        raise Problem(422, "this Idempotency-Key belongs to another call", "take a new key for each call")
    headers = {**known["headers"], REPLAYED: "true"}
    return web.Response(status=known["status"], text=known["body"], content_type=known["media"], headers=headers)


def _document(response: web.Response, fingerprint: str) -> Document:
    return {
        "fingerprint": fingerprint,
        "status": response.status,
        "media": response.content_type,
        "headers": {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers},
        "body": response.text or "",
    }


async def _fingerprint(request: web.Request) -> str:
    condition = request.headers.get("If-Match", "").encode("utf-8", "surrogateescape")
    target = f"{request.method} {request.path_qs}".encode("utf-8", "surrogateescape")
    return _digest(target, condition, await request.read())


def _digest(*parts: bytes) -> str:
    made = hashlib.sha256()
    for part in parts:
        made.update(b"%d:" % len(part) + part)
    return made.hexdigest()
