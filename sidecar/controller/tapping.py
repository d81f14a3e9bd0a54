"""
Those who look on (`sidecar tap`): what they want is said to the workers, what the workers show is handed to them.

A tap lives in the workers for `TTL_S` and is renewed while its reader reads, so nothing is sent for a reader that is gone,
not even when this controller dies with it.

What can go wrong
    A reader does not keep up: of what waits for it, `MAX_BEHIND` are kept and the rest is counted and told with the next
    one. A worker that was just started: it is told with its Hello. Too many readers: `Unavailable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final, Protocol

from sidecar import clock
from sidecar.controller.ports import Document, Unavailable
from sidecar.link.frames import Frame, Tap, Tapped
from sidecar.telemetry.access import document

TTL_S: Final = 6.0
RENEW_S: Final = 2.0
MAX_BEHIND: Final = 500
MAX_READERS: Final = 8


class Workers(Protocol):
    """The link, as far as a tap needs it."""

    def push(self, worker: int, frame: Frame) -> bool:
        """Send *frame* to one worker."""

    def push_all(self, frame: Frame, *, but: int | None = None) -> frozenset[int]:
        """Send *frame* to all of them."""


class Taps:
    """
    All taps that are open.

    Args:
        link: The workers.
        new_id: Makes ids that no other tap of these workers has.
    """

    def __init__(self, link: Workers, new_id: Callable[[], str]) -> None:
        self._link = link
        self._new_id = new_id
        self._readers: dict[str, _Reader] = {}

    def __repr__(self) -> str:
        return f"<Taps {len(self._readers)} readers>"

    def greet(self, worker: int) -> None:
        """Tell a worker whose link is new who looks on."""
        for reader in self._readers.values():
            self._link.push(worker, reader.wanted)

    def take(self, worker: int, shown: Tapped) -> None:
        """Hand on what a worker shows."""
        reader = self._readers.get(shown.tap)
        if reader is not None:
            reader.put(worker, shown)

    def requests(self, wanted: Tap) -> AsyncIterator[Document]:
        """
        Return each request that fits *wanted* (its id and time to live do not count), as it ends.

        Raises:
            Unavailable: when too many look on.
        """
        if len(self._readers) >= MAX_READERS:
            raise Unavailable(f"{MAX_READERS} taps are open", "close one")
        return self._follow(_Reader(replace(wanted, id=self._new_id(), ttl_s=TTL_S)))

    async def _follow(self, reader: _Reader) -> AsyncIterator[Document]:
        self._readers[reader.wanted.id] = reader
        try:
            while True:
                self._link.push_all(reader.wanted)
                async for shown in reader.shown(clock.now() + RENEW_S):
                    yield shown
        finally:
            del self._readers[reader.wanted.id]
            self._link.push_all(replace(reader.wanted, ttl_s=0.0))


class _Reader:
    """One who looks on."""

    def __init__(self, wanted: Tap) -> None:
        self.wanted = wanted
        self._queue: asyncio.Queue[Document] = asyncio.Queue(MAX_BEHIND)
        self._missed = 0

    def put(self, worker: int, shown: Tapped) -> None:
        missed = self._missed + shown.missed
        if self._queue.full():
            self._missed = missed + 1
            return
        self._missed = 0
        names = {"fields": list(shown.request.fields)}
        self._queue.put_nowait({**document(shown.request), **names, "worker": worker, "missed": missed})

    async def shown(self, until_at: float) -> AsyncIterator[Document]:
        """Yield what comes until a moment."""
        while (left_s := until_at - clock.now()) > 0.0:
            try:
                yield await asyncio.wait_for(self._queue.get(), left_s)
            except TimeoutError:
                return
