"""
How many clients may be connected to one worker: by its configuration, and by its descriptors.

Theory.   Every connection is a descriptor, and so is every connection to the API, every log and every socket of the worker's own. A
          process that runs out of them cannot accept, cannot dial and cannot open a file; libuv then gives up one descriptor that it
          holds in reserve in order to accept and close what waits, and when another thread takes that one first the event loop spins
          until descriptors are free. So it must not come to that. The kernel gives each connection the lowest free number
          (POSIX, open()): a connection with a number close to the limit has one of the last, whatever the others are used for.

Tables.   a new connection                            then
          within `max_connections` and 80 %           served
          one more                                    the idle ones that are oldest make room; none is idle: 503, Retry-After
          has one of the last descriptors             503 in any case; idle ones make room for the next
          far beyond the cap, or one of the last      answered 503 and closed at once: waiting for its end would hold a descriptor
          a connection to the API, where              503, Retry-After (`dial.py`): the very last ones are for logs, names, the link,
          half of the last ones are left              and for libuv's reserve

What can go wrong.   Requests need a descriptor on each side, and the API's side has but 20 %: with a limit below 2.5 times the requests
          in flight it is the API's side that says 503.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

SHARE_RATIO: Final = 0.8
RESERVE: Final = 16
RESERVE_RATIO: Final = 0.1  # of a limit so low that 16 would be most of it
MARGIN: Final = 16  # refused connections that may still wait for their client's end,
MARGIN_RATIO: Final = 1 / 8  # or an eighth of a large cap
_BOUNDLESS: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Room:
    """
    What the descriptors of one process allow.

    Attributes:
        connections: How many clients may be connected.
        last: Descriptors from this number on are the last ones, and no client's.
        very_last: Those from this number on are not the API's either.
    """

    connections: int = _BOUNDLESS
    last: int = _BOUNDLESS
    very_last: int = _BOUNDLESS

    @classmethod
    def of(cls, limit: int) -> Self:
        """Return the room that *limit* descriptors (RLIMIT_NOFILE) give; a negative one is no limit."""
        if limit < 0:
            return cls()
        reserve = min(RESERVE, int(limit * RESERVE_RATIO))
        return cls(max(1, int(limit * SHARE_RATIO)), limit - reserve, limit - reserve // 2)

    def most(self, configured: int) -> int:
        """Return how many clients may be connected when the configuration allows *configured*."""
        return min(configured, self.connections)

    def crowded(self, standing: int, most: int, descriptor: int) -> bool:
        """Tell whether a connection beyond *most* must go at once, when *standing* ones are there with it."""
        return descriptor >= self.last or standing > most + max(MARGIN, most * MARGIN_RATIO)


ANY: Final = Room()
