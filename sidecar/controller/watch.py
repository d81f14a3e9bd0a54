"""
Watches a config version that waits for its confirmation.

Theory
    The person who applied it may have locked everybody out, and may be looking elsewhere. So besides the deadline the
    guard metrics are compared with the 60 s before the change: when they get clearly worse the version is reverted at
    once. "Clearly" is a distance that noise on `MIN_REQUESTS` requests does not reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.facts import RouteSecond
from sidecar.measure import histogram

MIN_REQUESTS: Final = 30
REFUSED_RATIO: Final = 0.10  # more of all arrivals are refused than before
FAILURE_RATIO: Final = 0.05
SLOWER: Final = 2.0  # times, and
SLOWER_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Vitals:
    """
    How the whole API did over some seconds.

    Attributes:
        arrivals: Requests that came.
        refused_ratio: Own refusals of all arrivals.
        failure_ratio: Failures of all judged requests.
        p95_s: 95th percentile of upstream latency; 0 without any.
    """

    arrivals: int
    refused_ratio: float
    failure_ratio: float
    p95_s: float

    @classmethod
    def of(cls, seconds: Sequence[RouteSecond]) -> Vitals:
        """Sum *seconds* of any routes."""
        arrivals = sum(s.arrivals for s in seconds)
        judged = sum(s.judged for s in seconds)
        latency: dict[int, int] = {}
        for second in seconds:
            for bucket, count in second.latency.items():
                latency[bucket] = latency.get(bucket, 0) + count
        return cls(
            arrivals,
            sum(s.cancelled for s in seconds) / arrivals if arrivals else 0.0,
            sum(s.failures for s in seconds) / judged if judged else 0.0,
            histogram.quantile(latency, 0.95) if latency else 0.0,
        )


def worse(before: Vitals, after: Vitals) -> str:
    """Return what got clearly worse, in a person's words; empty when nothing did, or too little was seen."""
    if after.arrivals < MIN_REQUESTS:
        return ""
    if after.refused_ratio > before.refused_ratio + REFUSED_RATIO:
        return f"{after.refused_ratio:.0%} of requests are refused, {before.refused_ratio:.0%} before"
    if after.failure_ratio > before.failure_ratio + FAILURE_RATIO:
        return f"{after.failure_ratio:.0%} of requests fail, {before.failure_ratio:.0%} before"
    if before.p95_s and after.p95_s > max(SLOWER * before.p95_s, before.p95_s + SLOWER_S):
        return f"95 % of answers take up to {after.p95_s:.2f} s, {before.p95_s:.2f} s before"
    return ""
