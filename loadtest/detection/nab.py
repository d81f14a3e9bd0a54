"""
The Numenta Anomaly Benchmark: its series, and its score, computed here.

Theory
    58 series carry 116 labelled windows. A detector gives every row a score; rows at or above a threshold T are its
    detections. A window that is hit earns by how early its first detection lies; each detection outside costs, the
    less the shorter after a window it comes. One T serves the corpus; *optimised*, it is the best one in hindsight.

        σ(p) = 2 / (1 + e^(5p)) − 1, and −1 for p > 3
        inside a window [l, r] of width w   p = −(r − i + 1) / w      earns TP · σ(p) / σ(−1), the best row only
        outside, after a window             p = (i − r) / (w − 1)     FP · σ(p) (a cost)
        outside, before any                                           −FP
        missed window                                                 −FN
        score = 100 · (raw − null) / (perfect − null), null = −FN · windows, perfect = TP · windows

Tables
    profile     TP   FP    FN      meant for
    standard    1    0.11  1
    low_FP      1    0.22  1       people who pay for false alarms
    low_FN      1    0.11  2       people who pay for misses

What can go wrong
    The first min(⌊0.15 n⌋, 750) rows of a series are probation and never count. Rows of one score enter together:
    between two equal scores there is no threshold.

Source: Lavin and Ahmad, Evaluating real-time anomaly detection algorithms, 2015; checked to 1e-6 against the official
scorer's results of every public detector that is recorded with its rows.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from math import exp
from pathlib import Path
from typing import Final

from loadtest.detection.recordings import unpacked


@dataclass(frozen=True, slots=True)
class Profile:
    """What a hit earns, and what a false alarm and a miss cost."""

    name: str
    tp: float
    fp: float
    fn: float


PROFILES: Final = (
    Profile("standard", 1.0, 0.11, 1.0),
    Profile("low_FP", 1.0, 0.22, 1.0),
    Profile("low_FN", 1.0, 0.11, 2.0),
)
STANDARD: Final = PROFILES[0]


@dataclass(frozen=True, slots=True)
class Series:
    """
    One file of the corpus.

    Attributes:
        name: Its path below `data/`.
        times: Unix seconds of each row, as if its wall clock were UTC.
        values: What was measured.
        windows: Labelled anomalies as pairs of rows, both inclusive.
    """

    name: str
    times: Sequence[float]
    values: Sequence[float]
    windows: Sequence[tuple[int, int]]

    @property
    def probation(self) -> int:
        """Count the first rows, which are not scored."""
        return min(int(0.15 * len(self.times)), 750)


@dataclass(frozen=True, slots=True)
class Result:
    """The score of 100, the threshold it was had at, false rows and windows hit."""

    score: float
    threshold: float
    fp_rows: int
    windows_hit: int


def corpus(root: Path | None = None) -> tuple[Series, ...]:
    """Return the whole corpus, in the order of its names."""
    root = root or unpacked("nab.tar.gz") / "nab"
    windows = json.loads((root / "labels" / "combined_windows.json").read_text())
    return tuple(_series(root / "data" / name, name, windows[name]) for name in sorted(windows))


def _series(path: Path, name: str, windows: Iterable[tuple[str, str]]) -> Series:
    with path.open(newline="") as lines:
        rows = [(_unix(row["timestamp"]), float(row["value"])) for row in csv.DictReader(lines)]
    times = [at for at, _ in rows]
    pairs = [(times.index(_unix(first)), _last(times, _unix(last))) for first, last in windows]
    return Series(name, times, [value for _, value in rows], pairs)


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def _last(times: Sequence[float], at: float) -> int:
    return max(i for i, time in enumerate(times) if time == at)


def sigmoid(position: float) -> float:
    """Return σ of a position relative to a window: 1 long before its end, 0 at it, −1 well behind it."""
    return -1.0 if position > 3.0 else 2.0 / (1.0 + exp(5.0 * position)) - 1.0


def worths(series: Series, profile: Profile, first_window: int = 0) -> list[tuple[float, int]]:
    """
    Return for each row of *series* what a detection there is worth, and the window that it lies in (−1: none).

    Args:
        series: The file; rows in probation are left out, so the list begins at row `series.probation`.
        profile: The weights.
        first_window: The number that the file's first window gets.
    """
    found: list[tuple[float, int]] = []
    ended: tuple[int, int] | None = None
    windows = sorted(series.windows)
    inside = {i: k for k, (left, right) in enumerate(windows) for i in range(left, right + 1)}
    for i in range(len(series.times)):
        k = inside.get(i)
        if k is not None:
            left, right = windows[k]
            ended = windows[k]
            earned = profile.tp * sigmoid(-(right - i + 1) / (right - left + 1)) / sigmoid(-1.0)
            found.append((earned, first_window + k))
        elif ended is None:
            found.append((-profile.fp, -1))
        else:
            found.append((profile.fp * sigmoid((i - ended[1]) / (ended[1] - ended[0])), -1))
    return found[series.probation :]


class Scorer:
    """
    The score of any detector on *series* under *profile*.

    Attributes:
        windows: How many there are in all.
    """

    def __init__(self, series: Sequence[Series], profile: Profile) -> None:
        self.profile = profile
        self.windows = sum(len(one.windows) for one in series)
        self._probations = {one.name: one.probation for one in series}
        self._lengths = {one.name: len(one.times) for one in series}
        self._worths: dict[str, list[tuple[float, int]]] = {}
        first = 0
        for one in series:
            self._worths[one.name] = worths(one, profile, first)
            first += len(one.windows)

    def optimised(self, scores: Mapping[str, Sequence[float]]) -> Result:
        """Return the best score that any single threshold gives, given each file's *scores*."""
        rows = [
            (score, worth, window)
            for name, valued in self._worths.items()
            for score, (worth, window) in zip(self._judged(name, scores[name]), valued, strict=True)
        ]
        rows.sort(key=_score, reverse=True)
        tally = Tally(self.profile, self.windows)
        best = Result(0.0, float("inf"), 0, 0)
        for threshold, same in groupby(rows, key=_score):
            for _, worth, window in same:
                tally.detect(worth, window)
            if tally.score > best.score:
                best = Result(tally.score, threshold, tally.fp_rows, len(tally.hits))
        return best

    def at(self, scores: Mapping[str, Sequence[float]], threshold: float) -> Result:
        """Return the score at one given *threshold*."""
        tally = Tally(self.profile, self.windows)
        for name, valued in self._worths.items():
            for score, (worth, window) in zip(self._judged(name, scores[name]), valued, strict=True):
                if score >= threshold:
                    tally.detect(worth, window)
        return Result(tally.score, threshold, tally.fp_rows, len(tally.hits))

    def gain(self, name: str, detections: Iterable[int]) -> float:
        """
        Return what detections at these rows of one file add to the raw score; files add up.

        The corpus scores 100 · (sum of gains) / ((TP + FN) · windows).
        """
        tally, probation = Tally(self.profile, 0), self._probations[name]
        for i in detections:
            if i >= probation:
                tally.detect(*self._worths[name][i - probation])
        return tally.earned + tally.cost + self.profile.fn * len(tally.hits)

    def _judged(self, name: str, scores: Sequence[float]) -> Sequence[float]:
        if len(scores) != self._lengths[name]:
            raise ValueError(f"{name}: {len(scores)} scores for {self._lengths[name]} rows")
        return scores[self._probations[name] :]


def _score(row: tuple[float, float, int]) -> float:
    return row[0]


class Tally:
    """What a set of detections is worth: raise it row by row, in any order."""

    def __init__(self, profile: Profile, windows: int) -> None:
        self.profile = profile
        self.windows = windows
        self.hits: dict[int, float] = {}
        self.fp_rows = 0
        self.cost = 0.0
        self.earned = 0.0

    def detect(self, worth: float, window: int) -> None:
        """Count a detection that is worth so much, in that window (−1: in none)."""
        if window < 0:
            self.fp_rows += 1
            self.cost += worth
            return
        before = self.hits.get(window)
        if before is None or worth > before:
            self.earned += worth - (before or 0.0)
            self.hits[window] = worth

    @property
    def score(self) -> float:
        """Return the score of 100: 0 for no detection at all, 100 for the first row of each window and no other."""
        null, perfect = -self.profile.fn * self.windows, self.profile.tp * self.windows
        raw = self.earned + self.cost - self.profile.fn * (self.windows - len(self.hits))
        return 100.0 * (raw - null) / (perfect - null)
