"""
Row 6: false alarms of the detectors alone, on unkind quiet traffic, a hundred route-days a cell.

Theory
    Arrivals and failures vary with φ = 3 from minute to minute (gamma-Poisson), and the rate swings by ±60 % over the day.
    At 0.5/s and 0.1 % that makes clumps: most minutes without a failure, two dozen clumps a day, now and then ten
    failures among thirty requests. Each alarm is a false one. The detectors are fed by themselves, without the bank
    around them and without what they do not read, so that six hundred route-days take minutes.

Tables
    detector    fed with                                   cells
    errors      requests and failures of each second       three rates, two failure ratios
    latency     lognormal latencies, by bucket             three rates
    traffic     arrivals of each second                    three rates
    A latency or traffic alarm counts in both cells of its rate.

What can go wrong
    The hour of training before each twenty days does not count, but what it failed to show is unknown afterwards: at 0.5/s
    and 0.1 % the first clumps come after hours. Five starts in a hundred days are part of the figure, on purpose.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import exp, log, log2, pi, sin
from typing import Final

from loadtest.detection.scoreboard import Effort, Measured
from sidecar.detect.errors import ErrorDetector
from sidecar.detect.latency import LatencyDetector
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.traffic import TrafficDetector
from sidecar.facts import RouteSecond
from sidecar.measure.histogram import LAST, index

DAY_S: Final = 86_400
MONTH_DAYS: Final = 30
DISPERSION: Final = 3.0
SWING: Final = 0.6
RATES: Final = (0.5, 2.0, 10.0)
RATIOS: Final = (0.001, 0.01)
RUNS: Final = 5
DAYS_A_RUN: Final = 20
TRAINING_S: Final = 3600
MEDIAN_S, SIGMA = 0.02, 0.5


@dataclass(frozen=True, slots=True)
class Task:
    """One run of one detector."""

    detector: str
    rate_per_s: float
    error_ratio: float
    seed: int
    days: int


def gamma(rng: random.Random, expected: float) -> float:
    """Draw a factor of mean 1 that gives Poisson counts of mean *expected* a variance of φ times the mean."""
    shape = expected / (DISPERSION - 1)
    return rng.gammavariate(shape, 1 / shape)


def minutes(rng: random.Random, task: Task) -> Iterator[tuple[float, float, float]]:
    """Yield the time of each minute, its arrivals a second and its failure ratio."""
    for minute in range((TRAINING_S + task.days * DAY_S) // 60):
        rate_per_s = task.rate_per_s * (1 + SWING * sin(2 * pi * 60 * minute / DAY_S))
        ratio = task.error_ratio * gamma(rng, 60 * rate_per_s * task.error_ratio)
        yield 60.0 * minute, rate_per_s * gamma(rng, 60 * rate_per_s), min(ratio, 1.0)


def alarms(task: Task) -> list[float]:
    """Return when false alarms began, in seconds after the training."""
    return [at - TRAINING_S for at in _WATCHERS[task.detector](random.Random(task.seed), task) if at > TRAINING_S]


def _arrivals(rng: random.Random, least: float) -> int:
    """Draw a Poisson count by Knuth's product; *least* is e^−mean."""
    count, product = 0, rng.random()
    while product > least:
        product *= rng.random()
        count += 1
    return count


def _errors(rng: random.Random, task: Task) -> Iterator[float]:
    detector, before, draw = ErrorDetector(DetectPolicy(), 0.0), False, rng.random
    for began, rate_per_s, ratio in minutes(rng, task):
        least = exp(-rate_per_s)
        for second in range(1, 61):
            requests, at = _arrivals(rng, least), began + second
            bad = sum(draw() < ratio for _ in range(requests)) if ratio > 1e-7 else 0
            detector.observe(requests, bad, at, 1.0)
            if detector.alarm.stands and not before:
                yield at
            before = detector.alarm.stands


def _latency(rng: random.Random, task: Task) -> Iterator[float]:
    detector, before = LatencyDetector(DetectPolicy(), 0.0), False
    per_e = 6 / log(2)
    middle, width = log(MEDIAN_S) * per_e + log2(1.0) * 6 + index(1.0), SIGMA * per_e
    for began, rate_per_s, _ in minutes(rng, task):
        least = exp(-rate_per_s)
        for second in range(1, 61):
            counts: dict[int, int] = {}
            for _ in range(_arrivals(rng, least)):
                i = min(max(int(rng.gauss(middle, width)), 0), LAST)
                counts[i] = counts.get(i, 0) + 1
            detector.observe(RouteSecond("quiet", began + second, latency=counts), 1.0)
            if detector.alarm.stands and not before:
                yield began + second
            before = detector.alarm.stands


def _traffic(rng: random.Random, task: Task) -> Iterator[float]:
    detector, before = TrafficDetector(DetectPolicy(), 0.0), 0
    for began, rate_per_s, _ in minutes(rng, task):
        least = exp(-rate_per_s)
        for second in range(1, 61):
            detector.observe(_arrivals(rng, least), began + second, 1.0)
            standing = detector.surge.stands + detector.silence.stands
            if standing > before:
                yield began + second
            before = standing


_WATCHERS: Final = {"errors": _errors, "latency": _latency, "traffic": _traffic}


def _tasks(effort: Effort) -> list[Task]:
    days = effort.of(DAYS_A_RUN)
    seeds = range(1, RUNS + 1)
    found = [Task("errors", rate, ratio, seed, days) for rate in RATES for ratio in RATIOS for seed in seeds]
    found += [
        Task(name, rate, RATIOS[0], seed, days) for name in ("latency", "traffic") for rate in RATES for seed in seeds
    ]
    return sorted(found, key=lambda task: (-task.rate_per_s, task.detector != "latency"))  # the longest first


def row_6(effort: Effort) -> Measured:
    """False alarms a route and month, in each cell."""
    tasks = _tasks(effort)
    with ProcessPoolExecutor(effort.workers) as pool:
        found = list(zip(tasks, pool.map(alarms, tasks), strict=True))
    days = RUNS * effort.of(DAYS_A_RUN)
    cells = {}
    for rate in RATES:
        for ratio in RATIOS:
            counts = dict.fromkeys(_WATCHERS, 0)
            for task, began in found:
                if task.rate_per_s == rate and (task.detector != "errors" or task.error_ratio == ratio):
                    counts[task.detector] += len(began)
            monthly = sum(counts.values()) * MONTH_DAYS / days
            cells[f"{rate:g}/s, {ratio:.1%} errors"] = {"per_month": monthly, "days": days, **counts}
    worst = max(cell["per_month"] for cell in cells.values())
    mean = sum(cell["per_month"] for cell in cells.values()) / len(cells)
    numbers = {"per_month": mean, "worst_per_month": worst, "cells": cells, "detectors": _by_detector(found)}
    return Measured(f"{mean:.2f}, worst cell {worst:.2f}", worst <= 1, worst <= 0.2, numbers)


def _by_detector(found: list[tuple[Task, list[float]]]) -> list[dict[str, object]]:
    return [
        {"detector": task.detector, "rate_per_s": task.rate_per_s, "error_ratio": task.error_ratio, "seed": task.seed,
         "began_s": began}
        for task, began in found if began
    ]  # fmt: skip
