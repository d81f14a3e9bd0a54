"""
Is the isolated scope well again? A reverse sequential test on its trial traffic.

Theory
    Wald's sequential probability ratio test (1945) between "healthy" (failure ratio q0, what the detectors test
    against) and "still broken" (q1), with both errors at 1 %: after each trial the sum

        L = Σ good·ln((1−q0)/(1−q1)) + bad·ln(q0/q1)

    decides `healthy` at L ≥ ln(99), `broken` at L ≤ −ln(99), and else waits for more. No other test with these errors
    needs fewer trials on average.

    q1 is not the ratio at the worst moment: an outage that turned into 10 % failures is not well. It is half the way
    (in logits) from normal to the incident's ratio, at least what automation acts upon (max(5 %, 10·p̂)), at most 20 %.

Tables
    incident at        q1      good trials in a row until `healthy`
    100 %              20 %    21
    20 % and below     5 %     94
    (normal 0.15 %)

What can go wrong
    With no trials it never decides; the sample that an isolation always passes is there for that. A single failure
    among few trials weighs much (three fail an outage's test at once); that is meant: a step back costs seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import log
from typing import Any, ClassVar, Final

from sidecar.detect.baseline import FLOOR_RATIO, MARGIN, logit, sigmoid
from sidecar.detect.errors import material_ratio
from sidecar.detect.keep import Document, Names, keep, revive

ALPHA: Final = 0.01  # called healthy though broken
BETA: Final = 0.01  # called broken though healthy
MOST_BROKEN: Final = 0.2
HEALTHY_AT: Final = log((1 - BETA) / ALPHA)
BROKEN_AT: Final = -log((1 - ALPHA) / BETA)


class Health(StrEnum):
    """What the trials say so far."""

    UNDECIDED = "undecided"
    HEALTHY = "healthy"
    BROKEN = "broken"


class RecoveryTest:
    """
    One stage's test; `reset` begins the next stage.

    Attributes:
        score: L; 0 knows nothing.
        trials, failures: Since the last reset.
    """

    __slots__ = ("_bad", "_good", "failures", "score", "trials")
    KEPT: ClassVar[Names] = ("_good", "_bad", "score", "trials", "failures")
    TIMES: ClassVar[Names] = ()

    def __init__(self, normal_ratio: float, incident_ratio: float) -> None:
        """
        Begin.

        Args:
            normal_ratio: p̂ of the scope before the incident.
            incident_ratio: Failure ratio that the scope was isolated for.
        """
        healthy = max(sigmoid(logit(normal_ratio) + MARGIN), FLOOR_RATIO)
        least = material_ratio(normal_ratio)
        half = sigmoid((logit(healthy) + logit(incident_ratio)) / 2)
        broken = min(max(half, least), max(MOST_BROKEN, sigmoid(logit(healthy) + 1)), 0.95)
        self._good = log((1 - healthy) / (1 - broken)) if broken > healthy else 0.0
        self._bad = log(healthy / broken) if broken > healthy else 0.0
        self.score = 0.0
        self.trials = self.failures = 0

    def __repr__(self) -> str:
        return f"<RecoveryTest {self.health} {self.score:.2f} {self.failures}/{self.trials}>"

    def observe(self, successes: int, failures: int) -> Health:
        """Take some trials and return what all of the stage say; a decision stands until `reset`."""
        if self.health is Health.UNDECIDED:
            self.trials += successes + failures
            self.failures += failures
            self.score += successes * self._good + failures * self._bad
        return self.health

    @property
    def health(self) -> Health:
        """Return what the trials say."""
        if self.score >= HEALTHY_AT:
            return Health.HEALTHY
        return Health.BROKEN if self.score <= BROKEN_AT else Health.UNDECIDED

    def reset(self) -> None:
        """Begin the next stage."""
        self.score = 0.0
        self.trials = self.failures = 0

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return keep(self)

    @classmethod
    def restored(cls, row: Mapping[str, Any]) -> RecoveryTest:
        """Return the test that `snapshot` described."""
        test = cls(0.0, 1.0)
        revive(test, row, 0.0)
        return test
