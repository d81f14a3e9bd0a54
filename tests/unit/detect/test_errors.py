"""The error detector on hand-made seconds."""

from __future__ import annotations

import pytest

from sidecar.detect.alarm import State
from sidecar.detect.errors import ErrorDetector
from sidecar.detect.policies import DetectPolicy
from sidecar.facts import Scope, Signal

ROUTE = Scope.route("checkout")


class Play:
    """A detector and its clock; `run` feeds equal seconds."""

    def __init__(self, policy: DetectPolicy | None = None) -> None:
        self.at = 0.0
        self.detector = ErrorDetector(policy or DetectPolicy(), 0.0)

    def run(self, seconds: int, requests: int = 10, bad: float = 0, step: float = 1.0, every: int = 1) -> Play:
        for i in range(seconds):
            self.at += step
            self.detector.observe(requests, bad if i % every == 0 else 0, self.at, step)
        return self

    def warm(self) -> Play:
        """Feed 20 minutes with one failure in a hundred seconds."""
        return self.run(1200, bad=1, every=100)

    @property
    def signal(self) -> Signal | None:
        return self.detector.signal(ROUTE)


def test_an_outage_is_severe_and_material_within_one_window() -> None:
    """
    Two seconds in which all of 10/s fail raise; with 20 requests it is severe and, at h + 3, material.
    """
    signal = Play().warm().run(2, bad=10).signal

    assert signal is not None
    assert (signal.value, signal.sample, signal.since_at, signal.severe, signal.material) == (
        1.0,
        20,
        1200.0,
        True,
        True,
    )
    assert signal.score >= signal.threshold


def test_two_hiccups_do_not_fire() -> None:
    """
    Two seconds of total failure, ten minutes apart, of two requests each, are no incident.
    """
    play = Play().warm().run(1, requests=2, bad=2).run(600).run(1, requests=2, bad=2)

    assert play.signal is None


def test_one_burst_in_one_second_does_not_fire() -> None:
    """
    Thirty failures in a single second wait for a second one.
    """
    play = Play().warm().run(1, requests=30, bad=30)
    once = play.signal
    play.run(1, requests=10, bad=1)

    assert once is None
    assert play.signal is not None


def test_five_percent_is_not_material_where_one_percent_is_normal() -> None:
    """
    Action needs ten times the normal ratio; 5 % against 1 % raises only.
    """
    signal = Play().run(1200, bad=1, every=10).run(120, requests=20, bad=1).signal

    assert signal is not None
    assert not signal.material
    assert not signal.severe


def test_while_cold_only_half_of_all_failing_raises() -> None:
    """
    Before the warm-up 20 % failures are learnt, 100 % raise and throw the warm-up away.
    """
    some = Play().run(50, bad=2)
    all_fail = Play().run(10).run(10, bad=10)

    assert (some.signal, some.detector.state) == (None, State.LEARNING)
    assert all_fail.signal is not None
    assert all_fail.detector.baseline.requests == 0


def test_a_young_baseline_asks_for_three_percent() -> None:
    """
    Right after the warm-up 2 % failures do not raise; a tenth does.
    """
    assert Play().run(61).run(200, bad=1, every=5).signal is None
    assert Play().run(61).run(60, bad=1).signal is not None


def test_the_incident_is_not_learnt() -> None:
    """
    An hour of 30 % failures leaves the baseline exactly as it was before.
    """
    play = Play().warm().run(600)
    before = play.detector.baseline.ratio
    play.run(3600, bad=3)

    assert play.detector.state is State.ALARM
    assert play.detector.baseline.ratio == pytest.approx(before, rel=1e-9)


def test_frozen_seconds_are_not_learnt() -> None:
    """
    What is observed while frozen (a drill, an isolation) never reaches the baseline.
    """
    play = Play().warm()
    before = play.detector.baseline.requests
    for _ in range(2000):
        play.at += 1
        play.detector.observe(10, 0, play.at, 1.0, frozen=True)
    waiting = play.detector.baseline.requests

    assert waiting <= before + 10 * 600


def test_the_alarm_closes_after_recovery_and_the_wait() -> None:
    """
    After an outage of ten minutes some hundred good requests and 60 s close the alarm.
    """
    play = Play().warm().run(600, bad=10).run(60)
    standing = play.signal
    play.run(30)

    assert standing is not None
    assert play.signal is None
    assert play.detector.state is State.NORMAL


def test_no_traffic_proves_nothing() -> None:
    """
    Nine minutes without a judged request leave the alarm where it was.
    """
    play = Play().warm().run(5, bad=10)
    before = play.signal
    play.run(540, requests=0)

    assert before is not None
    assert play.signal is not None
    assert play.signal.score == before.score


def test_a_shift_within_the_objective_becomes_normal_after_a_day() -> None:
    """
    24 h at a ratio that the objective allows re-baseline, visibly; the same above the objective never does.
    """
    allowed = Play(DetectPolicy(slo_error_ratio=0.2)).warm().run(9000, bad=2, step=10.0)
    broken = Play(DetectPolicy(slo_error_ratio=0.001)).warm().run(9000, bad=2, step=10.0)

    assert (allowed.signal, allowed.detector.rebaselined) == (None, True)
    assert allowed.detector.baseline.ratio == pytest.approx(0.2, rel=0.05)
    assert broken.signal is not None


def test_a_verdict_makes_the_present_normal() -> None:
    """
    `benign` ends the alarm, and the same ratio does not raise again.
    """
    play = Play().warm().run(100, bad=2)
    play.detector.accept()
    play.run(300, bad=2)

    assert play.signal is None


def test_a_live_change_keeps_what_was_learnt() -> None:
    """
    A new sensitivity moves h and leaves the baseline.
    """
    play = Play().warm()
    ratio, level = play.detector.baseline.ratio, play.detector.threshold
    play.detector.apply(DetectPolicy(sensitivity=DetectPolicy().sensitivity.__class__.HIGH))

    assert play.detector.baseline.ratio == ratio
    assert play.detector.threshold < level
