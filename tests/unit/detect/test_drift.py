"""The slow path on a live route: a value a minute, one claim an episode, nothing from what is already known to be wrong."""

from __future__ import annotations

import json
from math import log10

import pytest

from sidecar.detect.alarm import State
from sidecar.detect.drift import CLEAR_MINUTES, EPISODE_MINUTES, STREAMS, WARMUP, DriftDetector, level
from sidecar.detect.policies import DetectPolicy, Sensitivity
from sidecar.facts import Detector, RouteSecond, Scope
from sidecar.measure.histogram import index
from tests.support.traffic import Traffic

SCOPE = Scope.route("checkout")
LONG = WARMUP + 60


class Play:
    """Feeds a detector one row a minute; what is not said stays as it was."""

    def __init__(self, seed: int = 1) -> None:
        self.detector = DriftDetector(DetectPolicy())
        self.at = 0.0
        self.began: list[str] = []
        self._rng = Traffic(seed).rng

    def run(
        self, minutes: int, *, rate: float = 600.0, bad: float = 0.01, p95_s: float = 0.1, held: bool = False
    ) -> Play:
        """Let *minutes* pass, with a little noise on everything."""
        for _ in range(minutes):
            before, self.at = self.detector.since_at, self.at + 60.0
            arrivals = max(round(self._rng.gauss(rate, rate**0.5)), 0)
            failures = min(max(round(self._rng.gauss(bad * rate, (bad * rate) ** 0.5)), 0), arrivals)
            latency = {index(p95_s * self._rng.uniform(0.9, 1.1)): max(arrivals // 10, 1), index(0.02): arrivals}
            row = RouteSecond(
                "checkout",
                self.at,
                arrivals=arrivals,
                successes=arrivals - failures,
                failures=failures,
                latency=latency,
            )
            self.detector.observe(row, 60.0, held=held)
            signal = self.detector.signal(SCOPE)
            if signal is not None and before is None:
                self.began.append(signal.unit)
        return self


@pytest.mark.parametrize(
    ("fault", "unit"),
    [({"rate": 1800.0}, "per_s"), ({"bad": 0.06}, "ratio"), ({"p95_s": 0.5}, "s")],
    ids=["rate", "errors", "latency"],
)
def test_a_lasting_change_is_told_once_with_its_value(fault: dict[str, float], unit: str) -> None:
    """
    After a day of calm a change of each stream raises one claim with that stream's unit, and not again while it lasts.
    """
    play = Play().run(LONG)
    assert play.began == []

    play.run(30, **fault)
    play.run(EPISODE_MINUTES, **fault)
    assert play.began == [unit]


def test_the_first_day_is_learnt_and_never_judged() -> None:
    """
    Until a whole day was seen the detector is cold, says how much is lacking, and claims nothing.
    """
    play = Play().run(500).run(20, bad=0.5)

    assert play.began == []
    assert play.detector.state is State.LEARNING
    assert play.detector.cold == f"slow path cold, 520 of {WARMUP} min"


def test_a_claim_fades_and_ends() -> None:
    """
    Once the value is usual again the claim fades, and ten such minutes end it.
    """
    play = Play().run(LONG).run(30, bad=0.2)
    assert play.detector.state is State.ALARM

    play.run(EPISODE_MINUTES)
    assert play.detector.signal(SCOPE) is None
    assert EPISODE_MINUTES > CLEAR_MINUTES


def test_what_is_held_is_neither_judged_nor_learnt() -> None:
    """
    Minutes in which something else is known to be wrong leave the memory as it was.
    """
    play = Play().run(LONG)
    before = play.detector.snapshot()
    play.run(60, bad=0.9, held=True)

    assert play.began == []
    assert play.detector.snapshot() == before


def test_few_requests_wait_until_they_say_something() -> None:
    """
    Below twenty judged requests the ratio and the latencies have no value; the rate has one every minute.
    """
    detector = DriftDetector(DetectPolicy())
    for minute in range(1, 6):
        detector.observe(RouteSecond("r", 60.0 * minute, arrivals=3, successes=3, latency={80: 3}), 60.0, held=False)

    seen = [document["seen"] for document in detector.snapshot()["streams"]]
    assert (detector.minutes, seen) == (5, [5, 0, 0, 0])


def test_the_level_is_a_false_alarm_a_month() -> None:
    """
    Four streams have 172,800 values a month; sensitivity moves the budget, a verdict moves the level in nats.
    """
    assert level(DetectPolicy()) == pytest.approx(log10(4 * 43_200))
    assert level(DetectPolicy(sensitivity=Sensitivity.HIGH)) == pytest.approx(log10(4 * 43_200 / 5))
    assert level(DetectPolicy(offsets={Detector.DRIFT: 2.302585})) == pytest.approx(log10(4 * 43_200) + 1)


def test_a_verdict_ends_the_claim_and_a_new_policy_moves_the_level() -> None:
    """
    `accept` ends what stands; `apply` keeps what was learnt.
    """
    play = Play().run(LONG).run(30, bad=0.2)
    play.detector.accept()
    play.detector.apply(DetectPolicy(sensitivity=Sensitivity.LOW))

    assert play.detector.signal(SCOPE) is None
    assert play.detector.threshold == pytest.approx(log10(4 * 43_200 / 0.2))
    assert play.detector.minutes == LONG + 30


def test_a_snapshot_brings_back_the_same_future() -> None:
    """
    Saved, restored on another clock and fed with the same, two detectors say the same.
    """
    first, second = Play(), Play()
    first.run(LONG)
    second.run(LONG)
    saved = second.detector.snapshot()
    second.detector = DriftDetector(DetectPolicy())
    second.detector.restore(saved, 5000.0)
    second.at += 5000.0
    for play in (first, second):
        play.run(30, bad=0.2)

    one, other = first.detector.signal(SCOPE), second.detector.signal(SCOPE)
    assert one is not None
    assert other is not None
    assert (other.value, other.score, other.since_at) == (one.value, one.score, one.since_at + 5000.0)


BUSY = {index(0.02): 1300, index(0.5): 60}  # p95 is 20 ms: 4.4 % take longer


@pytest.mark.parametrize("seconds", [59, 99], ids=["below", "above"])
def test_a_busy_minute_has_the_quantiles_of_its_counts(seconds: int) -> None:
    """
    However many requests come in one second or in one minute, all buckets weigh the same.
    """
    detector = DriftDetector(DetectPolicy())
    latency = {i: count * seconds for i, count in BUSY.items()}
    detector.observe(RouteSecond("r", 1.0, arrivals=1, latency=latency), 1.0, held=False)
    detector.observe(
        RouteSecond("r", 60.0, arrivals=sum(latency.values()), successes=sum(latency.values())), 59.0, held=False
    )

    p95_s = detector.snapshot()["shown"][4 * STREAMS.index("p95") + 1]
    assert p95_s == pytest.approx(0.02, rel=0.2)


def test_a_snapshot_of_an_older_release_is_restored_in_one_scale() -> None:
    """
    Counts in single precision, beyond 16 bits, keep their shares: 4.3 % above 60 do not become the 95th percentile.
    """
    detector = DriftDetector(DetectPolicy())
    older = {**detector.snapshot(), "counts": [[60, 120_000.0], [90, 5_400.0]]}
    detector.restore(older, 0.0)

    assert detector.snapshot()["counts"] == [[60, 120_000], [90, 5_400]]
    detector.restore(json.loads(json.dumps(detector.snapshot())), 0.0)
    assert detector.snapshot()["counts"] == [[60, 120_000], [90, 5_400]]
