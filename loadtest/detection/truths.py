"""
Synthetic truths, each with the detectors that ought to see it and with the floor of the time that it takes.

Theory
    The detectors alone, a draw a second: Poisson arrivals, binomial failures, and, since a Poisson stream that is dealt to
    buckets is a Poisson stream in each, latencies as one draw for each bucket that holds any. The floors (`cells.py`) are of
    what changes; of two things that change, of the one that is asked for. Where a truth grows, the floor is when the integral
    of rate · KL reaches ln γ.

Tables
    part        normal                             truths
    errors      0.1 % and 1 % fail                 2, 5, 10, 30, 100 % fail
    unkind      0.1 % fail, φ = 3, ±60 % a day     5, 10, 30, 100 % fail; no arrivals, twice, four times
    latency     lognormal, 20 ms, σ 0.5            ×1.2, ×1.5, ×2, ×4, ×10, for all and for a tenth of the requests
    hang        the same                           no first byte for 30 s: all, a tenth of the requests
    arrivals    the rate                           none, half, twice, four times
    storm       0.1 % fail, nobody asks twice      30, 50, 90 % fail and are asked again a second later, up to three times:
                                                   found by the failures, and by the arrivals
    leak        0.1 % fail                         failures grow evenly to 5 % in six hours
    burn        0.02 % fail of 0.1 % allowed       0.2, 0.8, 2 % fail: spends the budget at 2, 8, 20 times; the error test
                                                   or the budget, whichever is first
    blip        0.1 % fail                         a second in which everything fails, as of a restart: no alarm is wanted

    An hour of training at least, so long as 3,000 requests take; a day for `unkind`, six hours for `burn`. A fault lasts an
    hour, or 500 / rate seconds when that is more; six hours for `leak`, three days for `burn`. Three seeds; the median
    counts, a miss as infinite. A fault begins in the state that the training left, the same for all faults of a cell.

What can go wrong
    Traffic of one's own making flatters: only `unkind` has φ and a day. False alarms are row 6 (`quiet.py`), where both are.
    A hang's floor is of its requests' ages: it counts from when they are older than any that is normal.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from math import erf, inf, log, pi, sin, sqrt
from typing import Final

from loadtest.detection.cells import Cell, Found, Step, enough, floor_s, kl_rate, kl_ratio, patience_s, training_s
from loadtest.detection.quiet import DAY_S, DISPERSION, SWING, gamma
from sidecar.detect.burn import BurnDetector
from sidecar.detect.errors import ErrorDetector
from sidecar.detect.latency import LatencyDetector
from sidecar.detect.policies import DetectPolicy, Objective
from sidecar.detect.traffic import TrafficDetector
from sidecar.facts import RouteSecond
from sidecar.measure.histogram import LAST, UPPER_S, index
from tests.support.traffic import binomial, poisson

RATES: Final = (0.1, 1.0, 10.0, 100.0, 1000.0)
RATIOS: Final = (0.001, 0.01)
ERRORS: Final = (0.02, 0.05, 0.1, 0.3, 1.0)
FACTORS: Final = (1.2, 1.5, 2.0, 4.0, 10.0)
ARRIVALS: Final = (0.0, 0.5, 2.0, 4.0)
STORMS: Final = (0.3, 0.5, 0.9)
BURNS: Final = (0.002, 0.008, 0.02)
PARTS: Final = (1.0, 0.1)  # of the requests
MEDIAN_S, SIGMA = 0.02, 0.5
TIMEOUT_S: Final = 30
TRIES: Final = 4
ALLOWED_RATIO: Final = 0.001
SAVED_RATIO: Final = 0.0002
LEAK_RATIO: Final = 0.05
LEAK_S: Final = 21_600
NEVER: Final = 1e-9  # the share of what normal traffic never shows


def _error_detector() -> ErrorDetector:
    return ErrorDetector(DetectPolicy(), 0.0)


# --- errors


def _failing(ratio: float, rate: float) -> Callable[[random.Random, ErrorDetector], Step]:
    def plan(rng: random.Random, detector: ErrorDetector) -> Step:
        def second(at: float) -> bool:
            requests = poisson(rng, rate)
            detector.observe(requests, binomial(rng, requests, ratio), at, 1.0)
            return detector.alarm.stands

        return second

    return plan


def _errors_cell(part: str, rate: float, ratio: float, lasts_s: int = 0) -> Cell[ErrorDetector]:
    patience = lasts_s or patience_s(rate)
    normal = f"{ratio:.1%} fail"
    return Cell(part, normal, rate, _error_detector, _failing(ratio, rate), training_s(rate), patience)


def errors(rate: float, ratio: float) -> Iterator[Found]:
    """Yield how soon more failures are found where *ratio* is normal."""
    cell = _errors_cell("errors", rate, ratio)
    for bad in ERRORS:
        yield cell.measure(f"{bad:.0%} fail", floor_s(rate, kl_ratio(bad, ratio)), _failing(bad, rate))


def blip(rate: float) -> Iterator[Found]:
    """Yield whether a second in which everything fails raises: here a miss is what is wanted."""

    def restart(rng: random.Random, detector: ErrorDetector) -> Step:
        calm, broken = (_failing(ratio, rate)(rng, detector) for ratio in (RATIOS[0], 1.0))
        began = iter([broken])

        def second(at: float) -> bool:
            return next(began, calm)(at)

        return second

    yield _errors_cell("blip", rate, RATIOS[0]).measure("one second", inf, restart)


def leak(rate: float) -> Iterator[Found]:
    """Yield how soon failures are found that grow evenly, and so slowly that a baseline might learn them."""

    def growing(rng: random.Random, detector: ErrorDetector) -> Step:
        passed = count(1)

        def second(at: float) -> bool:
            return _failing(_leaked(next(passed)), rate)(rng, detector)(at)

        return second

    cell = _errors_cell("leak", rate, RATIOS[0], LEAK_S)
    evidence, least_s = 0.0, inf
    for passed_s in range(1, LEAK_S + 1):
        evidence += rate * kl_ratio(_leaked(passed_s), RATIOS[0])
        if evidence >= enough(rate):
            least_s = float(passed_s)
            break
    yield cell.measure(f"grows to {LEAK_RATIO:.0%} in {LEAK_S / 3600:.0f} h", least_s, growing)


def _leaked(passed_s: int) -> float:
    return RATIOS[0] + (LEAK_RATIO - RATIOS[0]) * min(passed_s / LEAK_S, 1.0)


# --- latency


def shares(factor: float, part: float) -> dict[int, float]:
    """Return each bucket's share of the requests when *part* of them take *factor* times as long."""
    found = {}
    for i in range(LAST + 1):
        share = (1 - part) * _within(i, 1.0) + part * _within(i, factor)
        if share > 1e-7:
            found[i] = share
    return found


def _within(bucket: int, factor: float) -> float:
    low = _below(UPPER_S[bucket - 1], factor) if bucket else 0.0
    return _below(UPPER_S[bucket], factor) - low


def _below(seconds: float, factor: float) -> float:
    return 0.5 * (1 + erf(log(seconds / MEDIAN_S / factor) / SIGMA / sqrt(2))) if seconds < inf else 1.0


def _slow(dealt: Mapping[int, float], rate: float) -> Callable[[random.Random, LatencyDetector], Step]:
    means = [(i, rate * share) for i, share in dealt.items()]

    def plan(rng: random.Random, detector: LatencyDetector) -> Step:
        def second(at: float) -> bool:
            counts = {i: drawn for i, mean in means if (drawn := poisson(rng, mean))}
            detector.observe(RouteSecond("grid", at, latency=counts), 1.0)
            return detector.alarm.stands

        return second

    return plan


def _hanging(part: float, rate: float) -> Callable[[random.Random, LatencyDetector], Step]:
    means = [(i, (1 - part) * rate * share) for i, share in shares(1.0, 0.0).items()]

    def plan(rng: random.Random, detector: LatencyDetector) -> Step:
        hung: list[int] = []  # by second of arrival, the oldest first

        def second(at: float) -> bool:
            hung.append(poisson(rng, part * rate))
            counts = {i: drawn for i, mean in means if (drawn := poisson(rng, mean))}
            if len(hung) > TIMEOUT_S:
                late = index(float(TIMEOUT_S))
                counts[late] = counts.get(late, 0) + hung.pop(0)
            waiting: dict[int, int] = {}
            for age, requests in enumerate(reversed(hung)):
                bucket = index(age + 0.5)
                waiting[bucket] = waiting.get(bucket, 0) + requests
            detector.observe(RouteSecond("grid", at, latency=counts, waiting=waiting), 1.0)
            return detector.alarm.stands

        return second

    return plan


def _latency_cell(part: str, rate: float) -> Cell[LatencyDetector]:
    calm = _slow(shares(1.0, 0.0), rate)
    return Cell(
        part, "20 ms", rate, lambda: LatencyDetector(DetectPolicy(), 0.0), calm, training_s(rate), patience_s(rate)
    )


def latency(rate: float) -> Iterator[Found]:
    """Yield how soon it is found that all, or a tenth, of the requests take longer."""
    cell, normal = _latency_cell("latency", rate), shares(1.0, 0.0)
    for part in PARTS:
        for factor in FACTORS:
            fault = shares(factor, part)
            divergence = sum(share * log(share / normal.get(i, NEVER)) for i, share in fault.items())
            yield cell.measure(f"x{factor:g} for {_who(part)}", floor_s(rate, divergence), _slow(fault, rate))


def hang(rate: float) -> Iterator[Found]:
    """Yield how soon it is found that all, or a tenth, of the requests get no first byte."""
    cell = _latency_cell("hang", rate)
    for part in PARTS:
        yield cell.measure(f"{_who(part)} hang", floor_s(rate, kl_ratio(part, NEVER)), _hanging(part, rate))


def _who(part: float) -> str:
    return "all" if part == 1 else f"{part:.0%}"


# --- arrivals


def _arriving(rate: float) -> Callable[[random.Random, TrafficDetector], Step]:
    def plan(rng: random.Random, detector: TrafficDetector) -> Step:
        def second(at: float) -> bool:
            detector.observe(poisson(rng, rate), at, 1.0)
            return detector.surge.stands or detector.silence.stands

        return second

    return plan


def arrivals(rate: float) -> Iterator[Found]:
    """Yield how soon another rate is found."""
    cell = Cell(
        "arrivals", "the rate", rate, lambda: TrafficDetector(DetectPolicy(), 0.0), _arriving(rate), training_s(rate),
        patience_s(rate),
    )  # fmt: skip
    for factor in ARRIVALS:
        yield cell.measure(f"x{factor:g}", floor_s(rate, kl_rate(factor)), _arriving(rate * factor))


# --- both


Pair = tuple[ErrorDetector, TrafficDetector]


def _pair() -> Pair:
    return _error_detector(), TrafficDetector(DetectPolicy(), 0.0)


def _storming(bad: float, rate: float, who: int) -> Callable[[random.Random, Pair], Step]:
    """Let *bad* fail and come again a second later, *who* (0: errors, 1: arrivals) being asked."""

    def plan(rng: random.Random, pair: Pair) -> Step:
        again = [0] * (TRIES - 1)  # of the last second, by how often they were tried

        def second(at: float) -> bool:
            asked = [poisson(rng, rate), *again]
            failed = [binomial(rng, requests, bad) for requests in asked]
            again[:] = failed[: TRIES - 1]
            pair[0].observe(sum(asked), sum(failed), at, 1.0)
            pair[1].observe(sum(asked), at, 1.0)
            return pair[1].surge.stands if who else pair[0].alarm.stands

        return second

    return plan


def storm(rate: float) -> Iterator[Found]:
    """Yield how soon failures that are asked again are found, by the failures and by the arrivals that they make."""
    normal = RATIOS[0]
    cell = Cell("storm", f"{normal:.1%} fail", rate, _pair, _storming(0.0, rate, 0), training_s(rate), patience_s(rate))
    cell.calm = _kept_from_asking(normal, rate)
    for bad in STORMS:
        amplification = sum(bad**tries for tries in range(TRIES))
        floors = (
            floor_s(rate * amplification, kl_ratio(bad, normal)),
            floor_s(rate, kl_rate(amplification)),
        )
        for who, name in enumerate(("errors", "surge")):
            yield cell.measure(f"{bad:.0%} fail: by {name}", floors[who], _storming(bad, rate, who))


def _kept_from_asking(ratio: float, rate: float) -> Callable[[random.Random, Pair], Step]:
    def plan(rng: random.Random, pair: Pair) -> Step:
        failing, arriving = _failing(ratio, rate)(rng, pair[0]), _arriving(rate)(rng, pair[1])
        return lambda at: failing(at) | arriving(at)

    return plan


Budgeted = tuple[ErrorDetector, BurnDetector]


def _spending(ratio: float, rate: float) -> Callable[[random.Random, Budgeted], Step]:
    def plan(rng: random.Random, detectors: Budgeted) -> Step:
        errors, burn = detectors

        def second(at: float) -> bool:
            requests = poisson(rng, rate)
            bad = binomial(rng, requests, ratio)
            errors.observe(requests, bad, at, 1.0)
            row = RouteSecond("grid", at, arrivals=requests, successes=requests - bad, failures=bad)
            burn.observe(row, 1.0, told=errors.alarm.stands)
            return errors.alarm.stands or burn.since_at is not None

        return second

    return plan


def burn(rate: float) -> Iterator[Found]:
    """Yield how soon a slow burn is found, by whichever of the error test and the budget is first."""
    objective = Objective(bad_ratio=ALLOWED_RATIO)
    cell = Cell(
        "burn", f"{SAVED_RATIO:.2%} fail", rate, lambda: (_error_detector(), BurnDetector(objective)),
        _spending(SAVED_RATIO, rate), 21_600, 3 * DAY_S,
    )  # fmt: skip
    for bad in BURNS:
        name = f"{bad:.1%} fail, {bad / ALLOWED_RATIO:.0f}x the budget"
        yield cell.measure(name, floor_s(rate, kl_ratio(bad, ALLOWED_RATIO)), _spending(bad, rate))


# --- over-dispersed, with a day


def _unkind(bad: float, factor: float, rate: float) -> Callable[[random.Random, Pair], Step]:
    def plan(rng: random.Random, pair: Pair) -> Step:
        mean, ratio = rate, bad

        def second(at: float) -> bool:
            nonlocal mean, ratio
            if at % 60 == 1:
                mean = rate * factor * (1 + SWING * sin(2 * pi * at / DAY_S))
                mean *= gamma(rng, 60 * mean) if mean else 0.0
                ratio = min(bad * gamma(rng, 60 * rate * bad), 1.0) if bad < 1 else 1.0
            requests = poisson(rng, mean)
            pair[0].observe(requests, binomial(rng, requests, ratio), at, 1.0)
            pair[1].observe(requests, at, 1.0)
            stands = pair[1].surge.stands or pair[1].silence.stands
            return pair[0].alarm.stands if factor == 1 else stands

        return second

    return plan


def unkind(rate: float) -> Iterator[Found]:
    """Yield how soon failures and other rates are found where minutes vary with φ = 3, on a day with a swing of 60 %."""
    normal = RATIOS[0]
    cell = Cell(
        "unkind", f"{normal:.1%} fail, φ = {DISPERSION:g}, a day", rate, _pair, _unkind(normal, 1.0, rate), DAY_S,
        patience_s(rate),
    )  # fmt: skip
    for bad in ERRORS[1:]:
        yield cell.measure(f"{bad:.0%} fail", floor_s(rate, kl_ratio(bad, normal)), _unkind(bad, 1.0, rate))
    for factor in (0.0, 2.0, 4.0):
        yield cell.measure(f"x{factor:g} arrivals", floor_s(rate, kl_rate(factor)), _unkind(normal, factor, rate))


Task = tuple[str, float, float]  # part, rate, and for errors what is normal

_PARTS: Final[Mapping[str, Callable[[float], Iterator[Found]]]] = {
    "unkind": unkind, "latency": latency, "hang": hang, "arrivals": arrivals, "storm": storm, "leak": leak, "burn": burn,
    "blip": blip,
}  # fmt: skip
NAMES: Final = ("errors", *_PARTS)


def tasks(names: Sequence[str], rates: Sequence[float]) -> list[Task]:
    """Return what may be measured side by side."""
    found: list[Task] = []
    for name in names:
        ratios = RATIOS if name == "errors" else RATIOS[:1]
        found += [(name, rate, ratio) for rate in rates for ratio in ratios]
    return found


def measure(task: Task) -> list[Found]:
    """Measure the cells of one task."""
    name, rate, ratio = task
    return list(errors(rate, ratio) if name == "errors" else _PARTS[name](rate))
