"""
Who asks, and what they may do.

Theory
    A bearer token is known by its SHA-256 only; the digest of what was sent is compared with every configured one in
    constant time. Guessing is braked, and the brake must not lock out the operator of 3 a.m. because a forgotten
    script shares the address. So a token is judged once and the judgement remembered: known good passes, known wrong
    is refused at no cost, and only *unknown* ones need room in the brake of their peer. A script that repeats one
    wrong token for ever charges the brake once; a guesser, whose every try is new, gets `TRIES` a minute.

Table
    token            brake has room   answer
    missing          –                401
    known good       –                passes
    known wrong      –                401
    unknown, right   yes              passes, known from now on
    unknown, wrong   yes              401, charged, known from now on
    unknown          no               429, not even looked at

What can go wrong
    Many peers or many tokens: both tables are bounded and forget the oldest; a forgotten good token is merely judged
    anew. A revoked token: a known good digest is still compared with the tokens of this moment.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final

from aiohttp import web
from aiolimiter import AsyncLimiter

from sidecar.admin.errors import Handler, Middleware, Problem
from sidecar.config.policies import Token

TRIES: Final = 10
TRIES_PER_S: Final = 60.0
MAX_PEERS: Final = 1024
MAX_JUDGED: Final = 1024
TOKEN: Final = web.RequestKey("token", Token)


class Role(IntEnum):
    """What a token may do; a higher one may also do what the lower ones may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @classmethod
    def named(cls, name: str) -> Role:
        """Return the role of a configured name; an unknown name may only read."""
        return cls.__members__.get(name.upper(), cls.VIEWER)


class Gate:
    """
    Judges bearer tokens.

    Args:
        tokens: Returns the tokens that are valid at this moment.
    """

    def __init__(self, tokens: Callable[[], Sequence[Token]]) -> None:
        self._tokens = tokens
        self._judged: OrderedDict[str, bool] = OrderedDict()
        self._brakes: OrderedDict[str, AsyncLimiter] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Gate {len(self._judged)} tokens judged, {len(self._brakes)} peers braked>"

    async def judge(self, authorization: str | None, peer: str) -> Token:
        """
        Return the token of a request.

        Raises:
            Problem: 401 without a valid one, 429 when the peer sent too many wrong ones.
        """
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise _unauthorized("this call needs a bearer token")
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
        known = self._judged.get(digest)
        brake = self._brake(peer)
        if known is None and not brake.has_capacity():
            wait_s = math.ceil(TRIES_PER_S / TRIES)
            raise Problem(
                429,
                "too many wrong tokens from this address",
                f"correct the token, then try again in {wait_s} s",
                headers={"Retry-After": str(wait_s)},
            )
        token = self._find(digest)
        if token is None and known is None:
            await brake.acquire()
        self._remember(digest, good=token is not None)
        if token is None:
            raise _unauthorized("the token is not valid")
        return token

    def _find(self, digest: str) -> Token | None:
        found = None
        for token in self._tokens():
            if hmac.compare_digest(token.sha256.lower().encode(), digest.encode()):
                found = token
        return found

    def _remember(self, digest: str, *, good: bool) -> None:
        self._judged[digest] = good
        self._judged.move_to_end(digest)
        if len(self._judged) > MAX_JUDGED:
            self._judged.popitem(last=False)

    def _brake(self, peer: str) -> AsyncLimiter:
        brake = self._brakes.get(peer)
        if brake is None:
            brake = self._brakes[peer] = AsyncLimiter(TRIES, TRIES_PER_S)
        self._brakes.move_to_end(peer)
        if len(self._brakes) > MAX_PEERS:
            self._brakes.popitem(last=False)
        return brake


def _unauthorized(detail: str) -> Problem:
    return Problem(
        401,
        detail,
        "send Authorization: Bearer TOKEN; the first token is in <state>/admin.token",
        headers={"WWW-Authenticate": 'Bearer realm="sidecar"'},
    )


def require(token: Token, role: Role) -> None:
    """
    Let only tokens of at least *role* pass.

    Raises:
        Problem: 403, which says the role that is needed.
    """
    if Role.named(token.role) < role:
        needed = role.name.lower()
        raise Problem(
            403, f"this needs the role {needed}; token '{token.name}' is {token.role}", f"use a token of role {needed}"
        )


def middleware(gate: Gate) -> Middleware:
    """Return the middleware that puts the judged token into `request[TOKEN]`."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[TOKEN] = await gate.judge(request.headers.get("Authorization"), request.remote or "unix")
        return await handler(request)

    return authenticate
