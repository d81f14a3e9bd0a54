"""
What it may have been: parts of the traffic, ranked by the share of the failures that they explain.

Theory
    A part (a client, a path, …) that carries most of the failures may only carry most of the traffic. So beside its share
    stands how often its own requests failed and how often all others did. A part explains the incident when it has most of
    the failures while the rest is well: by the rule with which automation names a scope (`measure/parts.py`), here over
    the whole incident. A part without a rest (the only method of a route) says nothing, and stands last.

What can go wrong
    Nothing failed (slow answers, refusals, a surge): nothing is ranked, and the draft says what was measured instead.
    Only the names that failed most are counted; the rest of each is all that was judged without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.measure.parts import EXPLAINS, comparable, rest_is_well

LEAST_SHARE: Final = 0.1
SHOWN: Final = 6
RANKED: Final = ("endpoint", "path", "client", "method")  # of equal shares the first is told first
Counts = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """
    One part of the traffic.

    Attributes:
        dimension, name: As `path`, `/api/pay`.
        share_ratio: Its part of all failures.
        own: Its judged requests, and how many of them failed.
        rest: The same of all others.
    """

    dimension: str
    name: str
    share_ratio: float
    own: Counts
    rest: Counts

    @property
    def own_ratio(self) -> float:
        """Return which part of its own requests failed."""
        return _ratio(self.own)

    @property
    def rest_ratio(self) -> float | None:
        """Return which part of all others failed; None when there are too few to say."""
        return _ratio(self.rest) if comparable(self.own, self.rest) else None

    @property
    def explains(self) -> bool:
        """Tell whether it has the failures and the rest is well."""
        return self.share_ratio >= EXPLAINS and rest_is_well(self.own, self.rest)

    @property
    def reading(self) -> str:
        """Return what the figures say, in words."""
        if self.explains:
            return "explains it: the rest is well"
        if self.rest_ratio is None:
            return "nothing to compare with"
        return "worse than the rest" if rest_is_well(self.own, self.rest) else "as bad as the rest"


def ranked(parts: Mapping[str, Sequence[tuple[str, int, int]]], judged: Counts = (0, 0)) -> list[Hypothesis]:
    """
    Return the hypotheses that the counts allow, the best first.

    Args:
        parts: Dimension → (name, requests, failures) of those that failed most.
        judged: All requests and failures; where nobody counted them (0), what *parts* say of each dimension.
    """
    found = [each for dimension in RANKED for each in _of(dimension, parts.get(dimension, ()), judged)]
    order = {name: place for place, name in enumerate(RANKED)}
    found.sort(key=lambda h: (not h.explains, h.rest_ratio is None, -h.share_ratio, order[h.dimension], h.name))
    return found[:SHOWN]


def _of(dimension: str, rows: Sequence[tuple[str, int, int]], judged: Counts) -> list[Hypothesis]:
    requests, failures = max(judged[0], sum(row[1] for row in rows)), max(judged[1], sum(row[2] for row in rows))
    return [
        Hypothesis(dimension, name, bad / failures, (n, bad), (requests - n, failures - bad))
        for name, n, bad in rows
        if failures and bad >= LEAST_SHARE * failures
    ]


def _ratio(counts: Counts) -> float:
    return counts[1] / counts[0] if counts[0] else 0.0
