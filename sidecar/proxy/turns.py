"""
Whose turn it is among several endpoints: a table of pairs, and the less loaded of the two gets the request.

Theory.   Two choices and the less loaded of them balance nearly as well as the least loaded of all, need no look at all of them,
          and never send everybody to the same newcomer (M. Mitzenmacher, The power of two choices in randomized load
          balancing, IEEE TPDS 12, 2001; Envoy, Linkerd and nginx have it). The first of a pair comes by weight, spread evenly (earliest
          deadline first, as Envoy does), so that while nobody is loaded the first choices alone make the wanted shares;
          the second is drawn by weight from the others. Both are worked out once for each set of endpoints and then only walked
          through, so a choice costs an index and a comparison, and no random number.

          load = requests in flight / weight

What can go wrong. Many workers with one table would all begin with the same endpoint: each begins at a place of its own, by its seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from heapq import heapify, heapreplace
from typing import Final

ROUNDS: Final = 8  # how often an endpoint of the smallest weight is first, so that it meets different seconds
MOST_TURNS: Final = 2048


def pairs(weights: Sequence[float], seed: str) -> list[tuple[int, int]]:
    """
    Return the turns, to be walked through again and again: (first, second) as indices into *weights*.

    Args:
        weights: Above 0; at least two.
        seed: What tells this worker from others.
    """
    order = _order(weights)
    digest = hashlib.blake2b(seed.encode(), digest_size=8).digest()
    drawn = int.from_bytes(digest, "big")
    start = drawn % len(order)
    found = []
    for first in (*order[start:], *order[:start]):
        drawn = (drawn * 6364136223846793005 + 1442695040888963407) % 2**64  # Knuth's MMIX generator
        at = (drawn >> 33) % len(order)
        while order[at] == first:
            at = (at + 1) % len(order)
        found.append((first, order[at]))
    return found


def _order(weights: Sequence[float]) -> list[int]:
    """Return who is first, as often as the weights say and evenly spread."""
    least, total = min(weights), sum(weights)
    count = min(MOST_TURNS, max(len(weights), round(ROUNDS * total / least)))
    due = [(1.0 / weight, index) for index, weight in enumerate(weights)]
    heapify(due)
    order = []
    for _ in range(count):
        at, index = due[0]
        order.append(index)
        heapreplace(due, (at + 1.0 / weights[index], index))
    return order
