"""
Watches a config version that waits for its confirmation.

Theory
    The person who applied it may have locked everybody out, and may be looking elsewhere. So besides the deadline the
    guard metrics are compared with the 60 s before the change: when they get clearly worse the version is reverted at
    once. "Clearly" is two things: an effect that matters, and one that chance does not make. The comparison is made
    every second, so chance has many tries: `EVIDENCE` nats leave it about e⁻¹⁰, 1 in 20,000, for each. Few counts are
    the rule here, so it is the likelihood ratio that is compared and not a number of standard deviations, which three
    failures of thirty would reach too often.

    shares    n₁·KL(p₁‖p) + n₂·KL(p₂‖p) ≥ EVIDENCE with the pooled p: the G-test of two proportions (Sokal and Rohlf)
    latency   at most 5 % of answers took longer than the 95th percentile before: n·KL(now‖5 %) ≥ EVIDENCE, which by
              Chernoff bounds the binomial tail

What can go wrong
    Little traffic before: nothing can be compared, only the deadline reverts. A restart of the controller in between:
    the same, because the seconds before it are gone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sidecar.facts import RouteSecond
from sidecar.measure import histogram

MIN_REQUESTS: Final = 30  # on each side
EVIDENCE: Final = 10.0  # nats
REFUSED_RATIO: Final = 0.10  # more of all arrivals are refused than before
FAILURE_RATIO: Final = 0.05
SLOWER: Final = 2.0  # times, and
SLOWER_S: Final = 0.05
TAIL: Final = 0.05


@dataclass(frozen=True, slots=True)
class Vitals:
    """
    How the whole API did over some seconds.

    Attributes:
        arrivals: Requests that came.
        refused: Own refusals of them.
        judged: Requests whose outcome says something of the API.
        failures: Of them.
        latency: Bucket → count of upstream latencies.
    """

    arrivals: int = 0
    refused: int = 0
    judged: int = 0
    failures: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, seconds: Sequence[RouteSecond]) -> Vitals:
        """Sum *seconds* of any routes."""
        latency: dict[int, int] = {}
        for second in seconds:
            for bucket, count in second.latency.items():
                latency[bucket] = latency.get(bucket, 0) + count
        return cls(
            sum(s.arrivals for s in seconds),
            sum(s.cancelled for s in seconds),
            sum(s.judged for s in seconds),
            sum(s.failures for s in seconds),
            latency,
        )

    @property
    def p95_s(self) -> float:
        """Return the 95th percentile of the upstream latency; 0 without any."""
        return histogram.quantile(self.latency, 1 - TAIL) if self.latency else 0.0


def worse(before: Vitals, after: Vitals) -> str:
    """Return what got clearly worse, in a person's words; empty when nothing did, or too little was seen."""
    refused = (before.refused, before.arrivals, after.refused, after.arrivals)
    if _share_rose(*refused, by=REFUSED_RATIO):
        return f"{after.refused / after.arrivals:.0%} of requests are refused, {before.refused / before.arrivals:.0%} before"
    failed = (before.failures, before.judged, after.failures, after.judged)
    if _share_rose(*failed, by=FAILURE_RATIO):
        return f"{after.failures / after.judged:.0%} of requests fail, {before.failures / before.judged:.0%} before"
    if _slowed(before, after):
        return f"95 % of answers take up to {after.p95_s:.2f} s, {before.p95_s:.2f} s before"
    return ""


def _share_rose(some: int, all_: int, some_now: int, all_now: int, *, by: float) -> bool:
    if min(all_, all_now) < MIN_REQUESTS:
        return False
    before, now, pooled = some / all_, some_now / all_now, (some + some_now) / (all_ + all_now)
    evidence = all_ * _divergence(before, pooled) + all_now * _divergence(now, pooled)
    return now - before > by and evidence >= EVIDENCE


def _slowed(before: Vitals, after: Vitals) -> bool:
    count = histogram.total(after.latency)
    if min(count, histogram.total(before.latency)) < MIN_REQUESTS:
        return False
    limit_s = max(SLOWER * before.p95_s, before.p95_s + SLOWER_S)
    over = histogram.count_above(after.latency, limit_s)
    return over > TAIL * count and count * _divergence(over / count, TAIL) >= EVIDENCE


def _divergence(p: float, q: float) -> float:
    """Return the Kullback-Leibler divergence of two Bernoulli variables, in nats; infinite when *q* excludes *p*."""
    parts = ((p, q), (1 - p, 1 - q))
    return sum(a * math.log(a / b) if b else math.inf for a, b in parts if a)
