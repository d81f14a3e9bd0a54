"""
Drills: a fault on purpose, and how every stage of the loop did against its target.

Theory
    Protection that is never exercised is a hope. A drill injects one fault behind the guard of one route, for a limited
    time, marked as a drill everywhere; the loop must find it, name it, tell people, act, and give back by itself once it is
    over. Each stage is a moment and a target; the drill passes only when all were met.

Tables (seconds; from the fault's start, `told` from the detection, `recovered` from the fault's end)

    stage        errors   hang   latency   surge   bad-config    is met when
    reflex       5        –      –         –       –             the route's breaker tripped (if it has one)
    detected     5        20     30        40      45            an incident is open
    attributed   10       25     35        45      50            its scope is the route
    evidence     5        20     30        40      45            the last 120 s are frozen in it
    told         2        2      2         2       2             every receiver has taken a message (where there is one)
    isolated     10       –      –         –       –             an isolation covers the route (where automation enforces)
    blamed       –        –      –         –       50            the config version is named as the first suspect
    recovered    120 and what the ramp takes                     nothing is isolated, and the incident is resolved

What can go wrong
    Real trouble during a drill: it ends at once and has no grade. Too little traffic: nothing can be found in time, so it is
    refused before it begins. The route stands for most of the service: the whole service may be the narrowest scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from sidecar.facts import Moment
from sidecar.incident.words import rfc3339

LONGEST_S: Final = 600.0
SHORTEST_S: Final = 10.0
LEAST_PER_S: Final = 2.0
RECOVERY_S: Final = 120.0
TOLD_S: Final = 2.0


class DrillKind(StrEnum):
    """What goes wrong."""

    ERRORS = "errors"
    LATENCY = "latency"
    HANG = "hang"
    SURGE = "surge"
    BAD_CONFIG = "bad-config"


class DrillState(StrEnum):
    """Where a drill stands."""

    INJECTING = "injecting"
    RECOVERING = "recovering"
    PASSED = "passed"
    FAILED = "failed"
    ABORTED = "aborted"


class Stage(StrEnum):
    """What the loop must do."""

    REFLEX = "reflex"
    DETECTED = "detected"
    ATTRIBUTED = "attributed"
    EVIDENCE = "evidence"
    TOLD = "told"
    ISOLATED = "isolated"
    BLAMED = "blamed"
    RECOVERED = "recovered"


_D, _S = DrillKind, Stage
_DETECTED: Final = {_D.ERRORS: 5.0, _D.HANG: 20.0, _D.LATENCY: 30.0, _D.SURGE: 40.0, _D.BAD_CONFIG: 45.0}
MORE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Drill:
    """
    One drill.

    Attributes:
        share_ratio: The part of the route's requests that meets the fault.
        started, ends: When the fault begins and ends by itself.
        faulted: When the fault ended; None while it is injected.
        ended: When the drill was graded or given up.
        incident: That the loop opened for it.
        marks: Stage → when it was done.
        targets: Stage → seconds; see the table.
        why: Why it ended before its time.
    """

    id: int
    kind: DrillKind
    route: str
    share_ratio: float
    author: str
    started: Moment
    ends: Moment
    targets: Mapping[Stage, float]
    state: DrillState = DrillState.INJECTING
    faulted: Moment | None = None
    ended: Moment | None = None
    incident: int | None = None
    marks: Mapping[Stage, Moment] = field(default_factory=dict)
    why: str = ""

    @property
    def running(self) -> bool:
        """Tell whether it is not over."""
        return self.state in (DrillState.INJECTING, DrillState.RECOVERING)

    def took(self, stage: Stage) -> float | None:
        """Return the seconds that *stage* took; None when it did not happen."""
        at = self.marks.get(stage)
        since = self.started
        if stage is Stage.TOLD:
            since = self.marks.get(Stage.DETECTED, self.started)
        elif stage is Stage.RECOVERED:
            since = self.faulted or self.started
        return None if at is None else max(at.at - since.at, 0.0)

    def met(self, stage: Stage) -> bool:
        """Tell whether *stage* was done in time."""
        took = self.took(stage)
        return took is not None and took <= self.targets[stage] + 1e-6

    def document(self) -> dict[str, Any]:
        """Return it in its public shape."""
        return {
            "id": self.id,
            "kind": self.kind.value,
            "route": self.route,
            "share": self.share_ratio,
            "author": self.author,
            "state": self.state.value,
            "why": self.why or None,
            "start_time": rfc3339(self.started.unix),
            "end_time": rfc3339((self.faulted or self.ends).unix),
            "incident": self.incident,
            "stages": [
                {"stage": s.value, "target_s": target, "took_s": self.took(s), "met": self.met(s)}
                for s, target in self.targets.items()
            ],
        }


def targets(
    kind: DrillKind,
    *,
    breaker: bool,
    ramp_s: float,
    clear_s: float,
    receivers: bool = True,
    isolates: bool = True,
) -> dict[Stage, float]:
    """
    Return what a drill of *kind* must reach.

    Args:
        breaker: The route has one.
        ramp_s: The shortest time that a whole ramp takes.
        clear_s: How long an alarm must be quiet.
        receivers: Somebody is told.
        isolates: Automation may; in observe mode it does not.
    """
    detected = _DETECTED[kind]
    made = {_S.REFLEX: detected} if breaker and kind is _D.ERRORS else {}
    made |= {_S.DETECTED: detected, _S.ATTRIBUTED: detected + MORE_S, _S.EVIDENCE: detected}
    if receivers:
        made[_S.TOLD] = TOLD_S
    if kind is _D.ERRORS and isolates:
        made[_S.ISOLATED] = detected + MORE_S
    if kind is _D.BAD_CONFIG:
        made[_S.BLAMED] = detected + MORE_S
    return made | {_S.RECOVERED: RECOVERY_S + 3.0 * ramp_s + 2.0 * clear_s}
