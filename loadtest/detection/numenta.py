"""
Rows 1 to 4: the slow path on the Numenta Anomaly Benchmark, in-sample and cross-validated.

Theory
    Rows 1, 3 and 4 run the shipped detector once over the corpus. Row 4 is its score at the shipped threshold; rows 1 and 3
    let NAB choose the best threshold on the scores in hindsight.

    Row 2 refits all that is tuned: a grid of policies around the shipped one, the threshold, and the length of an episode.
    The files are dealt into five folds; on each four the best of all combinations is chosen, and the fifth is scored
    with it. One dealing is noise (a window is 0.8 points), so it is done ten times; the row is the mean.

What can go wrong
    The structure of the detector (which lenses, which scales, one alarm per episode) was chosen by people who had seen
    these files; no cross-validation takes that back. Recordings from elsewhere are the only cure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain, product
from random import Random
from statistics import mean, pstdev
from typing import Final

from loadtest.detection.nab import PROFILES, STANDARD, Result, Scorer, Series, corpus
from loadtest.detection.scoreboard import Effort, Measured
from sidecar.detect.season import Custom
from sidecar.detect.slow import SlowDetector, SlowPolicy

FOLDS: Final = 5
DEALINGS: Final = 10
POLICIES: Final = tuple(
    SlowPolicy(base_span=span, daily_bend_ratio=bend, prior_peaks=prior)
    for span, bend, prior in product((1000, 2000, 4000), (0.05, 0.1), (20.0, 40.0))
)
THRESHOLDS: Final = tuple(round(2.0 + 0.1 * step, 1) for step in range(11))
EPISODES: Final = (80, 100, 125)
ALARM_SCORE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Setting:
    """One combination of all that is tuned."""

    policy: SlowPolicy
    threshold: float
    episode: int

    def __str__(self) -> str:
        policy = self.policy
        return (
            f"base_span={policy.base_span} daily_bend_ratio={policy.daily_bend_ratio} prior_peaks={policy.prior_peaks} "
            f"threshold={self.threshold} episode={self.episode}"
        )


@cache
def _corpus() -> tuple[Series, ...]:
    return corpus()


@cache
def shipped_scores(workers: int) -> Mapping[str, Sequence[float]]:
    """Return each file's scores by the shipped detector."""
    with ProcessPoolExecutor(workers) as pool:
        names = [one.name for one in _corpus()]
        return dict(zip(names, pool.map(_scores_of, names), strict=True))


def _scores_of(name: str) -> list[float]:
    detector, series = SlowDetector(), _series(name)
    return [detector.observe(at, value).score for at, value in zip(series.times, series.values, strict=True)]


def _series(name: str) -> Series:
    return next(one for one in _corpus() if one.name == name)


def news(series: Series, policy: SlowPolicy, least: float) -> Iterator[tuple[int, float]]:
    """Yield (row, rarity) of every row that could raise at a threshold of *least* or above, episodes aside."""
    detector, custom = SlowDetector(policy), Custom()
    for i, (at, value) in enumerate(zip(series.times, series.values, strict=True)):
        rarity, _ = detector.rarity(at, value)
        if custom.observe(at, rarity) and rarity >= least:
            yield i, rarity


def raised(candidates: Sequence[tuple[int, float]], threshold: float, episode: int) -> list[int]:
    """Return the rows among *candidates* that raise: one per episode, as `Episodes` does it."""
    rows: list[int] = []
    for i, rarity in candidates:
        if rarity >= threshold and (not rows or i - rows[-1] > episode):
            rows.append(i)
    return rows


def _gains_of(task: tuple[str, SlowPolicy]) -> list[float]:
    """Return what one file gains with one policy, for each threshold and episode."""
    name, policy = task
    series = _series(name)
    candidates = list(news(series, policy, min(THRESHOLDS)))
    scorer = Scorer([series], STANDARD)
    return [scorer.gain(name, raised(candidates, *pair)) for pair in product(THRESHOLDS, EPISODES)]


def gains(effort: Effort) -> tuple[list[Setting], list[list[float]]]:
    """Return all settings, and for each file its gain under each of them."""
    policies = [SlowPolicy(), *POLICIES[:2]] if effort.quick else POLICIES
    names = [one.name for one in _corpus()]
    settings = [Setting(policy, *pair) for policy in policies for pair in product(THRESHOLDS, EPISODES)]
    with ProcessPoolExecutor(effort.workers) as pool:
        found = list(pool.map(_gains_of, [(name, policy) for name in names for policy in policies], chunksize=4))
    per_file = [list(chain(*found[k : k + len(policies)])) for k in range(0, len(found), len(policies))]
    return settings, per_file


def cross_validated(per_file: Sequence[Sequence[float]], windows: int, dealing: int) -> tuple[float, list[int]]:
    """Return the score on the files left out, and the setting that was chosen for each fold."""
    files = list(range(len(per_file)))
    Random(dealing).shuffle(files)
    total, chosen = 0.0, []
    for fold in range(FOLDS):
        out = set(files[fold::FOLDS])
        training = [gains_of for i, gains_of in enumerate(per_file) if i not in out]
        sums = [sum(column) for column in zip(*training, strict=True)]
        best = max(range(len(sums)), key=sums.__getitem__)
        chosen.append(best)
        total += sum(per_file[i][best] for i in out)
    return 100 * total / ((STANDARD.tp + STANDARD.fn) * windows), chosen


def _results(effort: Effort) -> dict[str, Result]:
    scores = shipped_scores(effort.workers)
    return {profile.name: Scorer(_corpus(), profile).optimised(scores) for profile in PROFILES}


def _numbers(result: Result) -> dict[str, float]:
    return {"score": result.score, "threshold": result.threshold, "fp": result.fp_rows, "hits": result.windows_hit}


def row_1(effort: Effort) -> Measured:
    """NAB standard, the threshold optimised as NAB does."""
    result = _results(effort)["standard"]
    return Measured(f"{result.score:.1f}", result.score >= 75, result.score >= 80, _numbers(result))


def row_2(effort: Effort) -> Measured:
    """NAB standard, cross-validated over files."""
    settings, per_file = gains(effort)
    windows = sum(len(one.windows) for one in _corpus())
    dealings = [cross_validated(per_file, windows, dealing) for dealing in range(DEALINGS)]
    scores = [score for score, _ in dealings]
    chosen = sorted({str(settings[best]) for _, found in dealings for best in found})
    numbers = {
        "mean": mean(scores),
        "sd": pstdev(scores),
        "dealings": scores,
        "settings": len(settings),
        "chosen": chosen,
    }
    return Measured(f"{mean(scores):.1f} ± {pstdev(scores):.1f}", mean(scores) >= 67, mean(scores) >= 72, numbers)


def row_3(effort: Effort) -> Measured:
    """NAB's two other profiles, optimised."""
    results = _results(effort)
    low_fp, low_fn = results["low_FP"], results["low_FN"]
    numbers = {"low_FP": _numbers(low_fp), "low_FN": _numbers(low_fn)}
    met, moonshot = (low_fp.score >= fp and low_fn.score >= fn for fp, fn in ((68, 80), (72, 84)))
    return Measured(f"{low_fp.score:.1f} / {low_fn.score:.1f}", met, moonshot, numbers)


def row_4(effort: Effort) -> Measured:
    """NAB standard at the shipped threshold."""
    result = Scorer(_corpus(), STANDARD).at(shipped_scores(effort.workers), ALARM_SCORE)
    return Measured(f"{result.score:.1f}", result.score >= 70, result.score >= 75, _numbers(result))
