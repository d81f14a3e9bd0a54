"""
Requests that go in and do not come out: the second witness of a latency claim.

Theory
    Little's law: in flight = arrival rate x time in the system, L = λ·W. Where everything is merely slower, what comes out
    is as much as what goes in, and W says all there is to say. Where an API hangs, W of the requests that came out stays
    as it was and L grows by λ each second: the residual L − λ·W is the number of requests that are stuck. So it is seen
    after seconds, long before the first of them fails by its timeout, and it does not follow from latency.

    A request is stuck when it waits for its first byte longer than 10 times the normal p95 and than 1 s. The route is stuck
    when at least `min_requests` are, and at least half as many as were let in since the onset (in the last 10 s at most).

What can go wrong
    Long polling, slow exports: their p95 is as long, and so is the bound. Few requests: below `min_requests` nothing is
    said, and the first timeouts tell. An onset that was estimated too early makes the half larger, never smaller: five
    seconds later at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.facts import RouteSecond
from sidecar.measure.histogram import LOWER_S

WINDOW_S: Final = 10.0
STUCK_S: Final = 1.0
STUCK_FACTOR: Final = 10.0
MOST: Final = 0.5


def stuck(rows: Sequence[RouteSecond], normal_s: float, least: int) -> bool:
    """
    Tell whether most of what one route was asked is stuck.

    Args:
        rows: Its seconds since the onset, `WINDOW_S` at most, in order.
        normal_s: Its normal p95.
        least: The fewest requests that say something.
    """
    if not rows:
        return False
    bound_s = max(STUCK_S, STUCK_FACTOR * normal_s)
    waiting = sum(count for index, count in rows[-1].waiting.items() if LOWER_S[index] >= bound_s)
    let_in = sum(row.arrivals - sum(row.refused.values()) for row in rows)
    return waiting >= least and waiting >= MOST * let_in
