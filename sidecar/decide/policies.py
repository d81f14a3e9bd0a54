"""What the deciding stage is told: how far automation may go, and what happens when nobody answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.facts import Detector, Mode


class Response(StrEnum):
    """What automation does with a scope that it found abnormal."""

    OBSERVE = "observe"
    THROTTLE = "throttle"
    ISOLATE = "isolate"


class LadderStep(StrEnum):
    """What happens when a provisional isolation stays unanswered."""

    ESCALATE = "escalate"
    PROBE = "probe"
    HOLD = "hold"
    RELEASE = "release"


class RollbackMode(StrEnum):
    """What happens to a config version that is the first suspect."""

    NEVER = "never"
    PROPOSE = "propose"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung of the unattended ladder: *do* this once *after_s* have passed without an answer."""

    after_s: float
    do: LadderStep


@dataclass(frozen=True, slots=True)
class RespondPolicy:
    """
    How far automation may go.

    Attributes:
        mode: `observe` opens incidents and says what it would have done, and changes nothing.
        action: What an isolation does; `throttle` passes `share_ratio`, `isolate` only the small sample.
        share_ratio: What still passes of a throttled scope.
        max_refused_ratio: The blast-radius budget: automation never refuses a larger part of all traffic.
        lease_s: How long an isolation lasts unless renewed.
        ramp: Shares that pass on recovery, in order; the last is 1.
        ramp_hold_s: Shortest time on a step.
        ladder: In order of `after_s`.
        rollback: What happens to a suspected config version.
        suspect_window_s: A version applied at most this long before the onset is a suspect.
        clear_after_s: Quiet time after which an incident without isolation resolves.
        min_requests: As in `DetectPolicy`.
    """

    mode: Mode = Mode.ENFORCE
    action: Response = Response.THROTTLE
    share_ratio: float = 0.1
    max_refused_ratio: float = 0.8
    lease_s: float = 900.0
    ramp: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5, 1.0)
    ramp_hold_s: float = 10.0
    ladder: tuple[Rung, ...] = (Rung(300.0, LadderStep.ESCALATE), Rung(900.0, LadderStep.PROBE))
    rollback: RollbackMode = RollbackMode.PROPOSE
    suspect_window_s: float = 600.0
    clear_after_s: float = 60.0
    min_requests: int = 20


@dataclass(frozen=True, slots=True)
class ListenPolicy:
    """
    Which detectors are listened to.

    Attributes:
        everywhere: Modes of detectors on all routes; one that is absent is `enforce`.
        routes: Of single routes, by (name, detector).
    """

    everywhere: Mapping[Detector, Mode] = field(default_factory=dict)
    routes: Mapping[tuple[str, Detector], Mode] = field(default_factory=dict)

    def mode_of(self, route: str, detector: Detector) -> Mode:
        """Return the mode of *detector* on *route*; of all routes together for an empty one."""
        return self.routes.get((route, detector)) or self.everywhere.get(detector, Mode.ENFORCE)
