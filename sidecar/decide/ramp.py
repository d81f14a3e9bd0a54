"""
How a scope gets its traffic back: step by step, on evidence.

Theory
    An isolation always lets a share pass. What passes is a trial, and a reverse sequential test over it
    (`detect/recovery.py`) says `healthy`, `sick` or `unsure`. Time proves nothing: a step up needs the verdict
    `healthy`, enough successes, fresh ones (a rate, so that a scope nobody asks for is not "recovered"), and the shortest
    stay. One sick step costs one step, not the whole ramp: going to zero on one bad probe makes recovery last for ever
    under noise (Polly#2381), staying makes it dangerous.

Tables
    from the base share:  healthy → next step above the share that passes now
    on a step:            healthy → next step · sick → one step back (below the first one: the base share)
    on the last step:     healthy → done, the isolation ends as recovered

What can go wrong
    The base share, or the budget's floor, already lies above the first steps: they are skipped, not waited for.
    The budget raises the floor during a step: the share that passes is the larger one, the step stays.
    A step that is sick for ever: the base share is the lowest, and the verdict there changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MIN_SUCCESSES: Final = 5  # as many as a breaker's probes: one lucky request proves nothing
FRESH_S: Final = 10.0  # a success older than the breaker's window is no rate


class Proof(StrEnum):
    """What the trial traffic of this step says so far."""

    HEALTHY = "healthy"
    SICK = "sick"
    UNSURE = "unsure"


class Move(StrEnum):
    """What the ramp does now."""

    STAY = "stay"
    UP = "up"
    BACK = "back"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Trial:
    """
    What passed on the present step.

    Attributes:
        proof: The sequential test's verdict.
        successes: Since the step began.
        success_at: Monotonic seconds of the last second that had one; None before the first.
        since_at: Monotonic seconds at which the step began.
    """

    proof: Proof
    successes: int
    success_at: float | None
    since_at: float


def move(share_ratio: float, base_ratio: float, trial: Trial, hold_s: float, now: float) -> Move:
    """
    Decide what the ramp does now.

    Args:
        share_ratio: What passes now.
        base_ratio: What passes while nothing is recovered.
        trial: What this step has shown.
        hold_s: Shortest time on a step.
        now: Monotonic seconds.
    """
    if trial.proof is Proof.SICK:
        return Move.BACK if share_ratio > base_ratio else Move.STAY
    fresh = trial.success_at is not None and now - trial.success_at <= FRESH_S
    if trial.proof is not Proof.HEALTHY or not fresh or trial.successes < MIN_SUCCESSES:
        return Move.STAY
    if now - trial.since_at < hold_s:
        return Move.STAY
    return Move.DONE if share_ratio >= 1.0 else Move.UP


def step_up(steps: Sequence[float], share_ratio: float) -> float:
    """Return the first step above *share_ratio*; 1 when there is none."""
    return next((step for step in steps if step > share_ratio + 1e-9), 1.0)


def step_back(steps: Sequence[float], share_ratio: float, base_ratio: float) -> float | None:
    """Return the last step below *share_ratio* that lies above the base share; None means the base share itself."""
    below = [step for step in steps if base_ratio < step < share_ratio - 1e-9]
    return below[-1] if below else None
