"""
How many messages a receiver gets: at most `PER_HOUR` in any hour, and the last `RESERVE` of these are for pages.

Theory
    A pager that rings too often is switched off, so the bound is hard: in *any* window of an hour, not on average. A
    leaky bucket cannot promise that (a burst and an hour's leak are twice the rate), so the budget keeps the moments
    of what was sent in the last hour; at six an hour that is no cost. Ordinary messages leave `RESERVE` free, so that
    a page that comes after a chatty hour still goes out at once.

What can go wrong
    Time that goes backwards grants nothing: a moment in the future counts as sent now.
"""

from __future__ import annotations

from collections import deque
from typing import Final

PER_HOUR: Final = 6
RESERVE: Final = 2
HOUR_S: Final = 3600.0


class Budget:
    """One receiver's messages of the last hour; `hour_s` and the others are arguments for tests."""

    def __init__(self, *, per_hour: int = PER_HOUR, reserve: int = RESERVE, hour_s: float = HOUR_S) -> None:
        self._per_hour = per_hour
        self._reserve = reserve
        self._hour_s = hour_s
        self._sent: deque[float] = deque(maxlen=per_hour)

    def __repr__(self) -> str:
        return f"<Budget {len(self._sent)} of {self._per_hour} sent>"

    def wait_s(self, now: float, *, urgent: bool) -> float:
        """Return the seconds until one more message may be sent; zero when it may be now."""
        allowed = self._per_hour if urgent else self._per_hour - self._reserve
        recent = [at for at in self._sent if at > now - self._hour_s]
        if len(recent) < allowed:
            return 0.0
        return max(0.0, sorted(recent)[len(recent) - allowed] + self._hour_s - now)

    def spend(self, now: float) -> None:
        """Count one message."""
        self._sent.append(now)
