"""
The controller's recorder: every second goes on the reel, into the store by the minute, and to whoever listens.

What can go wrong
    A reader that does not keep up is ended after `MAX_BEHIND` seconds: a tape with a hole would be a wrong one. The
    store is down: the reel has two hours in memory all the same; after a restart it begins with what the store has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

from sidecar.controller.effects import PutSeconds, Write
from sidecar.facts import Moment, RouteSecond
from sidecar.replay.reel import KEEP_S, Minute, Reel

MAX_BEHIND: Final = 120


class Tapes:
    """
    Records, and plays back.

    Args:
        put: Where minutes are stored.
        now: Returns the present moment.
    """

    def __init__(self, put: Callable[[Iterable[Write]], None], now: Callable[[], Moment]) -> None:
        self._put = put
        self._now = now
        self._readers: set[asyncio.Queue[str | None]] = set()
        self.reel = Reel()

    def __repr__(self) -> str:
        return f"<Tapes {self.reel!r}, {len(self._readers)} readers>"

    def restore(self, minutes: Iterable[tuple[int, bytes]]) -> None:
        """Begin with what the store kept, the oldest first."""
        oldest = self._now().unix - KEEP_S
        self.reel.put_back(Minute(unix, data) for unix, data in minutes if unix >= oldest)

    def take(self, rows: Sequence[RouteSecond], now: Moment) -> None:
        """Record one second."""
        lines, closed = self.reel.take(rows, now.unix)
        if closed is not None:
            self._put([PutSeconds(closed.unix, closed.data)])
        text = "".join(f"{line}\n" for line in lines)
        for queue in list(self._readers):
            if queue.qsize() >= MAX_BEHIND:
                self._readers.discard(queue)
            queue.put_nowait(text if queue in self._readers else None)

    async def lines(self, past_s: float, for_s: float) -> AsyncIterator[str]:
        """Yield what is remembered of the last *past_s*, then each second of the next *for_s* as it happens."""
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._readers.add(queue)
        try:
            if past_s:
                since = self._now().unix - past_s
                for minute in self.reel.minutes(since):
                    yield "".join(f"{line}\n" for line in minute.lines() if minute.unix >= since or _t(line) >= since)
            end_at = self._now().at + for_s
            while self._now().at < end_at and (text := await queue.get()) is not None:
                yield text
        finally:
            self._readers.discard(queue)


def _t(line: str) -> float:
    return float(line.partition(":")[2].partition(",")[0])  # `tape.write` puts t first
