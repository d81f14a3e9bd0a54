"""
Requests that go in and do not come out: the second witness of a latency claim.

Theory
    Little's law: in flight = arrival rate x time in the system, L = λ·W. Where everything is merely slower, what comes out
    is as much as what goes in, and W says all there is to say. Where an API hangs, W of the requests that came out stays
    as it was and L grows by λ each second: the residual L − λ·W is the number of requests that are stuck. So it is seen
    after seconds, long before the first of them fails by its timeout, and it does not follow from latency.

    A request is stuck when it waits for its first byte longer than 10 times the normal p95 and than 5 s: what pauses for
    less (a collection of garbage, a failover) goes on by itself. A route is stuck when at least `min_requests` are, and
    at least half of those that were let in since the onset and could be: more than that bound ago, in ten seconds.

What can go wrong
    Long polling, slow exports: their p95 is as long, and so is the bound. Few requests: below `min_requests` nothing is
    said, and the first timeouts tell. A pause that is longer than the bound is a hang, until it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.facts import RouteSecond
from sidecar.measure.histogram import LOWER_S

WINDOW_S: Final = 10.0
STUCK_S: Final = 5.0
STUCK_FACTOR: Final = 10.0
MOST: Final = 0.5
_FRESH_S: Final = 1.5  # an older second says nothing of who waits now


def bound_s(normal_s: float) -> float:
    """Return from which age a request is stuck, where *normal_s* is the normal p95."""
    return max(STUCK_S, STUCK_FACTOR * normal_s)


def stuck(rows: Sequence[RouteSecond], normal_s: float, least: int, now: float) -> int:
    """
    Return how many requests of one route are stuck; 0 unless most of what it was asked is.

    Args:
        rows: Its seconds since the onset, in order; those before `bound_s + WINDOW_S` ago may be missing.
        normal_s: Its normal p95.
        least: The fewest requests that say something.
        now: Monotonic seconds.
    """
    if not rows or rows[-1].at < now - _FRESH_S:
        return 0
    bound = bound_s(normal_s)
    waiting = sum(count for index, count in rows[-1].waiting.items() if LOWER_S[index] >= bound)
    old = [row for row in rows if now - bound - WINDOW_S < row.at <= now - bound]
    let_in = sum(row.arrivals - sum(row.refused.values()) for row in old)
    return waiting if waiting >= least and waiting >= MOST * let_in else 0
