"""Times to detect and false alarms on simulated traffic: the promises of the issue, each over several seeds."""

from __future__ import annotations

from statistics import median, quantiles

import pytest

from sidecar.facts import Detector
from tests.support.traffic import Traffic, first_claims, trained

NEVER = 999.0
SEEDS = range(20)


def times(detector: Detector, limit: int, **fault: float | bool) -> list[float]:
    """Return how long *detector* took on each seed at 10/s after 10 quiet minutes."""
    found = []
    for seed in SEEDS:
        traffic = Traffic(seed)
        bank = trained(traffic, 600)
        for name, value in fault.items():
            setattr(traffic, name, value)
        found.append(first_claims(bank, traffic, limit).get(detector, NEVER))
    return found


@pytest.mark.parametrize(
    ("ratio", "usual_s", "late_s"), [(1.0, 2, 3), (0.2, 4, 7), (0.05, 20, 45)], ids=["outage", "20 %", "5 %"]
)
def test_failures_are_found_in_seconds(ratio: float, usual_s: float, late_s: float) -> None:
    """
    At 10/s a total outage is found within 2 s, 20 % errors within 4 s and 5 % within 20 s (median), nine of ten soon after,
    when ten minutes are all that is known of the route.
    """
    found = times(Detector.ERRORS, 60, error_ratio=ratio)

    assert median(found) <= usual_s
    assert quantiles(found, n=10)[-1] <= late_s


def test_three_times_the_latency_is_found_within_10_s() -> None:
    """
    When all requests take three times as long, every seed knows within 10 s.
    """
    assert max(times(Detector.LATENCY, 20, slow_factor=3.0)) <= 10


def test_a_hang_is_found_long_before_its_timeout() -> None:
    """
    Requests that get no first byte count as slow while they wait: 5 s at most, not the timeout of 30 s.
    """
    assert max(times(Detector.LATENCY, 20, hanging=True)) <= 5


def test_an_outage_at_one_request_a_second_is_found_in_seconds() -> None:
    """
    At 1/s a total outage takes three or four failures: within 4 s (median).
    """
    found = []
    for seed in SEEDS:
        traffic = Traffic(seed, rate_per_s=1.0)
        bank = trained(traffic, 900)
        traffic.error_ratio = 1.0
        found.append(first_claims(bank, traffic, 30).get(Detector.ERRORS, NEVER))

    assert median(found) <= 4


@pytest.mark.parametrize("seed", [11])
def test_a_quiet_day_raises_nothing(seed: int) -> None:
    """
    86,400 s at 10/s with 0.1 % errors and lognormal latency: no claim by any detector.
    """
    traffic = Traffic(seed)
    bank = trained(traffic, 86_400)

    assert bank.signals() == ()


@pytest.mark.parametrize("seed", [101, 102])
def test_over_dispersed_traffic_raises_nothing(seed: int) -> None:
    """
    Three hours whose failures and arrivals vary three times as much as chance (φ = 3): no claim.
    """
    traffic = Traffic(seed, dispersion=3.0, error_ratio=0.005)
    bank = trained(traffic, 10_800)

    assert bank.signals() == ()


def test_a_small_warmup_works_at_once() -> None:
    """
    With `warmup: 3s` and 40/s a route is ready after 3 s and finds an outage within 3 s more.
    """
    from sidecar.detect.policies import DetectPolicy

    traffic = Traffic(5, rate_per_s=40.0)
    bank = trained(traffic, 20, DetectPolicy(warmup_s=3.0, clear_after_s=3.0))
    traffic.error_ratio = 1.0

    assert first_claims(bank, traffic, 10)[Detector.ERRORS] <= 3
