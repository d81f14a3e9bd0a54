"""Rows 1 to 4: episodes as the product has them, and a cross-validation that never sees what it scores."""

from random import Random

import pytest

from loadtest.detection import nab, numenta
from sidecar.detect.slow import SlowDetector, SlowPolicy
from tests.support.recordings import recorded

approx = pytest.approx
STEP_S = 300.0


def bursts(seed: int) -> nab.Series:
    """Return a series with a burst every few hundred rows."""
    rng = Random(seed)
    values = [50.0 + rng.gauss(0, 1) + (30.0 if i % 331 < 3 else 0.0) for i in range(3000)]
    return nab.Series("bursts", [i * STEP_S for i in range(3000)], values, ())


@pytest.mark.parametrize("threshold", [2.0, 2.5, 3.0])
def test_the_benchmark_raises_what_the_product_raises(threshold: float) -> None:
    """
    The quick way over thresholds and episodes gives the alarms of the detector itself.
    """
    series, policy = bursts(1), SlowPolicy(threshold=threshold, episode=80)
    detector = SlowDetector(policy)
    alarms = [
        i
        for i, (at, value) in enumerate(zip(series.times, series.values, strict=True))
        if detector.observe(at, value).alarm
    ]

    quick = numenta.raised(list(numenta.news(series, policy, 2.0)), threshold, 80)

    assert quick == alarms
    assert alarms


def test_each_file_is_scored_with_what_the_others_chose() -> None:
    """
    A setting that only its own file would choose never scores that file.
    """
    per_file = [[1.0, 2.0 if i == 0 else 0.0] for i in range(10)]

    score, chosen = numenta.cross_validated(per_file, windows=10, dealing=0)

    assert set(chosen) == {0}
    assert score == approx(100 * 10 / (2 * 10))


def test_the_shipped_detector_keeps_its_promise() -> None:
    """
    On a part of the corpus the shipped threshold scores well above the best public detectors' 70 of the whole.
    """
    corpus = [one for one in recorded(nab.corpus) if one.name.startswith("realAWSCloudwatch/ec2_cpu")]
    scores = {}
    for one in corpus:
        detector = SlowDetector()
        scores[one.name] = [detector.observe(at, value).score for at, value in zip(one.times, one.values, strict=True)]

    assert nab.Scorer(corpus, nab.STANDARD).at(scores, numenta.ALARM_SCORE).score > 75
