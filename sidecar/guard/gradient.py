"""
An adaptive limit of concurrency: how many requests the API serves at once before they queue, learned from its latency.

Theory
    By Little's law a server that works at its best holds `limit = rate × latency` requests; any more wait in a queue, and
    the queue shows in the latency. So two latencies are compared: the *short* one, the mean of the window that just
    ended, and the *long* one, an exponential average over 600 windows, which knows what it is like without a queue.

        gradient = clamp(1.5 · long / short, 0.5, 1.0)                  latency may rise by half before it counts
        gradient = max(0.5, gradient · (1 − drops/(samples + drops)))   what never answered is no latency
        limit'   = 0.8 · limit + 0.2 · (limit · gradient + √limit)      √limit: a queue that is allowed, so it can grow
        limit'   = clamp(limit', min, max)

    A window ends after one second, and not before it holds ten samples or drops.

Tables
    regime         when                              the limit
    no queue       short ≤ 1.5 · long                grows by 0.2·√limit a window: from 20 to 100 in 53 s
    queue          short > 1.5 · long                shrinks, towards (√limit)/(1 − gradient) at most
    application    in flight < limit/2               stays: nobody asks for more, so nothing is learned about more

    latency falls  long > 2 · short                  long · 0.95: a slow past must not excuse a queue for ten minutes

    a request                                               counts as
    succeeded                                               a sample
    failed without a first byte (timeout, reset, refused)   a drop, never a sample: its age would raise what is normal
    failed with an answer, ignored, cancelled               nothing: errors are often fast, and would raise the limit

What can go wrong
    Pinning concurrency to measure the latency without load (as Envoy's adaptive_concurrency does) sheds good traffic: here
    nothing is ever pinned. A latency that really is higher from now on (a deploy): the long one learns it within minutes.
    Few requests: ten samples may take long; until then nothing moves.

Source: Netflix concurrency-limits, Gradient2Limit and WindowedLimit.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

INITIAL: Final = 20
TOLERANCE: Final = 1.5
SMOOTHING: Final = 0.2
WINDOW_S: Final = 1.0
WINDOW_SAMPLES: Final = 10
LONG_WINDOWS: Final = 600
_WARMUP: Final = 10  # windows whose plain mean begins the long latency
_DECAY: Final = 0.95


class Gradient2:
    """
    The limit of one worker.

    Attributes:
        limit: As learned; a fraction of a request counts.
        long_s: The long latency; 0 before the first window ended.
    """

    __slots__ = (
        "_drops", "_end_at", "_highest", "_least", "_most", "_samples", "_sum_s", "_windows", "limit", "long_s",
    )  # fmt: skip

    def __init__(self, least: int, most: int, now: float) -> None:
        self._least, self._most = least, most
        self.limit = float(max(least, min(most, INITIAL)))
        self.long_s = 0.0
        self._windows = self._samples = self._drops = self._highest = 0
        self._sum_s = 0.0
        self._end_at = now + WINDOW_S

    def __repr__(self) -> str:
        return f"<Gradient2 limit={self.limit:.1f} of {self._least}..{self._most} long={self.long_s * 1000:.1f}ms>"

    def apply(self, least: int, most: int) -> None:
        """Go on within other bounds, with what was learned."""
        self._least, self._most = least, most
        self.limit = max(float(least), min(float(most), self.limit))

    def sample(self, latency_s: float, in_flight: int, now: float) -> bool:
        """Take the latency of a success, which *in_flight* requests shared; True when the limit may have moved."""
        self._samples += 1
        self._sum_s += latency_s
        return self._took(in_flight, now)

    def drop(self, in_flight: int, now: float) -> bool:
        """Take a request that never had an answer; True when the limit may have moved."""
        self._drops += 1
        return self._took(in_flight, now)

    def _took(self, in_flight: int, now: float) -> bool:
        self._highest = max(self._highest, in_flight)
        if now < self._end_at or self._samples + self._drops < WINDOW_SAMPLES:
            return False
        self._close()
        self._begin(now)
        return True

    def _begin(self, now: float) -> None:
        self._end_at = now + WINDOW_S
        self._samples = self._drops = self._highest = 0
        self._sum_s = 0.0

    def _close(self) -> None:
        gradient = 0.5
        if self._samples:
            short_s = max(1e-9, self._sum_s / self._samples)
            self._learn(short_s)
            gradient = max(0.5, min(1.0, TOLERANCE * self.long_s / short_s))
            if self.long_s > 2.0 * short_s:
                self.long_s *= _DECAY
        if self._highest < self.limit / 2.0:
            return
        gradient = max(0.5, gradient * self._samples / (self._samples + self._drops))
        wanted = self.limit * gradient + sqrt(self.limit)
        smooth = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING
        self.limit = max(float(self._least), min(float(self._most), smooth))

    def _learn(self, short_s: float) -> None:
        self._windows += 1
        factor = 1.0 / self._windows if self._windows <= _WARMUP else 2.0 / (LONG_WINDOWS + 1)
        self.long_s += (short_s - self.long_s) * factor
