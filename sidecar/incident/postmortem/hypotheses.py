"""
What it may have been: parts of the traffic, ranked by the share of the failures that they explain.

Theory
    A part (a client, a path, …) that carries most of the failures may only carry most of the traffic. So beside its share
    stands how often its own requests failed and how often all others did. A part explains the incident when it has
    at least `EXPLAINS` of the failures while the rest is at most `REST_FACTOR` as bad: the rule by which automation names a
    scope (`detect/attribute.py`), here over the whole incident. A part without a rest (the only method of a route)
    says nothing, and stands last.

What can go wrong
    Nothing failed (slow answers, refusals, a surge): nothing is ranked, and the draft says what was measured instead.
    Only the heaviest names are counted: what is left of the failures counts as the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

EXPLAINS: Final = 0.8
REST_FACTOR: Final = 0.25
REST_REQUESTS: Final = 10
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
        return _ratio(self.rest) if self.rest[0] >= REST_REQUESTS else None

    @property
    def explains(self) -> bool:
        """Tell whether it has the failures and the rest is well."""
        rest = self.rest_ratio
        return self.share_ratio >= EXPLAINS and rest is not None and rest <= REST_FACTOR * self.own_ratio

    @property
    def reading(self) -> str:
        """Return what the figures say, in words."""
        if self.explains:
            return "explains it: the rest is well"
        rest = self.rest_ratio
        if rest is None:
            return "nothing to compare with"
        return "worse than the rest" if rest <= REST_FACTOR * self.own_ratio else "as bad as the rest"


def ranked(parts: Mapping[str, Sequence[tuple[str, int, int]]]) -> list[Hypothesis]:
    """Return the hypotheses that the counts *parts* (dimension → name, requests, failures) allow, the best first."""
    found = [each for dimension in RANKED for each in _of(dimension, parts.get(dimension, ()))]
    order = {name: place for place, name in enumerate(RANKED)}
    found.sort(key=lambda h: (not h.explains, h.rest_ratio is None, -h.share_ratio, order[h.dimension], h.name))
    return found[:SHOWN]


def _of(dimension: str, rows: Sequence[tuple[str, int, int]]) -> list[Hypothesis]:
    requests, failures = sum(row[1] for row in rows), sum(row[2] for row in rows)
    return [
        Hypothesis(dimension, name, bad / failures, (n, bad), (requests - n, failures - bad))
        for name, n, bad in rows
        if failures and bad >= LEAST_SHARE * failures
    ]


def _ratio(counts: Counts) -> float:
    return counts[1] / counts[0] if counts[0] else 0.0
