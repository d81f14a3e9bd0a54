"""
Real traffic for the demo: clients with a steady pace, and what each of them got.

It runs in a thread of its own with its own event loop, so that the story can be told line by line. Every answer is
counted under its second; the story asks for shares over the seconds that it watched.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from aiohttp import web

from sidecar import clock

NO_ANSWER: Final = 0  # the status of a request that got none


@dataclass(frozen=True, slots=True)
class Client:
    """One client: its key, and what it asks for each second, as (method, path, requests per second)."""

    key: str
    mix: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True, slots=True)
class Got:
    """One answer that a client got, and when (monotonic seconds)."""

    at: float
    client: str
    path: str
    status: int


@dataclass(slots=True)
class Tally:
    """What some clients got over some time."""

    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Count the answers."""
        return self.statuses.total()

    @property
    def good_ratio(self) -> float:
        """Return the share of answers below 400; 0 without answers."""
        return sum(n for status, n in self.statuses.items() if 0 < status < 400) / self.total if self.total else 0.0

    @property
    def refused_ratio(self) -> float:
        """Return the share of 429 and 503; 0 without answers."""
        return (self.statuses[429] + self.statuses[503]) / self.total if self.total else 0.0

    def __str__(self) -> str:
        rows = ", ".join(f"{status or 'no answer'}: {n}" for status, n in sorted(self.statuses.items()))
        return f"{self.total} answers ({rows})"


class Traffic:
    """
    Sends the clients' requests to *base* until stopped, and receives the webhook's alerts on loopback.

    Args:
        base: The sidecar's `http://HOST:PORT`.
        clients: Who asks for what.
        secret: The webhook's HMAC key.
    """

    def __init__(self, base: str, clients: Sequence[Client], secret: bytes) -> None:
        self._base = base
        self._clients = list(clients)
        self._secret = secret
        self._got: deque[Got] = deque(maxlen=100_000)
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._started = threading.Event()
        self.alerts: list[Mapping[str, Any]] = []
        self.forged = 0
        self.webhook_port = 0

    def __repr__(self) -> str:
        return f"<Traffic of {len(self._clients)} clients, {len(self._got)} answers>"

    def listen(self) -> int:
        """Start the webhook's receiver and return its port; traffic starts with `start`."""
        self._thread.start()
        self._started.wait()
        return self.webhook_port

    def start(self) -> None:
        """Let every client begin."""
        self._loop.call_soon_threadsafe(self._begin)

    def stop(self) -> None:
        """End the clients and the receiver."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10)

    def tally(self, since: float, *, clients: Sequence[str] | None = None, path: str = "", until: float = 0.0) -> Tally:
        """
        Count what was got.

        Args:
            since, until: Monotonic seconds; without *until*, up to now.
            clients: Only theirs; None for all.
            path: Only paths that begin so.
        """
        made = Tally()
        for got in list(self._got):
            wanted = clients is None or got.client in clients
            if since <= got.at and (not until or got.at < until) and wanted and got.path.startswith(path):
                made.statuses[got.status] += 1
        return made

    # --- below: in the traffic's own thread ------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_post("/alerts", self._alert)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.webhook_port = runner.addresses[0][1]
        self._tasks: list[asyncio.Task[None]] = []
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
        self._started.set()
        await self._stop.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()
        await runner.cleanup()

    def _begin(self) -> None:
        for client in self._clients:
            for method, path, rate in client.mix:
                self._tasks.append(self._loop.create_task(self._pace(client.key, method, path, 1.0 / rate)))

    async def _pace(self, key: str, method: str, path: str, gap_s: float) -> None:
        """Send one request each *gap_s*, whether or not the one before has ended: clients do not wait in line."""
        pending: set[asyncio.Task[None]] = set()
        due = self._loop.time()
        try:
            while True:
                task = self._loop.create_task(self._ask(key, method, path))
                pending.add(task)
                task.add_done_callback(pending.discard)
                due += gap_s
                await asyncio.sleep(max(0.0, due - self._loop.time()))
        finally:
            for task in list(pending):
                task.cancel()

    async def _ask(self, key: str, method: str, path: str) -> None:
        body = b'{"items": [{"product": 7, "quantity": 1}]}' if method == "POST" else None
        headers = {"x-api-key": key} | ({"content-type": "application/json"} if body else {})
        try:
            async with self._session.request(method, self._base + path, data=body, headers=headers) as answer:
                await answer.read()
                status = answer.status
        except (TimeoutError, aiohttp.ClientError):
            status = NO_ANSWER
        self._got.append(Got(clock.now(), key, path, status))

    async def _alert(self, request: web.Request) -> web.Response:
        body = await request.read()
        stamp = request.headers.get("X-Sidecar-Timestamp", "")
        expected = hmac.new(self._secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(request.headers.get("X-Sidecar-Signature", ""), f"sha256={expected}"):
            self.forged += 1
            return web.Response(status=401)
        self.alerts.append(json.loads(body) | {"received_at": clock.now()})
        return web.Response(status=204)
