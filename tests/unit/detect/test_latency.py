"""The latency detector: levels, materiality, and each request counted once."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from sidecar.detect.alarm import State
from sidecar.detect.latency import LatencyDetector, Waiters
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.quantiles import QUANTILES, LatencyBaseline
from sidecar.detect.window import quantile_s
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
    18 ms more is nothing to isolate for, though p95 tripled.
    """
    signal = Play(median_s=0.004).run(1900).run(30, slow_factor=3.0).signal

    assert signal is not None
    assert not signal.material


@pytest.mark.parametrize("median_s", [0.02, 0.1])
def test_three_times_a_usual_latency_is_found_within_seconds(median_s: float) -> None:
    """
    From 20 ms on three times the latency is found in the median of some seeds within 5 s.
    """
    took = []
    for seed in range(7):
        play = Play(seed, median_s=median_s).run(300)
        took.append(next(second for second in range(1, 60) if play.run(1, slow_factor=3.0).signal is not None))

    assert sorted(took)[3] <= 5


def test_a_shift_too_small_to_speak_of_never_raises() -> None:
    """
    All requests 15 % slower is certain, and still no claim: p95 is below 1.3 times and 50 ms.
    """
    assert Play(sigma=0.1).run(600).run(600, slow_factor=1.15).signal is None


def test_less_than_ten_milliseconds_are_nobodys_incident() -> None:
    """
    One millisecond that becomes four raises nothing, however certain it is.
    """
    assert Play(median_s=0.001).run(1900).run(120, slow_factor=4.0).signal is None


@pytest.mark.parametrize(("warmup_s", "jitter_s"), [(8.0, 0.01), (60.0, 0.02)])
def test_a_jittery_machine_raises_nothing(warmup_s: float, jitter_s: float) -> None:
    """
    Half of the answers up to *jitter_s* slower, for some seconds every two minutes: known after the first quarter.
    """
    rng, left, jitter, claims = random.Random(5), 0, 0.0, 0
    play = Play(5, median_s=0.002, rate_per_s=20.0)
    play.detector = LatencyDetector(DetectPolicy(warmup_s=warmup_s), play.traffic.at)
    for row in play.traffic.seconds(3600):
        if not left and rng.random() < 1 / 120:
            left, jitter = rng.randint(3, 40), rng.uniform(0.3, 1.0) * jitter_s
        late = [rng.random() * jitter * (rng.random() < 0.5) for _ in range(row.arrivals)] if left else []
        slowed = of_values([rng.lognormvariate(-6.2, 0.5) + more for more in late]) if left else row.latency
        left = max(left - 1, 0)
        play.detector.observe(replace(row, latency=slowed), 1.0)
        claims += play.signal is not None

    assert claims == 0


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


def test_it_is_as_large_as_the_slow_requests_beyond_the_usual_ones() -> None:
    """
    Of those above the quantile that shows it as many are usual as the quantile says: of all, half above q50, a twentieth above q95.
    """
    play = Play().run(600)
    play.traffic.slow_factor, requests = 10.0, 0
    for second in play.traffic.seconds(30):
        requests += second.judged
        play.detector.observe(second, 1.0)

    assert play.signal is not None
    assert any(play.signal.excess == pytest.approx(quantile * requests, rel=0.02) for quantile in QUANTILES[:2])


def test_harm_goes_on_while_requests_wait() -> None:
    """
    Connections that all hang are counted once, in their first seconds; the harm is over when they have ended, not before.
    """
    play = Play(rate_per_s=20.0).run(600)
    at = play.traffic.at
    for passed in range(1, 301):
        waiting = of_values([passed - 0.5] * 8)
        play.detector.observe(RouteSecond("checkout", at + passed, arrivals=8 * (passed == 1), waiting=waiting), 1.0)
        if passed == 10:
            early = play.signal
    late = play.signal
    play.detector.observe(RouteSecond("checkout", at + 301, failures=8, latency=of_values([300.5] * 8)), 1.0)

    assert early is not None
    assert late is not None
    assert (late.excess, late.ongoing) == (early.excess, True)
    assert play.signal is not None
    assert not play.signal.ongoing


def test_the_incident_is_not_learnt() -> None:
    """
    An hour at ten times the latency leaves q50, q95 and q99 where they were.
    """
    play = Play().run(900)
    before = list(play.detector.baseline.levels_s)
    play.run(3600, slow_factor=10.0)

    assert list(play.detector.baseline.levels_s) == before
    assert play.detector.state is State.ALARM


def test_it_recovers() -> None:
    """
    Two minutes after the latency is normal again the alarm is closed.
    """
    play = Play().run(600).run(120, slow_factor=5.0).run(120, slow_factor=1.0)

    assert play.signal is None
    assert play.detector.state is State.NORMAL


def test_an_alarm_ends_with_its_effect_though_the_baseline_was_a_bad_guess() -> None:
    """
    Learnt in 8 s at 2 ms, then 14 s at 500 ms, then 6 ms for good: the score never falls, the alarm does, and the
    signal says at once that it fades.
    """
    play = Play(3, median_s=0.002, rate_per_s=40.0)
    play.detector = LatencyDetector(DetectPolicy(warmup_s=8.0, clear_after_s=20.0), play.traffic.at)
    play.run(20).run(14, slow_factor=250.0)
    raised = play.signal
    fading = play.run(30, slow_factor=3.0).signal

    assert raised is not None
    assert not raised.fading
    assert fading is not None
    assert fading.fading
    assert play.detector.score >= play.detector.threshold
    assert play.run(30).signal is None


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


def test_clients_with_few_connections_that_all_hang_are_told_of() -> None:
    """
    Eight connections that all hang send no more: the eight that wait are enough, though all began in one second.
    """
    play = Play(rate_per_s=20.0).run(600)
    at = play.traffic.at
    for second in range(1, 41):
        waiting = of_values([second - 0.5] * 8)
        row = RouteSecond("checkout", at + second, arrivals=8 * (second == 1), waiting=waiting)
        play.detector.observe(row, 1.0)
    assert play.signal is not None
    assert play.signal.value > 1.0


def test_a_hiccup_of_one_second_is_none() -> None:
    """
    Eight that waited a second together and came out are no hang.
    """
    play = Play(rate_per_s=20.0).run(600)
    at = play.traffic.at
    play.detector.observe(RouteSecond("checkout", at + 1, arrivals=8, waiting=of_values([0.5] * 8)), 1.0)
    play.detector.observe(RouteSecond("checkout", at + 2, latency=of_values([1.2] * 8), successes=8), 1.0)
    for second in range(3, 20):
        play.detector.observe(RouteSecond("checkout", at + second), 1.0)
        assert play.signal is None
