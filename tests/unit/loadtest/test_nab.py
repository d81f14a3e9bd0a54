"""The NAB scorer: its formulas by hand, and the official scorer's results on every recorded detector."""

import csv
import gzip
import json
from math import exp, inf

import pytest

from loadtest.detection import nab
from loadtest.detection.recordings import archive
from tests.support.recordings import recorded

approx = pytest.approx

HUNDRED = [float(i) for i in range(100)]


@pytest.fixture(scope="module")
def corpus() -> tuple[nab.Series, ...]:
    return recorded(nab.corpus)


def series(*windows: tuple[int, int]) -> nab.Series:
    return nab.Series("one", HUNDRED, HUNDRED, windows)


def score(one: nab.Series, *detections: int, profile: nab.Profile = nab.STANDARD) -> float:
    scores = {"one": [1.0 if i in detections else 0.0 for i in range(len(one.times))]}
    return nab.Scorer([one], profile).at(scores, 0.5).score


def test_the_first_row_of_a_window_is_worth_all_and_a_miss_nothing() -> None:
    """
    Detecting the first row of each window and no other scores 100; detecting nothing scores 0.
    """
    one = series((20, 29), (60, 69))

    assert score(one, 20, 60) == approx(100.0)
    assert score(one) == 0.0


def test_a_later_row_of_a_window_earns_less() -> None:
    """
    Inside a window of width w a detection at distance d from its end earns σ(−(d + 1)/w)/σ(−1).
    """
    middle = (2 / (1 + exp(-5 * 0.5)) - 1) / (2 / (1 + exp(-5)) - 1)

    assert score(series((20, 29)), 25) == approx(100 * (middle + 1) / 2)


def test_only_the_best_row_of_a_window_counts() -> None:
    """
    More detections in a window that was hit change nothing.
    """
    assert score(series((20, 29)), 22, 23, 28) == score(series((20, 29)), 22)


def test_a_false_alarm_before_any_window_costs_its_full_price() -> None:
    """
    Without a window before it a detection outside costs FP.
    """
    assert score(series((50, 59)), 30, 50) == approx(100 * (2 - 0.11) / 2)


def test_a_false_alarm_costs_less_shortly_after_a_window() -> None:
    """
    Behind a window the cost grows with the distance in window widths, up to FP.
    """
    soon, late = score(series((20, 29)), 20, 30), score(series((20, 29)), 20, 90)

    assert soon == approx(100 * (2 + 0.11 * nab.sigmoid(1 / 9)) / 2)
    assert late == approx(100 * (2 - 0.11) / 2)


def test_probation_is_not_scored() -> None:
    """
    The first 15 % of a series, at most 750 rows, neither earn nor cost.
    """
    assert series((20, 29)).probation == 15
    assert score(series((20, 29)), 14) == 0.0
    assert nab.Series("long", range(9000), range(9000), ()).probation == 750


def test_rows_of_one_score_enter_together() -> None:
    """
    The optimised threshold cannot part a hit from a false alarm that has the same score.
    """
    one = series((50, 59))
    scores = {"one": [0.9 if i in {30, 50} else 0.1 for i in range(100)]}

    found = nab.Scorer([one], nab.STANDARD).optimised(scores)

    assert found == nab.Result(approx(100 * (2 - 0.11) / 2), 0.9, 1, 1)


def test_the_gains_of_files_add_up_to_the_score() -> None:
    """
    A file's gain is its part of the raw score above that of no detection.
    """
    one = series((20, 29), (60, 69))

    gain = nab.Scorer([one], nab.STANDARD).gain("one", [3, 25, 40])

    assert 100 * gain / (2 * 2) == approx(score(one, 25, 40))


def test_scores_of_another_length_are_refused() -> None:
    """
    A detector that leaves rows out is told which file and how many.
    """
    with pytest.raises(ValueError, match="one: 99 scores for 100 rows"):
        nab.Scorer([series()], nab.STANDARD).at({"one": [0.0] * 99}, 0.5)


def test_the_corpus_is_whole(corpus) -> None:
    """
    The benchmark has 58 series with 116 windows.
    """
    assert (len(corpus), sum(len(one.windows) for one in corpus)) == (58, 116)


@pytest.mark.parametrize("detector", ["contextOSE", "null", "numenta", "twitterADVec"])
def test_the_official_scores_are_reproduced(corpus, detector: str) -> None:
    """
    For every detector whose rows are recorded, all three profiles agree with the official scorer to 1e-6.
    """
    expected = json.loads(archive("nab-expected/expected_scores.json").read_text())[detector]
    scores: dict[str, list[float]] = {}
    with gzip.open(archive(f"nab-expected/{detector}.csv.gz"), "rt") as lines:
        for row in csv.DictReader(lines):
            scores.setdefault(row["file"], []).append(float(row["anomaly_score"]))

    for profile in nab.PROFILES:
        found, official = nab.Scorer(corpus, profile).optimised(scores), expected[profile.name]
        assert found.score == approx(official["score"], abs=1e-6)
        assert (found.fp_rows, found.windows_hit) == (official["fp_rows"], official["windows_hit"])
        assert found.threshold == approx(official["threshold"]) or found.threshold == inf
