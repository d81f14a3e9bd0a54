"""
A steady load over real sockets that records every answer and every failure.

A request that a server closed a *reused* connection on, before one byte of its answer, is sent again once on a new one:
every HTTP client does so (RFC 9112, section 9.3.1), because nobody can know that an idle connection is about to close.
Such repeats are counted, and are no failures; anything else that is no complete answer is.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support.patience import WAIT_S


@dataclass(frozen=True)
class Shot:
    """One kind of request: `share` of all, by weight."""

    path: str = "/api/products/7"
    method: str = "GET"
    client: str = "web"
    body: bytes = b""
    share: float = 1.0

    @property
    def data(self) -> bytes:
        """The request as it goes over the wire."""
        length = f"Content-Length: {len(self.body)}\r\n" if self.body else ""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: shop.test\r\nx-api-key: {self.client}\r\n{length}\r\n"
        return head.encode() + self.body


@dataclass(frozen=True)
class Result:
    """
    How one request ended: a status, or 0 and what went wrong.

    Attributes:
        unheard: It was the first one on its connection, and not one byte of an answer came: nobody may have let it in.
    """

    at: float
    shot: Shot
    status: int
    problem: str = ""
    seconds: float = 0.0
    body: bytes = b""
    unheard: bool = False

    @property
    def served(self) -> bool:
        """Tell whether the API itself answered it well."""
        return 200 <= self.status < 400


class Cut(Exception):  # noqa: N818
    """The connection ended; `untouched` when not one byte of the answer had come."""

    def __init__(self, why: str, *, untouched: bool) -> None:
        super().__init__(why)
        self.untouched = untouched


class Connection:
    """One keep-alive connection, made when it is needed."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        self.address = address
        self._tls = tls
        self.used = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def open(self) -> bool:
        return self._reader is not None and not self._reader.at_eof()

    async def connect(self) -> None:
        self.close()
        self._reader, self._writer = await asyncio.open_connection(
            *self.address, ssl=self._tls, server_hostname="localhost" if self._tls else None
        )
        self.used = 0

    async def ask(self, data: bytes) -> tuple[int, bytes]:
        """Send *data* and return status and body of the answer."""
        assert self._reader is not None
        assert self._writer is not None
        self.used += 1
        came = b""
        try:
            self._writer.write(data)
            while b"\r\n\r\n" not in came:
                received = await self._reader.read(65536)
                if not received:
                    raise Cut("the connection ended before the answer", untouched=not came)
                came += received
            head, _, body = came.partition(b"\r\n\r\n")
            status, fields = _head(head)
            missing = int(fields.get("content-length", "0")) - len(body)
            if missing > 0:
                body += await self._reader.readexactly(missing)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise Cut(f"{type(error).__name__}: {error}", untouched=not came) from error
        if fields.get("connection", "").lower() == "close":
            self.close()
        return status, body

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def end(self) -> None:
        """Close, and wait until it is closed: TLS says its end first, and that needs the event loop."""
        writer = self._writer
        self.close()
        if writer is not None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await writer.wait_closed()


def _head(head: bytes) -> tuple[int, Mapping[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split(" ")[1]), fields


@dataclass
class Load:
    """
    So many requests a second in a thread of its own, from entering the block until leaving it.

    Attributes:
        results: Every request that ended.
        repeats: Requests that were sent again (see above).
        tls: Speak TLS, to `localhost`.
    """

    address: tuple[str, int]
    rate: float = 100.0
    shots: Sequence[Shot] = (Shot(),)
    connections: int = 12
    results: list[Result] = field(default_factory=list)
    repeats: int = 0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._owed: dict[Shot, float] = dict.fromkeys(self.shots, 0.0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, and wait for the answers that are under way."""
        self._stop.set()
        self._thread.join(2 * WAIT_S)

    def wait(self, more: int = 100, timeout_s: float = WAIT_S, that: Callable[[Result], bool] = lambda _: True) -> None:
        """Wait until so many more requests have ended of those *that* holds for."""
        began, deadline = len(self.results), time.monotonic() + timeout_s
        while sum(map(that, self.results[began:])) < more:
            assert time.monotonic() < deadline, f"the load stands still: {self.said()}"
            assert self._thread.is_alive(), "the load has died"
            time.sleep(0.02)

    def since(self, at: float) -> list[Result]:
        """Return what was begun at or after a monotonic moment."""
        return [result for result in self.results if result.at >= at]

    @property
    def failed(self) -> list[Result]:
        """Return every request without a good answer."""
        return [result for result in self.results if not result.served]

    def said(self, results: Sequence[Result] | None = None) -> str:
        """Return what became of the requests, in a few words."""
        rows = self.results if results is None else results
        counts = Counter(f"{row.status}{' ' + row.problem if row.problem else ''}" for row in rows)
        return f"{len(rows)} requests, {self.repeats} repeats: {dict(counts)}"

    # --- inside the thread

    async def _run(self) -> None:
        idle: asyncio.Queue[Connection] = asyncio.Queue()
        for _ in range(self.connections):
            idle.put_nowait(Connection(self.address, self.tls))
        tasks: set[asyncio.Task[None]] = set()
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            await asyncio.sleep(max(0.0, began + sent / self.rate - time.monotonic()))
            sent += 1
            task = asyncio.create_task(self._fire(idle, self._next_shot()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        while not idle.empty():
            await idle.get_nowait().end()

    def _next_shot(self) -> Shot:
        total = sum(shot.share for shot in self.shots)
        for shot in self.shots:
            self._owed[shot] += shot.share / total
        chosen = max(self.shots, key=lambda shot: self._owed[shot])
        self._owed[chosen] -= 1
        return chosen

    async def _fire(self, idle: asyncio.Queue[Connection], shot: Shot) -> None:
        connection = await idle.get()
        at = time.monotonic()
        try:
            async with asyncio.timeout(WAIT_S):
                status, body = await self._ask(connection, shot)
            result = Result(at, shot, status, "", time.monotonic() - at, body)
        except (Cut, OSError) as error:  # a timeout is an OSError, too
            connection.close()
            unheard = isinstance(error, Cut) and error.untouched and connection.used == 1
            result = Result(at, shot, 0, f"{type(error).__name__}: {error}", time.monotonic() - at, unheard=unheard)
        self.results.append(result)
        idle.put_nowait(connection)

    async def _ask(self, connection: Connection, shot: Shot) -> tuple[int, bytes]:
        if not connection.open:
            await connection.connect()
        try:
            return await connection.ask(shot.data)
        except Cut as cut:
            if connection.used == 1 or not cut.untouched:
                raise
            self.repeats += 1
            await connection.connect()
            return await connection.ask(shot.data)
