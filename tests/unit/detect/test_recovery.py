"""The reverse test on trial traffic."""

from __future__ import annotations

import random

import pytest

from sidecar.detect.recovery import Health, RecoveryTest


@pytest.mark.parametrize(("incident", "trials"), [(1.0, 21), (0.2, 94), (0.05, 94)])
def test_good_trials_needed(incident: float, trials: int) -> None:
    """
    An outage is over after 21 good trials in a row; a partial failure needs as many as 5 % would take to show.
    """
    test = RecoveryTest(0.001, incident)
    needed = next(n for n in range(1, 1000) if test.observe(1, 0) is Health.HEALTHY)

    assert abs(needed - trials) <= 2


@pytest.mark.parametrize("incident", [1.0, 0.2])
def test_failing_trials_say_broken_at_once(incident: float) -> None:
    """
    Two failed trials of two are enough.
    """
    assert RecoveryTest(0.001, incident).observe(0, 2) is Health.BROKEN


def test_no_trial_says_nothing() -> None:
    """
    Without trials it stays undecided.
    """
    assert RecoveryTest(0.001, 1.0).observe(0, 0) is Health.UNDECIDED


def test_an_outage_that_became_a_tenth_is_not_well() -> None:
    """
    10 % failures after a total outage are rarely called healthy.
    """
    verdicts = []
    for seed in range(200):
        rng, test = random.Random(seed), RecoveryTest(0.001, 1.0)
        while test.health is Health.UNDECIDED:
            bad = rng.random() < 0.1
            test.observe(not bad, bad)
        verdicts.append(test.health)

    assert verdicts.count(Health.HEALTHY) < 40


@pytest.mark.parametrize(("ratio", "wrong"), [(0.001, Health.BROKEN), (0.3, Health.HEALTHY)])
def test_both_errors_are_small(ratio: float, wrong: Health) -> None:
    """
    At normal and at 30 % failures the wrong answer comes in at most a few of 500 runs.
    """
    count = 0
    for seed in range(500):
        rng, test = random.Random(seed), RecoveryTest(0.001, 1.0)
        while test.health is Health.UNDECIDED:
            bad = rng.random() < ratio
            test.observe(not bad, bad)
        count += test.health is wrong

    assert count <= 12


def test_a_route_that_always_fails_some_can_recover() -> None:
    """
    Where 20 % failures are normal, an incident at 90 % ends with the normal 20 %.
    """
    rng, test = random.Random(1), RecoveryTest(0.2, 0.9)
    while test.health is Health.UNDECIDED:
        bad = rng.random() < 0.2
        test.observe(not bad, bad)

    assert test.health is Health.HEALTHY


def test_a_reset_begins_the_next_stage_and_a_snapshot_goes_on() -> None:
    """
    After a reset nothing is known; a restored test decides with the same next trial.
    """
    test = RecoveryTest(0.001, 1.0)
    test.observe(10, 0)
    twin = RecoveryTest.restored(test.snapshot())
    test.reset()

    assert (test.score, test.trials) == (0.0, 0)
    assert twin.observe(12, 0) is Health.HEALTHY
