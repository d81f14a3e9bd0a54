"""
PetShop replay: a micro-service shop's recorded bins, expanded to seconds, through the product's detectors.

Theory
    The recording gives 5-minute bins of the front node `PetSite`: requests, availability, latency quantiles. A bin is
    expanded to 300 seconds: Poisson arrivals, binomial failures, latencies drawn from the bin's own quantile function
    (straight in log latency between p50, p90, p95 and p99). A request longer than a second ends in the second in which
    it ends, and waits visibly until then.

    Quiet alarms: a `Bank` watches the quiet span of 49 h. Recall: a `Bank` learns eight hours of the time of the
    incidents, that is bins drawn from those before their onsets; the state that it then has meets each incident: two bins
    before, three bins of fault, ten minutes of the bins before once more. (The quiet span was recorded five months later
    and is 15 % slower: what is learnt there is dull for April.)

Tables
    hit          an alarm begins in [onset, end of the fault + 10 min], onset = start of bin 3 of 5
    delay        from the onset to it; 0 when it began before and the fault is one of those already visible in bin 2
    quiet alarm  an alarm that begins in the quiet span, after an hour, outside of masked bins
    masked       a quiet bin below 98 % availability and its two neighbours: real dips that nobody labelled

What can go wrong
    Four high-traffic faults are a few failures in 700 requests at the front: no detector finds those quickly. A median over
    26 incidents with misses as infinite is nearly the delay of the slowest third of what was found.

Source: Hardt et al., The PetShop dataset, 2023 (data CC-BY-4.0).
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from heapq import heappop, heappush
from itertools import pairwise
from math import exp, inf, log
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from loadtest.detection.recordings import RecordingsMissingError, unpacked
from loadtest.detection.scoreboard import Effort, Measured
from sidecar.detect.bank import Bank
from sidecar.detect.fuse import fuse
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.series import Series
from sidecar.facts import RouteSecond, Signal
from sidecar.measure.histogram import index
from tests.support.traffic import binomial, poisson

NODE: Final = "PetSite"
ROUTE: Final = "front"
BIN_S: Final = 300
ONSET_S: Final = 2 * BIN_S
WARMUP_S: Final = 3600.0
LEARN_BINS: Final = 96  # eight hours
HIGH: Final = "high_traffic"
TRAFFICS: Final = (HIGH, "low_traffic")
SEEDS: Final = 20
QUIET_SEEDS: Final = 10  # of 49 h each, twice: 40 days
DIP_RATIO: Final = 0.98


@dataclass(frozen=True, slots=True)
class Bin:
    """Five minutes of the front node; latencies in seconds at the quantiles of `LEVELS`."""

    at: float
    requests: float
    availability: float
    latency_s: tuple[float, ...]


LEVELS: Final = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Incident:
    """
    One injected fault.

    Attributes:
        name: Its folder.
        kind: What it harms, as recorded: `latency` or `availability`.
        bins: Five bins, the fault shows from the third on.
        early: It was injected at the beginning of the second bin, and shows there.
    """

    name: str
    kind: str
    bins: tuple[Bin, ...]
    early: bool


def bins(path: Path) -> tuple[Bin, ...]:
    """Return the front node's bins of one `metrics.csv`; bins without data are left out."""
    with path.open(newline="") as lines:
        table = list(csv.reader(lines))
    columns = {(metric, aggregate): i for i, (node, metric, aggregate) in _columns(table) if node == NODE}
    names = [("latency", f"p{level * 100:.0f}") for level in LEVELS]
    found = []
    for row in table[4:]:
        cell = {name: row[i] for name, i in columns.items()}
        if all(cell.values()):
            found.append(
                Bin(
                    float(row[0]),
                    float(cell["requests", "Sum"]),
                    float(cell["availability", "Average"]) / 100,
                    tuple(float(cell[name]) for name in names),
                )
            )
    return tuple(found)


def _columns(table: Sequence[Sequence[str]]) -> Iterator[tuple[int, tuple[str, str, str]]]:
    return ((i, (table[0][i], table[1][i], table[2][i])) for i in range(1, len(table[0])))


def incidents(traffic: str) -> tuple[Incident, ...]:
    """Return the incidents of `high_traffic` or `low_traffic`."""
    root = unpacked("petshop.tar.gz") / "petshop" / "dataset" / traffic
    found = []
    for path in sorted(root.glob("*/issue_*/target.json")):
        target = json.loads(path.read_text())["target"]
        recorded = bins(path.with_name("metrics.csv"))
        early = target["timestamp"] - recorded[0].at < 1.5 * BIN_S
        found.append(Incident(f"{path.parts[-3]}/{path.parts[-2]}", target["metric"], recorded, early))
    return tuple(found)


def quiet(traffic: str) -> tuple[Bin, ...]:
    """Return the quiet span of 49 h."""
    return bins(unpacked("petshop.tar.gz") / "petshop" / "dataset" / traffic / "noissue" / "metrics.csv")


def masked(span: Sequence[Bin]) -> frozenset[int]:
    """Return the indices of dips and their neighbours."""
    dips = [i for i, one in enumerate(span) if one.availability < DIP_RATIO]
    return frozenset(i + d for i in dips for d in (-1, 0, 1))


@dataclass
class Expansion:
    """
    Bins as seconds: one `RouteSecond` each.

    Attributes:
        seed: Of the random draws.
        at: Monotonic seconds at the end of the last second.
    """

    seed: int
    at: float = 0.0
    _open: list[tuple[float, float, bool]] = field(default_factory=list)  # end, begin, failed

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def seconds(self, recorded: Bin) -> Iterator[RouteSecond]:
        """Yield the bin's 300 seconds."""
        knots = _knots(recorded)
        for _ in range(BIN_S):
            yield self._second(recorded, knots)

    def _second(self, recorded: Bin, knots: Sequence[tuple[float, float]]) -> RouteSecond:
        rng, began = self._rng, self.at
        arrivals = poisson(rng, recorded.requests / BIN_S)
        failed = binomial(rng, arrivals, 1 - recorded.availability)
        for k in range(arrivals):
            begin = began + rng.random()
            heappush(self._open, (begin + _draw(rng, knots), begin, k < failed))
        self.at += 1.0
        ended = []
        while self._open and self._open[0][0] <= self.at:
            ended.append(heappop(self._open))
        failures = sum(bad for _, _, bad in ended)
        return RouteSecond(
            ROUTE, self.at, arrivals=arrivals, successes=len(ended) - failures, failures=failures,
            latency=_counts(end - begin for end, begin, _ in ended),
            waiting=_counts(self.at - begin for _, begin, _ in self._open),
            in_flight=len(self._open),
            statuses={"200": (len(ended) - failures, 0), "500": (failures, failures)} if failures else {"200": (len(ended), 0)},
            methods={"GET": (len(ended), failures)},
        )  # fmt: skip


def _knots(recorded: Bin) -> list[tuple[float, float]]:
    """Return (level, log latency) of the bin's quantile function; its ends are guesses that no quantile depends on."""
    inner = [(level, log(value)) for level, value in zip(LEVELS, recorded.latency_s, strict=True)]
    return [(0.0, inner[0][1] - 1.0), *inner, (1.0, inner[-1][1] + 0.3)]


def _draw(rng: random.Random, knots: Sequence[tuple[float, float]]) -> float:
    level = rng.random()
    for (low, a), (high, b) in pairwise(knots):
        if level < high:
            return exp(a + (b - a) * (level - low) / (high - low))
    return exp(knots[-1][1])


def _counts(ages_s: Iterator[float]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for age in ages_s:
        i = index(age)
        counts[i] = counts.get(i, 0) + 1
    return counts


def _claims(bank: Bank, seconds: Iterator[RouteSecond]) -> Iterator[tuple[float, frozenset[str], tuple[Signal, ...]]]:
    """Yield each second's end, the detectors that claim something in it, and the claims."""
    for second in seconds:
        signals = bank.observe([second], second.at)
        yield second.at, frozenset(signal.detector.value for signal in signals), signals


@dataclass(frozen=True, slots=True)
class QuietSpan:
    """What was raised in the quiet span with one seed."""

    alarms: tuple[tuple[float, str], ...]
    isolations: int
    days: float


def watch_quiet(task: tuple[str, int]) -> QuietSpan:
    """Watch the quiet span of one traffic."""
    traffic, seed = task
    span, expansion, policy = quiet(traffic), Expansion(seed), DetectPolicy()
    bank, series, mask = Bank(policy, [ROUTE], 0.0), Series(), masked(span)
    alarms: list[tuple[float, str]] = []
    isolations, watched_s, before = 0, 0, frozenset[str]()
    for i, recorded in enumerate(span):
        seconds = list(expansion.seconds(recorded))
        for second, (at, claims, signals) in zip(seconds, _claims(bank, iter(seconds)), strict=True):
            series.add([second], at)
            counts = i not in mask and at >= WARMUP_S
            watched_s += counts
            if claims and not before and counts:
                alarms.append((at, "+".join(sorted(claims))))
                isolations += any(finding.actionable for finding in fuse(signals, series, policy, at))
            before = claims
    return QuietSpan(tuple(alarms), isolations, watched_s / 86_400)


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one incident: seconds from the onset (infinite: missed), and who raised it."""

    delay_s: float
    detectors: tuple[str, ...]


def meet_incidents(task: tuple[str, int]) -> dict[str, Found]:
    """Learn the time of the incidents, then meet each of them from that state."""
    traffic, seed = task
    all_of_them = incidents(traffic)
    before = [one for incident in all_of_them for one in incident.bins[: 1 if incident.early else 2]]
    rng, expansion = random.Random(seed), Expansion(seed)
    bank = Bank(DetectPolicy(), [ROUTE], 0.0)
    for _ in range(LEARN_BINS):
        for _ in _claims(bank, expansion.seconds(rng.choice(before))):
            pass
    state, at = bank.snapshot(), expansion.at
    found = {}
    for i, incident in enumerate(all_of_them):
        fresh = Bank(DetectPolicy(), [ROUTE], at)
        fresh.restore(state, at)
        found[incident.name] = _meet(fresh, Expansion(seed * 1000 + i, at), incident)
    return found


def _meet(bank: Bank, expansion: Expansion, incident: Incident) -> Found:
    began_at, before = expansion.at, frozenset[str]()
    for recorded in (*incident.bins, *incident.bins[:1], *incident.bins[:1]):
        for at, claims, _ in _claims(bank, expansion.seconds(recorded)):
            passed_s = at - began_at - ONSET_S
            if passed_s > 0 and claims - before:
                return Found(passed_s, tuple(sorted(claims - before)))
            if passed_s > 0 and claims and incident.early:
                return Found(0.0, tuple(sorted(claims)))
            before = claims
    return Found(inf, ())


def quiet_isolations(effort: Effort) -> int | None:
    """Return the false isolations of the quiet spans; None when the recording is not here."""
    try:
        return sum(span.isolations for spans in _quiet_spans(effort).values() for span in spans)
    except RecordingsMissingError:
        return None


@cache
def _quiet_spans(effort: Effort) -> dict[str, list[QuietSpan]]:
    unpacked("petshop.tar.gz")
    tasks = [(traffic, seed) for traffic in TRAFFICS for seed in range(1, effort.of(QUIET_SEEDS) + 1)]
    with ProcessPoolExecutor(effort.workers) as pool:
        spans = list(pool.map(watch_quiet, tasks))
    return {
        name: [span for (traffic, _), span in zip(tasks, spans, strict=True) if traffic == name] for name in TRAFFICS
    }


def row_8(effort: Effort) -> Measured:
    """PetShop, high traffic; the low one is in the figures."""
    quiet_spans = _quiet_spans(effort)
    seeds = range(1, effort.of(SEEDS) + 1)
    with ProcessPoolExecutor(effort.workers) as pool:
        met_with = {name: list(pool.map(meet_incidents, [(name, seed) for seed in seeds])) for name in TRAFFICS}
    numbers = {name: _summary(met_with[name], quiet_spans[name]) for name in TRAFFICS}
    high = numbers[HIGH]
    recall, median_s, daily = high["recall"], high["median_s"], high["quiet_alarms_a_day"]
    met, moonshot = (recall >= r and median_s <= s and daily <= q for r, s, q in ((19, 150, 0.5), (22, 90, 0.2)))
    return Measured(f"{recall:.1f} / {median_s:.0f} s / {daily:.2f}", met, moonshot, numbers)


def _summary(met_with: Sequence[Mapping[str, Found]], spans: Sequence[QuietSpan]) -> dict[str, Any]:
    """Return the figures of one traffic: means over the seeds, and each incident's median delay."""
    names = list(met_with[0])
    by_incident = {name: [found[name] for found in met_with] for name in names}
    return {
        "recall": mean(sum(found.delay_s < inf for found in one.values()) for one in met_with),
        "median_s": median(median(found.delay_s for found in one.values()) for one in met_with),
        "quiet_alarms_a_day": sum(len(span.alarms) for span in spans) / sum(span.days for span in spans),
        "quiet_alarms": [alarm for span in spans for alarm in span.alarms],
        "seeds": len(met_with),
        "incidents": {
            name: {
                "found": sum(one.delay_s < inf for one in found),
                "median_s": median(one.delay_s for one in found),
                "by": sorted({detector for one in found for detector in one.detectors}),
            }
            for name, found in by_incident.items()
        },
    }
