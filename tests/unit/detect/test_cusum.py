"""The mixture of sequential tests, computed by hand."""

from __future__ import annotations

from math import log

import pytest

from sidecar.detect.baseline import logit, sigmoid
from sidecar.detect.cusum import CEILING, STEPS, Mixture, threshold
from sidecar.detect.policies import Sensitivity

P0 = 0.00149


def mixture(normal: float = P0, dispersion: float = 1.0, **kwargs: float) -> Mixture:
    test = Mixture(0.0, explains=True)
    test.aim(normal, dispersion, 1e9, **kwargs)
    return test


@pytest.mark.parametrize(("requests", "bad"), [(10, 1), (10, 10), (3, 2)])
def test_the_score_is_the_documented_formula(requests: int, bad: int) -> None:
    """
    After one second the top is the largest of the five log-likelihood ratios, none below zero.
    """
    test = mixture()
    test.add(requests, bad, 1.0)

    ratios = [min(sigmoid(logit(P0) + step), CEILING) for step in STEPS]
    terms = [bad * log(p / P0) + (requests - bad) * log((1 - p) / (1 - P0)) for p in ratios]
    assert test.top == pytest.approx(max(0.0, *terms))


def test_dispersion_divides_the_evidence() -> None:
    """
    With φ = 3 the same counts carry a third of the evidence.
    """
    plain, dispersed = mixture(), mixture(dispersion=3.0)
    for test in (plain, dispersed):
        test.add(10, 5, 1.0)

    assert dispersed.top == pytest.approx(plain.top / 3)


def test_good_requests_take_a_score_back_to_zero_and_not_below() -> None:
    """
    A score never goes below zero, so good times are not saved up against a later incident.
    """
    test = mixture()
    test.add(100_000, 0, 1.0)
    test.add(2, 2, 2.0)
    after_good = test.top
    fresh = mixture()
    fresh.add(2, 2, 2.0)

    assert after_good == fresh.top


def test_the_onset_is_the_last_second_before_the_score_left_zero() -> None:
    """
    A rise that began after second 50 is dated to it, with what was counted since.
    """
    test = mixture()
    for at in range(1, 51):
        test.add(10, 0, float(at))
    for at in range(51, 54):
        test.add(10, 4, float(at))

    onset_at, since = test.onset()
    assert (onset_at, since.requests, since.bad, since.bad_seconds) == (50.0, 30, 12, 3)


@pytest.mark.parametrize(
    ("seconds", "repeated"), [([3], False), ([2, 1], True), ([1, 1], False), ([1, 1, 1], True), ([50], False)]
)
def test_a_hiccup_is_not_repeated(seconds: list[int], repeated: bool) -> None:
    """
    Three bad requests in two different seconds are the least; fifty in one second are still a hiccup.
    """
    test = mixture()
    for at, bad in enumerate(seconds, 1):
        test.add(bad, bad, float(at))

    assert test.repeated() is repeated


def test_alternatives_below_the_least_ratio_take_no_part() -> None:
    """
    A cold baseline asks for half of all requests failing: one in ten moves no score.
    """
    test = mixture(least_ratio=0.5)
    for at in range(1, 100):
        test.add(10, 1, float(at))

    assert test.top < 5


def test_a_normal_ratio_beyond_every_alternative_is_never_exceeded() -> None:
    """
    Where 99.5 % failing is normal no alternative is worse, and nothing is claimed.
    """
    test = mixture(normal=0.995)
    test.add(100, 100, 1.0)

    assert test.top == 0.0


def test_scores_end_at_the_cap_and_fade_with_requests() -> None:
    """
    A long outage does not pile up evidence, and e-folds over the given number of requests.
    """
    test = Mixture(0.0, explains=True)
    test.aim(P0, 1.0, 30.0)
    test.add(1000, 1000, 1.0)
    at_cap = test.top
    test.forget(50, 50.0)

    assert at_cap == 30.0
    assert test.top == pytest.approx(30 / 2.718281828, rel=1e-6)


def test_the_threshold_buys_the_promised_false_alarms() -> None:
    """
    h = ln(requests of 30 days) + ln 5 + ln(tests), the requests held in 1e4 … 1e9, and ±ln 5 by sensitivity.
    """
    normal = threshold(10.0, 2, Sensitivity.NORMAL)

    assert normal == pytest.approx(log(10 * 30 * 86400) + log(5) + log(2))
    assert threshold(0.0, 1, Sensitivity.NORMAL) == pytest.approx(log(1e4) + log(5))
    assert threshold(1e9, 1, Sensitivity.NORMAL) == pytest.approx(log(1e9) + log(5))
    assert normal - threshold(10.0, 2, Sensitivity.HIGH) == pytest.approx(log(5))
    assert threshold(10.0, 2, Sensitivity.LOW) - normal == pytest.approx(log(5))


def test_a_snapshot_of_another_size_is_refused() -> None:
    """
    A document that does not fit raises instead of being half restored.
    """
    with pytest.raises(ValueError, match="35 numbers"):
        Mixture(0.0).restore(Mixture(0.0, 2).snapshot(), 0.0)


def test_what_is_explained_is_no_evidence_and_no_more_is_given_back_than_was_taken() -> None:
    """
    Explained nats lower every score; a refund lifts a score up to what was taken from it since it left zero, not beyond.
    """
    plain, charged = mixture(), mixture()
    plain.add(10, 5, 1.0)
    charged.add(10, 5, 1.0, explained=4.0)
    assert charged.top == pytest.approx(plain.top - 4.0)

    plain.add(1, 1, 2.0)
    charged.add(1, 1, 2.0, explained=-50.0)
    assert charged.top == pytest.approx(plain.top)


def test_a_large_alternative_has_a_level_of_its_own() -> None:
    """
    Given h, the third alternative reaches it with ln(p3) nats less, and the two smallest ones with all of h.
    """
    level, ratios = 20.0, [min(sigmoid(logit(P0) + step), CEILING) for step in STEPS]
    test = Mixture(0.0, explains=True)
    test.aim(P0, 1.0, 1e9, level=level)
    test.add(1, 1, 1.0)

    expected = [log(p / P0) * (level / (level + log(p)) if j >= 2 else 1.0) for j, p in enumerate(ratios)]
    assert test.top == pytest.approx(max(expected))
