"""The real admin application over the in-memory control, on a real port, in a thread of its own: for the blocking CLI."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime
from email.utils import format_datetime

from aiohttp import web

from sidecar.admin.app import create_app
from sidecar.controller.ports import Control
from tests.support import documents as d
from tests.support.control import MemoryControl
from tests.support.patience import WAIT_S

NOW_HEADER = format_datetime(datetime.fromisoformat(d.NOW), usegmt=True)


async def _fix_date(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Date"] = NOW_HEADER


async def _serve(control: Control, started: threading.Event, said: list[object]) -> None:
    app = create_app(control)
    app.on_response_prepare.append(_fix_date)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stop = asyncio.Event()
    said += [runner.addresses[0][1], asyncio.get_running_loop(), stop]
    started.set()
    await stop.wait()
    await runner.cleanup()


@contextlib.contextmanager
def admin_server(control: Control | None = None) -> Iterator[str]:
    """Serve until the block ends; yields `http://127.0.0.1:PORT`. Every answer's Date is `documents.NOW`."""
    started, said = threading.Event(), []
    thread = threading.Thread(target=lambda: asyncio.run(_serve(control or MemoryControl(), started, said)))
    thread.start()
    assert started.wait(WAIT_S)
    port, loop, stop = said
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(WAIT_S)
