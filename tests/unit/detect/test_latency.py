"""The latency detector: levels, materiality, and each request counted once."""

from __future__ import annotations

import random

import pytest

from sidecar.detect.alarm import State
from sidecar.detect.latency import LatencyDetector, Waiters
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.quantiles import LatencyBaseline, quantile_s
from sidecar.facts import RouteSecond, Scope, Signal
from sidecar.measure.histogram import index, of_values
from tests.support.traffic import Traffic

ROUTE = Scope.route("checkout")


class Play:
    """A detector fed from simulated traffic."""

    def __init__(self, seed: int = 1, **traffic: float) -> None:
        self.traffic = Traffic(seed, **traffic)
        self.detector = LatencyDetector(DetectPolicy(), self.traffic.at)

    def run(self, seconds: int, **change: float | bool) -> Play:
        for name, value in change.items():
            setattr(self.traffic, name, value)
        for second in self.traffic.seconds(seconds):
            self.detector.observe(second, 1.0)
        return self

    @property
    def signal(self) -> Signal | None:
        return self.detector.signal(ROUTE)


def test_it_is_cold_for_a_thousand_requests() -> None:
    """
    Before 1,000 requests nothing is claimed, whatever happens, and the inventory says what lacks.
    """
    play = Play().run(30).run(60, slow_factor=20.0)

    assert play.detector.state is State.LEARNING
    assert play.detector.baseline.cold.endswith("of 1000 requests")
    assert play.signal is None


def test_a_slowdown_of_all_is_found_and_material() -> None:
    """
    Ten times 20 ms is more than twice and more than 50 ms: raised at once and fit to act upon; never severe.
    """
    signal = Play().run(600).run(10, slow_factor=10.0).signal

    assert signal is not None
    assert (signal.unit, signal.material, signal.severe) == ("s", True, False)
    assert signal.baseline == pytest.approx(0.02 * 2.28, rel=0.15)
    assert signal.value > 3 * signal.baseline


def test_three_times_the_latency_of_a_fast_route_raises_and_is_not_acted_upon() -> None:
    """
    10 ms more is nothing to isolate for, though p95 tripled.
    """
    signal = Play(median_s=0.002).run(600).run(30, slow_factor=3.0).signal

    assert signal is not None
    assert not signal.material


def test_a_shift_too_small_to_speak_of_never_raises() -> None:
    """
    All requests 15 % slower is certain, and still no claim: p95 is below 1.3 times and 50 ms.
    """
    assert Play(sigma=0.1).run(600).run(600, slow_factor=1.15).signal is None


def test_less_than_five_milliseconds_is_jitter() -> None:
    """
    Half a millisecond that becomes two raises nothing, however certain it is.
    """
    assert Play(median_s=0.0005).run(600).run(120, slow_factor=4.0).signal is None


def test_half_as_slow_again_needs_a_grown_baseline() -> None:
    """
    Half an hour after the start 1.6 times the latency is believed; ten minutes after it is not yet.
    """
    assert Play().run(600).run(60, slow_factor=1.6).signal is None
    assert Play().run(1900).run(60, slow_factor=1.6).signal is not None


def test_a_slow_few_are_found_at_the_high_quantiles() -> None:
    """
    One request in eight ten times slower moves neither the median nor the mean much, and is found.
    """
    play = Play().run(900)
    rng = random.Random(2)
    for second in play.traffic.seconds(60):
        slow = sum(rng.random() < 0.125 for _ in range(second.arrivals))
        latency = {**second.latency, index(0.5): slow}
        play.detector.observe(RouteSecond("checkout", second.at, latency=latency), 1.0)

    assert play.signal is not None


def test_a_hang_is_seen_while_it_waits() -> None:
    """
    With no first byte at all p95 grows with the age of what waits, before any request ended.
    """
    play = Play().run(600).run(4, hanging=True)
    first = play.signal
    play.run(6)

    assert first is not None
    assert play.signal is not None
    assert play.signal.value > first.value > 0.5


def test_the_incident_is_not_learnt() -> None:
    """
    An hour at ten times the latency leaves q50, q95 and q99 where they were.
    """
    play = Play().run(900)
    before = list(play.detector.baseline.levels_s)
    play.run(3600, slow_factor=10.0)

    assert play.detector.baseline.levels_s == before
    assert play.detector.state is State.ALARM


def test_it_recovers() -> None:
    """
    Two minutes after the latency is normal again the alarm is closed.
    """
    play = Play().run(600).run(120, slow_factor=5.0).run(120, slow_factor=1.0)

    assert play.signal is None
    assert play.detector.state is State.NORMAL


def test_a_verdict_makes_the_present_normal() -> None:
    """
    `benign` takes the slow present as normal; going on so raises nothing.
    """
    play = Play().run(600).run(120, slow_factor=5.0)
    play.detector.accept()
    play.run(300)

    assert play.signal is None
    assert play.detector.baseline.p95_s == pytest.approx(0.1 * 2.28, rel=0.25)


def test_a_grown_level_moves_by_five_percent_an_hour() -> None:
    """
    A lasting change that nobody stops moves q50 by 5 % an hour at most.
    """
    baseline, at = LatencyBaseline(1000, 60.0), 0.0
    fast, slow = of_values([0.02] * 10), of_values([0.1] * 10)
    for second in range(3 * 3600):
        at += 1
        baseline.collect(fast, at, 1.0)
        if second % 60 == 0:
            baseline.mature(at)
    before = baseline.levels_s[0]
    for second in range(2 * 3600):
        at += 1
        baseline.collect(slow, at, 1.0)
        if second % 60 == 0:
            baseline.mature(at)

    assert before < baseline.levels_s[0] <= before * 1.05**2 * 1.001 or baseline.levels_s[0] == before


# --- waiting requests ---------------------------------------------------------------------------------------------

Q99 = index(0.1)


def test_each_hanging_request_counts_once() -> None:
    """
    Requests that hang for 5 s and then end are counted when they pass q99, and not again when they end.
    """
    rng = random.Random(7)
    began = sorted(rng.uniform(0.0, 60.0) for _ in range(600))
    waiters, counted = Waiters(), 0.0
    for now in range(1, 80):
        waits = [now - at for at in began if now - 5.0 < at <= now]
        ended = sum(now - 1 < at + 5.0 <= now for at in began)
        passed, before = waiters.take(of_values(waits), ended, Q99, 1.0)
        counted += passed + ended - before

    assert counted == pytest.approx(600, rel=0.05)


def test_a_request_that_passes_and_ends_between_two_seconds_counts() -> None:
    """
    Nothing was seen waiting, so all that ended above q99 are new.
    """
    assert Waiters().take({}, 4, Q99, 1.0) == (0.0, 0.0)


def test_clients_that_give_up_do_not_hide_the_next_ones() -> None:
    """
    In a hang whose clients leave after 3 s every request still counts, although none ever ends in the histogram.
    """
    rng = random.Random(8)
    began = sorted(rng.uniform(0.0, 60.0) for _ in range(600))
    waiters, counted = Waiters(), 0.0
    for now in range(1, 80):
        waits = [now - at for at in began if now - 3.0 < at <= now]
        passed, before = waiters.take(of_values(waits), 0, Q99, 1.0)
        counted += passed - before

    assert counted == pytest.approx(600, rel=0.06)


def test_a_missing_second_loses_no_waiting_request() -> None:
    """
    Seen only every third second, the same requests are still counted once.
    """
    rng = random.Random(9)
    began = sorted(rng.uniform(0.0, 60.0) for _ in range(600))
    waiters, counted = Waiters(), 0.0
    for now in range(3, 81, 3):
        waits = [now - at for at in began if now - 6.0 < at <= now]
        ended = sum(now - 3 < at + 6.0 <= now for at in began)
        passed, before = waiters.take(of_values(waits), ended, Q99, 3.0)
        counted += passed + ended - before

    assert counted == pytest.approx(600, rel=0.06)


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_quantiles_are_interpolated(q: float) -> None:
    """
    A quantile is closer to the truth than the 12 % width of its bucket.
    """
    from array import array

    from sidecar.measure.histogram import SIZE

    rng = random.Random(5)
    values = sorted(rng.uniform(0.1, 0.2) for _ in range(5000))
    counts = array("f", bytes(4 * SIZE))
    for i, count in of_values(values).items():
        counts[i] += count

    assert quantile_s(counts, q) == pytest.approx(values[int(q * 5000)], rel=0.03)
