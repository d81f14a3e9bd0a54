"""
The last two hours of all routes, second by second, as a tape that is kept in memory.

Theory
    A replay needs material at the moment when something was just learnt, so the controller always records. A route's
    second is one line of `tape.py`, with the heaviest `MOST` names of each table; idle routes have none. Lines of one
    minute are compressed together, which leaves about 50 to 150 bytes a busy route and second.

Bounds
    `KEEP_S` of time and `MAX_BYTES` of memory, whichever comes first; the oldest minute goes first. So with 10 busy
    routes two hours take some 7 MB; with 500 the reel is shorter, and says so.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from sidecar.facts import ClientSecond, RouteSecond
from sidecar.replay import tape

KEEP_S: Final = 7_200
MAX_BYTES: Final = 48 * 1024 * 1024
MINUTE_S: Final = 60
MOST: Final = 16
_LEVEL: Final = 6
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Minute:
    """One compressed minute; `unix` is its first second."""

    unix: int
    data: bytes

    def lines(self) -> list[str]:
        """Return its lines."""
        return zlib.decompress(self.data).decode().splitlines()


class Reel:
    """The recorded past. Times are whole Unix seconds, each later than the one before."""

    def __init__(self) -> None:
        self._minutes: deque[Minute] = deque()
        self._open: list[str] = []
        self._open_unix = 0
        self._bytes = 0
        self._last = 0

    def __repr__(self) -> str:
        return f"<Reel {len(self._minutes)} minutes, {self._bytes} bytes>"

    @property
    def size_bytes(self) -> int:
        """Return what the closed minutes take."""
        return self._bytes

    def take(self, rows: Sequence[RouteSecond], unix: float) -> tuple[list[str], Minute | None]:
        """
        Record one second.

        Returns:
            Its lines, and the minute that it closed, if any.
        """
        t = self._last = max(self._last + 1, round(unix))
        closed = self._close(t)
        lines = [tape.write(heaviest(row), float(t)) for row in rows if _busy(row)]
        self._open += lines
        return lines, closed

    def _close(self, t: int) -> Minute | None:
        minute = t - t % MINUTE_S
        if minute == self._open_unix:
            return None
        closed = None
        if self._open:
            closed = Minute(self._open_unix, zlib.compress("\n".join(self._open).encode(), _LEVEL))
            self.put_back((closed,))
        self._open, self._open_unix = [], minute
        while self._minutes and (self._minutes[0].unix < t - KEEP_S or self._bytes > MAX_BYTES):
            self._bytes -= len(self._minutes.popleft().data)
        return closed

    def put_back(self, minutes: Iterable[Minute]) -> None:
        """Append minutes, such as a store kept them over a restart."""
        for minute in minutes:
            if not self._minutes or minute.unix > self._minutes[-1].unix:
                self._minutes.append(minute)
                self._bytes += len(minute.data)

    def lines(self, since_unix: float) -> Iterator[str]:
        """Yield the lines from *since_unix* on, the oldest first."""
        for minute in list(self._minutes):
            if minute.unix + MINUTE_S > since_unix:
                yield from minute.lines()
        yield from list(self._open)

    def minutes(self, since_unix: float) -> list[Minute]:
        """Return the minutes from *since_unix* on, the one that is not over included: for a reader in another process."""
        made = [minute for minute in self._minutes if minute.unix + MINUTE_S > since_unix]
        if self._open:
            made.append(Minute(self._open_unix, zlib.compress("\n".join(self._open).encode(), 1)))
        return made


def _busy(row: RouteSecond) -> bool:
    return bool(row.arrivals or row.judged or row.ignored or row.in_flight or row.refused or row.trips)


def heaviest(row: RouteSecond, most: int = MOST) -> RouteSecond:
    """Return *row* with the heaviest names of each table only."""
    return replace(
        row,
        clients=_top(row.clients, _weight, most),
        methods=_top(row.methods, _requests, most),
        statuses=_top(row.statuses, _requests, most),
        endpoints=_top(row.endpoints, _requests, most),
        paths=_top(row.paths, _requests, most),
    )


def _weight(client: ClientSecond) -> int:
    return client.requests + client.refused


def _requests(pair: tuple[int, int]) -> int:
    return pair[0]


def _top(table: Mapping[str, _T], weight: object, most: int) -> Mapping[str, _T]:
    if len(table) <= most:
        return table
    assert callable(weight)
    names = sorted(table, key=lambda name: (-weight(table[name]), name))[:most]
    return {name: table[name] for name in names}
