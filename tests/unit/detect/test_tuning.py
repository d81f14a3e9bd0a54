"""Verdicts move thresholds: towards 90 % precision, within bounds, partly for the whole service."""

from __future__ import annotations

import pytest

from sidecar.detect.bank import Bank
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.tuning import HIGHEST, LOWEST, STEPS, Tuning
from sidecar.facts import Detector, RouteSecond

ERRORS = Detector.ERRORS


def after(*verdicts: str, route: str = "a") -> Tuning:
    """Return what these verdicts on one route teach."""
    tuning = Tuning()
    for verdict in verdicts:
        tuning = tuning.moved(route, ERRORS, STEPS[verdict])
    return tuning


@pytest.mark.parametrize(("verdict", "expected"), [("false_positive", 0.9), ("confirmed", -0.1), ("missed", -2.0)])
def test_a_verdict_moves_its_route_by_its_step(verdict: str, expected: float) -> None:
    """
    The whole step counts on its own route, three tenths of it on every other one.
    """
    tuning = after(verdict)
    assert tuning.offset("a", ERRORS) == pytest.approx(expected)
    assert tuning.offset("b", ERRORS) == pytest.approx(0.3 * expected)
    assert tuning.offset("a", Detector.LATENCY) == 0.0


def test_nine_of_ten_is_the_fixed_point() -> None:
    """
    One false positive among ten verdicts leaves the threshold where it was.
    """
    assert after(*["confirmed"] * 9, "false_positive").offset("a", ERRORS) == pytest.approx(0.0, abs=1e-9)


def test_offsets_are_bounded() -> None:
    """
    No number of verdicts makes a detector deaf or hysterical.
    """
    assert after(*["false_positive"] * 50).offset("a", ERRORS) == HIGHEST
    assert after(*["missed"] * 50).offset("a", ERRORS) == LOWEST


def test_a_step_is_taken_back() -> None:
    """
    A changed verdict undoes the step of the old one.
    """
    tuning = after("false_positive").moved("a", ERRORS, -STEPS["false_positive"])
    assert tuning.offset("a", ERRORS) == pytest.approx(0.0)


def test_it_survives_as_json() -> None:
    """
    What is stored is what was learnt.
    """
    tuning = after("false_positive", "missed")
    assert Tuning.from_json(tuning.to_json()) == tuning


def fires_after(tuning: Tuning) -> int:
    """Return after how many seconds of 5 % errors the bank signals."""
    bank = Bank(DetectPolicy(warmup_s=10.0), ["a"], 0.0)
    bank.tune(tuning)
    for at in range(1, 400):
        bank.observe([RouteSecond("a", float(at), arrivals=20, successes=20)], float(at))
    for extra in range(1, 60):
        at = 400.0 + extra
        if bank.observe([RouteSecond("a", at, arrivals=20, successes=19, failures=1)], at):
            return extra
    return 60


def test_the_bank_fires_where_tuning_says() -> None:
    """
    Later after false positives, sooner after misses.
    """
    plain = fires_after(Tuning())
    assert fires_after(after(*["false_positive"] * 6)) > plain > fires_after(after("missed", "missed"))
