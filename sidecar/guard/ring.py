"""
Ten exact buckets over a sliding window: what the breaker's ratios are made of.

The totals of the window are plain attributes, so that one outcome costs one addition. A bucket's own count is the
difference between the totals now and those at its start; it is written down only when the bucket ends, once in
window/10. No moving average: a tight burst can hide an outage in one (linkerd2-proxy, 2026).
"""

from __future__ import annotations

from typing import Final

SIZE: Final = 10
_EMPTY: Final = (0, 0, 0, 0)


class Ring:
    """
    The counts of the last window.

    Attributes:
        judged, failures: Requests that ended in success or failure, and the failures among them.
        timed, slow: Requests whose first byte came or is overdue, and the slow ones among them.
        end_at: When the current bucket ends: call `rotate` at or after it.
    """

    __slots__ = ("_base", "_buckets", "_current", "_width", "end_at", "failures", "judged", "slow", "timed")

    def __init__(self, window_s: float, now: float) -> None:
        self._width = window_s / SIZE
        self.clear(now)

    def __repr__(self) -> str:
        return f"<Ring failures={self.failures}/{self.judged} slow={self.slow}/{self.timed}>"

    def clear(self, now: float) -> None:
        """Forget everything."""
        self.judged = self.failures = self.timed = self.slow = 0
        self._base = _EMPTY
        self._buckets = [_EMPTY] * SIZE
        self._current = 0
        self.end_at = now + self._width

    def rotate(self, now: float) -> None:
        """End every bucket whose time is over; a *now* before `end_at` changes nothing."""
        if now - self.end_at >= self._width * SIZE:
            self.clear(now)
            return
        while now >= self.end_at:
            totals = (self.judged, self.failures, self.timed, self.slow)
            self._buckets[self._current] = tuple(a - b for a, b in zip(totals, self._base, strict=True))  # type: ignore[assignment]
            self._current = (self._current + 1) % SIZE
            gone = self._buckets[self._current]
            self._base = (totals[0] - gone[0], totals[1] - gone[1], totals[2] - gone[2], totals[3] - gone[3])
            self.judged, self.failures, self.timed, self.slow = self._base
            self.end_at += self._width
