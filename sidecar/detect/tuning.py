"""
What verdicts teach the detectors: an offset on each threshold.

Theory
    A detector fires at h + d. Each verdict moves d of its (route, detector): a false positive up by `STEPS`, a confirmed
    incident down by a little, a miss down by much. The steps are balanced where 9 of 10 verdicts confirm:
    0.9 · 1 = 0.1 · 9, so precision drifts towards 90 % and stays there. Routes of one service are alike, so `SHARED` of
    each step goes to the service's own offset, which is in force on every route.

        d(route) = clamp(own(route) + own(service), −3, +6)

    Precision is not everything: a false trigger may be as strong as an incident, at any threshold. What is silent because it
    is no larger than what was called false is `decide/size.py`.

What can go wrong
    A threshold that rises hides alarms: before a step up counts, the stored history is replayed with it
    (`controller/studying.py`), and one that hides a confirmed incident is not taken.
    A verdict is changed: its step is taken back before the new one is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.facts import Detector

STEPS: Final[Mapping[str, float]] = {"false_positive": 0.9, "confirmed": -0.1, "missed": -2.0}
LOWEST, HIGHEST = -3.0, 6.0
SHARED: Final = 0.3
SERVICE: Final = ""  # the route of what was found at the service
TUNED: Final = (Detector.ERRORS, Detector.LATENCY, Detector.SURGE, Detector.SILENCE, Detector.REFUSALS, Detector.DRIFT)

Key = tuple[str, Detector]


def clamp(offset: float) -> float:
    """Return *offset* within its bounds."""
    return min(max(offset, LOWEST), HIGHEST)


@dataclass(frozen=True, slots=True)
class Tuning:
    """
    What was learnt so far.

    Attributes:
        own: By (route, detector).
        service: By detector, in force on every route.
    """

    own: Mapping[Key, float] = field(default_factory=dict)
    service: Mapping[Detector, float] = field(default_factory=dict)

    def offset(self, route: str, detector: Detector) -> float:
        """Return d."""
        return clamp(self.own.get((route, detector), 0.0) + self.service.get(detector, 0.0))

    def offsets(self, route: str) -> dict[Detector, float]:
        """Return d of each detector of *route* that has one."""
        found = {detector: self.offset(route, detector) for detector in TUNED}
        return {detector: d for detector, d in found.items() if d}

    def moved(self, route: str, detector: Detector, step: float) -> Tuning:
        """Return this with *step* taken, a part of it by the service."""
        if detector not in TUNED:
            return self
        own = clamp(self.own.get((route, detector), 0.0) + (1.0 - SHARED) * step)
        shared = clamp(self.service.get(detector, 0.0) + SHARED * step)
        return Tuning({**self.own, (route, detector): own}, {**self.service, detector: shared})

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "own": [[route, detector.value, d] for (route, detector), d in self.own.items()],
            "service": {detector.value: d for detector, d in self.service.items()},
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Tuning:
        """Read what `to_json` wrote."""
        return cls(
            {(route, Detector(name)): d for route, name, d in row["own"]},
            {Detector(name): d for name, d in row["service"].items()},
        )
