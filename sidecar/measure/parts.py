"""
When a part of the traffic (a client, a path, …) explains why a whole fails: it has the failures, and the rest is well.

Theory
    A part that carries most of the traffic carries most of the failures too, so its share is not enough: without it the rest
    must look well, at most a quarter as bad. The rest is enough to tell by when it is 10 requests, or when so few of them
    would have failed in less than one case of 100 (binomial) if they failed as often as the part does: where 95 % of one
    client's requests fail, two good ones of others say it; where half do, seven.

    Automation names a scope by it within seconds (`detect/attribute.py`), the post-mortem ranks by it over the whole
    incident (`incident/postmortem/hypotheses.py`).
"""

from __future__ import annotations

from math import comb
from typing import Final

EXPLAINS: Final = 0.8  # of all failures
REST_REQUESTS: Final = 10
REST_FACTOR: Final = 0.25
BY_CHANCE: Final = 0.01

Counts = tuple[int, int]  # (requests, failures)


def rest_is_well(own: Counts, rest: Counts) -> bool:
    """Tell whether a part's requests fail and all others do not, by the counts of both."""
    if not comparable(own, rest):
        return False
    return rest[1] <= REST_FACTOR * own[1] / max(own[0], 1) * rest[0]


def comparable(own: Counts, rest: Counts) -> bool:
    """Tell whether the others are enough requests to tell by."""
    ratio = min(own[1] / max(own[0], 1), 1.0)
    return rest[0] >= REST_REQUESTS or (rest[0] > 0 and _at_most(rest[1], rest[0], ratio) <= BY_CHANCE)


def _at_most(k: int, n: int, ratio: float) -> float:
    """Return the probability of at most *k* of *n* where each has *ratio*."""
    return sum(comb(n, i) * ratio**i * (1.0 - ratio) ** (n - i) for i in range(k + 1))
