"""The tape that is always recorded: what is remembered, and what happens from now on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from sidecar.admin.calls import LINES, Asked
from sidecar.admin.parameters import FOR, PAST
from sidecar.admin.stream import STREAMS, Streams


async def serve(asked: Asked) -> web.StreamResponse:
    """Answer `GET /tape`; each second is sent as it happens."""
    streams = asked.request.app[STREAMS]
    response = web.StreamResponse(headers={"Content-Type": LINES, "X-Accel-Buffering": "no"})
    source = asked.control.tapes.lines(asked.get(PAST), asked.get(FOR))
    with streams.place():
        await response.prepare(asked.request)
        try:
            await _serve(source, response, streams)
        except (ConnectionError, TimeoutError):
            if asked.request.transport is not None:  # a clean end would say that there is nothing more
                asked.request.transport.abort()
    return response


async def _serve(source: AsyncIterator[str], response: web.StreamResponse, streams: Streams) -> None:
    stop: asyncio.Future[Any] = asyncio.ensure_future(streams.closing.wait())
    following: asyncio.Future[str | None] = _next(source)
    try:
        while True:
            done, _ = await asyncio.wait({stop, following}, return_when=asyncio.FIRST_COMPLETED)
            text = following.result() if following in done else None
            if text is None:
                return
            if text:
                await streams.write(response, text.encode())
            following = _next(source)
    finally:
        stop.cancel()
        following.cancel()
        await asyncio.gather(stop, following, return_exceptions=True)
        with contextlib.suppress(RuntimeError):
            await source.aclose()  # type: ignore[attr-defined]  # every source is a generator


def _next(source: AsyncIterator[str]) -> asyncio.Future[str | None]:
    async def take() -> str | None:
        return await anext(source, None)

    return asyncio.ensure_future(take())
