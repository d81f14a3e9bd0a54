"""When a version that waits for its confirmation has made things clearly worse."""

from __future__ import annotations

import random

import pytest

from sidecar.controller.watch import MIN_REQUESTS, Vitals, worse
from sidecar.facts import RouteSecond
from sidecar.measure import histogram

GOOD = Vitals(arrivals=600, refused=0, judged=600, failures=6, latency=histogram.of_values([0.02] * 600))


def after(arrivals: int = 60, refused: int = 0, failures: int = 0, latency_s: float = 0.02) -> Vitals:
    """Return the seconds after the change."""
    judged = arrivals - refused
    return Vitals(arrivals, refused, judged, failures, histogram.of_values([latency_s] * judged))


@pytest.mark.parametrize(
    ("vitals", "says"),
    [
        (after(), ""),
        (after(refused=30), "50% of requests are refused, 0% before"),
        (after(refused=60), "100% of requests are refused, 0% before"),
        (after(failures=30), "50% of requests fail, 1% before"),
        (after(latency_s=0.5), "95 % of answers take up to"),
        (after(refused=5), ""),
        (after(failures=3), ""),
        (after(latency_s=0.039), ""),
        (after(arrivals=MIN_REQUESTS - 1, refused=MIN_REQUESTS - 1), ""),
        (Vitals(), ""),
    ],
)
def test_what_counts_as_worse(vitals: Vitals, says: str) -> None:
    """
    A clear rise of refusals, failures or latency is told in words; a small one, or too few requests, is not.
    """
    found = worse(GOOD, vitals)
    assert found.startswith(says)
    assert bool(found) is bool(says)


def test_nothing_before_is_nothing_to_compare_with() -> None:
    """
    Without traffic before the change only the deadline reverts.
    """
    assert worse(Vitals(), after(refused=60)) == ""


def test_an_api_that_always_failed_is_no_reason() -> None:
    """
    What was as bad before does not count against the version.
    """
    bad = Vitals(600, 300, 300, 150, histogram.of_values([2.0] * 300))
    assert worse(bad, Vitals(60, 30, 30, 15, histogram.of_values([2.0] * 30))) == ""


def test_chance_alone_reverts_nothing() -> None:
    """
    2 % failures, 3 % refusals and 4 % answers of 0.4 s, the same before and after: looked at 60 times each, in 200
    trials, nothing is worse.
    """
    draw = random.Random(7)

    def second(at: float) -> RouteSecond:
        refused = sum(draw.random() < 0.03 for _ in range(10))
        failures = sum(draw.random() < 0.02 for _ in range(10 - refused))
        seconds = [0.4 if draw.random() < 0.04 else 0.01 for _ in range(10 - refused)]
        latency = histogram.of_values(seconds)
        successes = 10 - refused - failures
        return RouteSecond(
            "r", at, arrivals=10, successes=successes, failures=failures, cancelled=refused, latency=latency
        )

    for _ in range(200):
        before = Vitals.of([second(float(number)) for number in range(60)])
        later = [second(60.0 + number) for number in range(60)]
        assert [worse(before, Vitals.of(later[:count])) for count in range(3, 61, 3)] == [""] * 20
