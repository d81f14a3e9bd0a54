"""Surge and silence."""

from __future__ import annotations

import pytest

from sidecar.detect.alarm import State
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.traffic import TrafficDetector
from sidecar.facts import Detector, Scope, Signal
from tests.support.traffic import poisson


class Play:
    """A detector with Poisson arrivals."""

    def __init__(self, seed: int = 1) -> None:
        import random

        self.rng = random.Random(seed)
        self.at = 0.0
        self.detector = TrafficDetector(DetectPolicy(), 0.0)

    def run(self, seconds: int, rate_per_s: float) -> Play:
        for _ in range(seconds):
            self.at += 1
            self.detector.observe(poisson(self.rng, rate_per_s), self.at, 1.0)
        return self

    @property
    def signals(self) -> dict[Detector, Signal]:
        return {signal.detector: signal for signal in self.detector.signals(Scope.route("checkout"))}


def test_the_forecast_needs_ten_warmups() -> None:
    """
    For ten minutes nothing is claimed, and the inventory says how long to wait.
    """
    play = Play().run(300, 10.0).run(60, 100.0)

    assert play.signals == {}
    assert play.detector.forecast.cold == "forecast cold, 360 of 600 s"
    assert play.detector.state(Detector.SURGE) is State.LEARNING


def test_three_times_the_traffic_is_a_surge() -> None:
    """
    A surge is claimed after ten seconds, in requests a second, never fit to act upon.
    """
    play = Play().run(1200, 10.0).run(9, 30.0)
    early = play.signals
    signal = play.run(4, 30.0).signals[Detector.SURGE]

    assert early == {}
    assert (signal.unit, signal.material, signal.severe) == ("per_s", False, False)
    assert signal.value == pytest.approx(30, rel=0.2)
    assert signal.baseline == pytest.approx(10, rel=0.1)


def test_a_short_burst_is_no_surge() -> None:
    """
    Five seconds at ten times the rate pass without a claim.
    """
    assert Play().run(1200, 10.0).run(5, 100.0).run(60, 10.0).signals == {}


@pytest.mark.parametrize(("rate_per_s", "within_s"), [(10.0, 6), (1.0, 20), (0.1, 200)])
def test_silence_takes_sixteen_periods(rate_per_s: float, within_s: int) -> None:
    """
    No arrival for 16·φ/λ seconds, five at least, is silence.
    """
    play = Play().run(9000 if rate_per_s < 1 else 1800, rate_per_s)
    before = play.signals
    signal = play.run(round(within_s * play.detector.forecast.dispersion.value) + 1, 0.0).signals

    assert before == {}
    assert set(signal) == {Detector.SILENCE}
    assert signal[Detector.SILENCE].value == 0.0


def test_half_the_traffic_is_noticed() -> None:
    """
    A lasting fall to 40 % is claimed as silence within half a minute.
    """
    assert Detector.SILENCE in Play().run(1800, 10.0).run(30, 4.0).signals


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_surge_is_as_large_as_what_came_beyond_the_forecast(seed: int) -> None:
    """
    13 s at 30/s where 10/s are normal: 260 requests more.
    """
    signal = Play(seed).run(1200, 10.0).run(13, 30.0).signals[Detector.SURGE]

    assert signal.excess == pytest.approx(260, rel=0.2)


@pytest.mark.parametrize(
    ("rate_per_s", "seconds", "missing"), [(0.0, 6, 60), (0.0, 60, 600), (4.0, 20, 120), (4.0, 60, 360)]
)
def test_a_silence_is_as_large_as_what_stayed_away(rate_per_s: float, seconds: int, missing: int) -> None:
    """
    A minute without any of 10/s: 600 requests; a minute at 4/s: 360; in the first seconds as many as have stayed away by then.
    """
    signal = Play().run(1200, 10.0).run(seconds, rate_per_s).signals[Detector.SILENCE]

    assert signal.excess == pytest.approx(missing, rel=0.2)


def test_the_day_rises_without_a_claim() -> None:
    """
    Traffic that grows sevenfold over three hours and falls again is followed by the forecast.
    """
    play = Play()
    play.run(1200, 3.0)
    for minute in range(360):
        height = minute if minute < 180 else 360 - minute
        play.run(60, 3.0 * 7 ** (height / 180))
        assert play.signals == {}, f"minute {minute}"


def test_the_first_one_at_work_is_no_surge() -> None:
    """
    After a night at a request in 20 s, one request a second is none.
    """
    assert Play().run(9000, 0.05).run(300, 1.0).signals == {}


def test_silence_ends_with_the_traffic() -> None:
    """
    A minute after the requests are back the claim is closed.
    """
    play = Play().run(1200, 10.0).run(60, 0.0)
    standing = set(play.signals)

    assert standing == {Detector.SILENCE}
    assert play.run(75, 10.0).signals == {}


def test_what_was_not_observed_is_no_silence() -> None:
    """
    A gap of an hour in the reports, with traffic before and after, claims nothing.
    """
    play = Play().run(1200, 10.0)
    play.at += 3600
    play.detector.skip(play.at)

    assert play.run(60, 10.0).signals == {}


def test_a_verdict_makes_the_present_rate_normal() -> None:
    """
    After `benign` the new rate is the forecast.
    """
    play = Play().run(1200, 10.0).run(120, 40.0)
    play.detector.accept(Detector.SURGE)

    assert play.run(600, 40.0).signals == {}


def test_a_lasting_shift_is_normal_after_a_day() -> None:
    """
    24 h of surge re-baseline, visibly.
    """
    play = Play().run(1200, 10.0).run(60, 40.0)
    for _ in range(8700):
        play.at += 10
        play.detector.observe(400, play.at, 10.0)

    assert play.detector.rebaselined == [Detector.SURGE]
    assert play.signals == {}
