"""
Events as they happen, as server-sent events (HTML Standard, section 9.2).

Each event is `id: SEQUENCE`, `event: KIND` and one `data:` line of JSON. A client that comes back sends the last id as
`Last-Event-ID` and misses nothing. A comment every `HEARTBEAT_S` tells a quiet stream from a dead one.

What can go wrong
    A slow reader: what waits for it is bounded by the transport's buffer and by the control's own queue; a write that
    takes longer than `WRITE_S` drops it. Too many readers: 503. A shutdown: every stream ends cleanly. A token that is
    revoked: its streams end at the next event or heartbeat.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from sidecar.admin.calls import EVENTS, Asked
from sidecar.admin.errors import Problem
from sidecar.admin.parameters import LAST_EVENT
from sidecar.admin.ports import Document

HEARTBEAT_S: Final = 15.0
WRITE_S: Final = 10.0
MAX_STREAMS: Final = 64


class Streams:
    """The open streams of one application, so that they can be counted and ended."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.count = 0

    def __repr__(self) -> str:
        return f"<Streams {self.count} open{', closing' if self.closing.is_set() else ''}>"


STREAMS: Final = web.AppKey("streams", Streams)


async def events(asked: Asked) -> web.StreamResponse:
    """Answer `GET /events`."""
    streams = asked.request.app[STREAMS]
    if streams.count >= MAX_STREAMS or streams.closing.is_set():
        raise Problem(503, f"{streams.count} event streams are open", "close one", headers={"Retry-After": "5"})
    response = web.StreamResponse(headers={"Content-Type": EVENTS, "X-Accel-Buffering": "no"})
    streams.count += 1
    try:
        await response.prepare(asked.request)
        await _serve(asked, response, streams.closing)
    except (ConnectionError, TimeoutError):
        _abort(asked.request)
    finally:
        streams.count -= 1
    return response


async def _serve(asked: Asked, response: web.StreamResponse, closing: asyncio.Event) -> None:
    source = asked.control.events(asked.get(LAST_EVENT))
    stop: asyncio.Future[Any] = asyncio.ensure_future(closing.wait())
    following: asyncio.Future[Any] = _next(source)
    try:
        await _write(response, b"retry: 2000\n\n")
        while asked.token in asked.control.tokens():
            done, _ = await asyncio.wait({stop, following}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if stop in done:
                return
            if following not in done:
                await _write(response, b": still here\n\n")
                continue
            event = following.result()
            if event is None:
                return
            await _write(response, encode(event))
            following = _next(source)
    finally:
        stop.cancel()
        following.cancel()
        await asyncio.gather(stop, following, return_exceptions=True)


def _next(source: AsyncIterator[Document]) -> asyncio.Future[Document | None]:
    async def take() -> Document | None:
        return await anext(source, None)

    return asyncio.ensure_future(take())


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_S):
        await response.write(data)


def _abort(request: web.Request) -> None:
    # A clean end would say that there is nothing more; the reader must see that it was cut off, and come back.
    if request.transport is not None:
        request.transport.abort()


def encode(event: Document) -> bytes:
    """Return one event as it goes on the wire."""
    data = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"id: {event['sequence']}\nevent: {event['kind']}\ndata: {data}\n\n".encode()
