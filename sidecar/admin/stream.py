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
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from aiohttp import web

from sidecar.admin.calls import EVENTS, Asked
from sidecar.admin.errors import Problem
from sidecar.admin.parameters import LAST_EVENT
from sidecar.controller.ports import Document

HEARTBEAT_S: Final = 15.0
WRITE_S: Final = 10.0
MAX_STREAMS: Final = 64


class Streams:
    """
    The open streams of one application: how many, how patient, and how they end.

    Args:
        heartbeat_s: Longest silence.
        write_s: Longest that one write may take.
        most: How many may be open.
    """

    def __init__(self, *, heartbeat_s: float = HEARTBEAT_S, write_s: float = WRITE_S, most: int = MAX_STREAMS) -> None:
        self.heartbeat_s = heartbeat_s
        self.write_s = write_s
        self.closing = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self._most = most
        self._count = 0

    def __repr__(self) -> str:
        return f"<Streams {self._count} open{', closing' if self.closing.is_set() else ''}>"

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """
        Hold a place for one stream.

        Raises:
            Problem: 503 when there is none.
        """
        if self._count >= self._most or self.closing.is_set():
            raise Problem(503, f"{self._count} event streams are open", "close one", headers={"Retry-After": "5"})
        self._count += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self.idle.set()

    async def write(self, response: web.StreamResponse, data: bytes) -> None:
        """Write *data*; raise TimeoutError when the reader does not take it in time."""
        async with asyncio.timeout(self.write_s):
            await response.write(data)


STREAMS: Final = web.AppKey("streams", Streams)


async def events(asked: Asked) -> web.StreamResponse:
    """Answer `GET /events`."""
    return await serve(asked, asked.control.events(asked.get(LAST_EVENT)), encode)


async def serve(
    asked: Asked, source: AsyncIterator[Document], written: Callable[[Document], bytes]
) -> web.StreamResponse:
    """Send what *source* yields, each as *written*, until it ends, the reader leaves, or we close."""
    streams = asked.request.app[STREAMS]
    response = web.StreamResponse(headers={"Content-Type": EVENTS, "X-Accel-Buffering": "no"})
    with streams.place():
        await response.prepare(asked.request)
        try:
            await _follow(asked, source, written, response)
        except (ConnectionError, TimeoutError):
            _abort(asked.request)
    return response


async def _follow(
    asked: Asked, source: AsyncIterator[Document], written: Callable[[Document], bytes], response: web.StreamResponse
) -> None:
    streams = asked.request.app[STREAMS]
    stop: asyncio.Future[Any] = asyncio.ensure_future(streams.closing.wait())
    following: asyncio.Future[Any] = _next(source)
    try:
        await streams.write(response, b"retry: 2000\n\n")
        while asked.token in asked.control.tokens():
            done, _ = await asyncio.wait(
                {stop, following}, timeout=streams.heartbeat_s, return_when=asyncio.FIRST_COMPLETED
            )
            if stop in done:
                return
            if following not in done:
                await streams.write(response, b": still here\n\n")
                continue
            event = following.result()
            if event is None:
                return
            await streams.write(response, written(event))
            following = _next(source)
    finally:
        stop.cancel()
        following.cancel()
        await asyncio.gather(stop, following, return_exceptions=True)
        with contextlib.suppress(RuntimeError):
            await source.aclose()  # type: ignore[attr-defined]  # every source is a generator


def _next(source: AsyncIterator[Document]) -> asyncio.Future[Document | None]:
    async def take() -> Document | None:
        return await anext(source, None)

    return asyncio.ensure_future(take())


def _abort(request: web.Request) -> None:
    # A clean end would say that there is nothing more; the reader must see that it was cut off, and come back.
    if request.transport is not None:
        request.transport.abort()


def encode(event: Document) -> bytes:
    """Return one event as it goes on the wire."""
    data = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"id: {event['sequence']}\nevent: {event['kind']}\ndata: {data}\n\n".encode()
