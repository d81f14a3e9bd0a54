"""
One cell of the grid: what is normal at a rate, a truth that begins, and the floor of the time that it takes to see it.

Theory
    Nothing that knows both distributions and raises falsely once in γ requests can on average be faster than

        ln γ / (rate · KL(fault ‖ normal))        γ = the requests of 30 days, at least 10,000

    (Lorden 1971). KL is of Bernoulli variables for failures, of whole histograms for latency, of Poisson rates for arrivals.

What can go wrong
    A median of three may lie below the floor, which is of the mean.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, log
from statistics import median
from typing import Final, Generic, TypeVar

SEEDS: Final = 3
MONTH_S: Final = 30 * 86_400.0

Step = Callable[[float], bool]  # one second that ends then; true while an alarm stands
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class Found:
    """One cell: the median delay (infinite: missed by most), the floor, and the seeds that never raised."""

    part: str
    normal: str
    rate_per_s: float
    fault: str
    delay_s: float
    floor_s: float
    missed: int


@dataclass
class Cell(Generic[D]):
    """What is normal at one rate: the detectors, how a second of it goes, and how long they are trained on it."""

    part: str
    normal: str
    rate: float
    make: Callable[[], D]
    calm: Callable[[random.Random, D], Step]
    training_s: int
    patience_s: int
    trained: dict[int, tuple[random.Random, D]] = field(default_factory=dict)

    def measure(self, fault: str, floor_s: float, broken: Callable[[random.Random, D], Step]) -> Found:
        """Return how soon *broken* is found; an alarm that stood before counts for nothing."""
        delays = [self._delay(seed, broken) for seed in range(SEEDS)]
        missed = sum(delay == inf for delay in delays)
        return Found(self.part, self.normal, self.rate, fault, median(delays), floor_s, missed)

    def _delay(self, seed: int, broken: Callable[[random.Random, D], Step]) -> float:
        if seed not in self.trained:
            fresh = random.Random(seed), self.make()
            step = self.calm(*fresh)
            for at in range(1, self.training_s + 1):
                step(float(at))
            self.trained[seed] = fresh
        step = broken(*copy.deepcopy(self.trained[seed]))
        return next((float(n) for n in range(1, self.patience_s + 1) if step(float(self.training_s + n))), inf)


def training_s(rate: float) -> int:
    """Return how long a cell is trained: an hour, or as long as 3,000 requests take."""
    return round(max(3600.0, 3000.0 / rate))


def patience_s(rate: float) -> int:
    """Return how long a fault lasts: an hour, or as long as 500 requests take."""
    return round(max(3600.0, 500.0 / rate))


def enough(rate: float) -> float:
    """Return ln γ."""
    return log(max(rate * MONTH_S, 1e4))


def floor_s(rate: float, divergence: float) -> float:
    """Return the least mean time to detect at *rate* a fault that differs by *divergence* nats a request (or arrival)."""
    return enough(rate) / (rate * divergence) if divergence > 0 else inf


def kl_ratio(bad: float, ratio: float) -> float:
    """Return the divergence of a failure ratio of *bad* from one of *ratio*."""
    return bad * log(bad / ratio) + ((1 - bad) * log((1 - bad) / (1 - ratio)) if bad < 1 else 0.0)


def kl_rate(factor: float) -> float:
    """Return the divergence of *factor* times the arrivals, in nats a normal arrival."""
    return factor * log(factor) - factor + 1 if factor else 1.0
