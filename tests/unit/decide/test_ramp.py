"""The ramp: steps on evidence, one step back on a sick one."""

from __future__ import annotations

import pytest

from sidecar.decide.ramp import FRESH_S, MIN_SUCCESSES, Move, Proof, Trial, move, step_back, step_up

STEPS = (0.01, 0.05, 0.25, 0.5, 1.0)


def trial(proof: Proof = Proof.HEALTHY, **given: float | None) -> Trial:
    """Well trials, ten of them, the last one now (at 100), on a step since 80."""
    facts = {"successes": 10, "success_at": 100.0, "since_at": 80.0} | given
    return Trial(proof, **facts)  # type: ignore[arg-type]


def moved(share: float, seen: Trial, base: float = 0.1) -> Move:
    """Decide at 100 with a hold of 10 s."""
    return move(share, base, seen, 10.0, 100.0)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (trial(), Move.UP),
        (trial(Proof.UNSURE), Move.STAY),
        (trial(Proof.SICK), Move.BACK),
        (trial(successes=MIN_SUCCESSES - 1), Move.STAY),
        (trial(success_at=None), Move.STAY),
        (trial(success_at=100.0 - FRESH_S - 1), Move.STAY),
        (trial(since_at=91.0), Move.STAY),
        (trial(since_at=90.0), Move.UP),
    ],
)
def test_a_step_needs_a_verdict_successes_a_rate_and_the_hold(seen: Trial, expected: Move) -> None:
    """
    Every condition alone keeps the step; a sick one goes back at once.
    """
    assert moved(0.25, seen) is expected


def test_the_last_step_ends_the_isolation() -> None:
    """
    At 100 % the same evidence means done.
    """
    assert moved(1.0, trial()) is Move.DONE


def test_sick_at_the_base_changes_nothing() -> None:
    """
    There is nothing below the base share.
    """
    assert moved(0.1, trial(Proof.SICK)) is Move.STAY


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.01), (0.1, 0.25), (0.25, 0.5), (0.5, 1.0), (1.0, 1.0)])
def test_the_next_step_lies_above_what_passes(share: float, expected: float) -> None:
    """
    Steps below the share that passes already are skipped.
    """
    assert step_up(STEPS, share) == expected


@pytest.mark.parametrize(("share", "expected"), [(1.0, 0.5), (0.5, 0.25), (0.25, None), (0.2, None)])
def test_one_step_back_ends_at_the_base(share: float, expected: float | None) -> None:
    """
    The step below, or the base share when the step lies at or below it.
    """
    assert step_back(STEPS, share, 0.1) == expected
