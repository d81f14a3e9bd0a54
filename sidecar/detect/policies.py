"""What the detectors are told; see `docs/adr` on detection for where the numbers come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from sidecar.facts import Detector, Mode


class Sensitivity(StrEnum):
    """Moves the expected false alarms a route and month (0.2, 1, 5), nothing else."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


_NOTHING: Final[Mapping[Any, Any]] = {}  # one for all: a policy is part of what a route costs


@dataclass(frozen=True, slots=True)
class Objective:
    """
    What one route may spend.

    Attributes:
        bad_ratio: Failures of all judged requests; 0 for no promise.
        slow_ratio, slow_s: Requests that take longer than `slow_s`; 0 for no promise.
    """

    bad_ratio: float = 0.0
    slow_ratio: float = 0.0
    slow_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DetectPolicy:
    """
    How the detectors judge.

    Attributes:
        mode: `off` stops them; `observe` lets them signal but never isolate.
        sensitivity: The false-alarm budget.
        sensitivities: Of single routes, by name.
        min_requests: Sample below which automation never isolates (a breaker trip excepted).
        warmup_s: Shortest time of learning before a baseline counts. The request counts of `detection.md` (300 for
            errors, 1,000 for latency) hold at the default of 60 s and shrink in proportion below it.
        clear_after_s: How long a score must stay low before its alarm closes.
        slo_error_ratio: Failures that the objective allows; a lasting shift above it never becomes normal by itself. Of
            all routes together: the strictest of theirs.
        slo_error_ratios: Of single routes, by name.
        objective: What the one route promises that this is the policy of; None where it promises nothing.
        objectives: Of single routes, by name.
        offsets: What verdicts taught (`tuning.py`): by detector, on top of its threshold.
    """

    mode: Mode = Mode.ENFORCE
    sensitivity: Sensitivity = Sensitivity.NORMAL
    min_requests: int = 20
    warmup_s: float = 60.0
    clear_after_s: float = 60.0
    slo_error_ratio: float = 0.001
    sensitivities: Mapping[str, Sensitivity] = field(default_factory=lambda: _NOTHING)
    slo_error_ratios: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    objective: Objective | None = None
    objectives: Mapping[str, Objective] = field(default_factory=lambda: _NOTHING)
    offsets: Mapping[Detector, float] = field(default_factory=lambda: _NOTHING)

    def of(self, route: str) -> DetectPolicy:
        """Return how *route* is judged."""
        own, allowed = self.sensitivities.get(route), self.slo_error_ratios.get(route)
        objective = self.objectives.get(route)
        if own is None and allowed is None and objective is None:
            return self
        return replace(
            self,
            sensitivity=self.sensitivity if own is None else own,
            slo_error_ratio=self.slo_error_ratio if allowed is None else allowed,
            objective=objective,
        )
