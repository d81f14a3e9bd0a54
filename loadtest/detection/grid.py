"""
`python -m loadtest.detection.grid`: synthetic truths at every rate, and how soon each is found, against the floor.

Theory
    The detectors alone, a draw a second: Poisson arrivals, binomial failures, and, since a Poisson stream that is dealt to
    buckets is a Poisson stream in each, latencies as one draw for each bucket that holds any. Nothing that knows both
    distributions and raises falsely once in γ requests can on average be faster than

        ln γ / (rate · KL(fault ‖ normal))        γ = the requests of 30 days, at least 10,000

    (Lorden 1971). KL is of Bernoulli variables for failures, of whole histograms for latency, of Poisson rates for arrivals.

Tables
    part        normal                       faults
    errors      0.1 % and 1 % fail           2, 5, 10, 30, 100 % fail
    latency     lognormal, 20 ms, σ 0.5      ×1.2, ×1.5, ×2, ×4, ×10, for all and for a tenth of the requests
    arrivals    the rate                     none, half, twice, four times
    blip        0.1 % fail                   a second in which everything fails, as of a restart: no alarm is wanted

    An hour of training at least, so long as 3,000 requests take; a fault lasts an hour, or 500 / rate seconds when that is
    more. Three seeds; the median counts, a miss as infinite.

What can go wrong
    Traffic of one's own making flatters: no φ and no day here. False alarms are row 6 (`quiet.py`), where there are both.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import erf, inf, isfinite, log, log2, sqrt
from pathlib import Path
from statistics import median
from typing import Any, Final

from sidecar.detect.errors import ErrorDetector
from sidecar.detect.latency import LatencyDetector
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.traffic import TrafficDetector
from sidecar.facts import RouteSecond
from sidecar.measure.histogram import LAST, UPPER_S
from tests.support.traffic import binomial, poisson

RATES: Final = (0.1, 1.0, 10.0, 100.0, 1000.0)
RATIOS: Final = (0.001, 0.01)
ERRORS: Final = (0.02, 0.05, 0.1, 0.3, 1.0)
FACTORS: Final = (1.2, 1.5, 2.0, 4.0, 10.0)
ARRIVALS: Final = (0.0, 0.5, 2.0, 4.0)
SEEDS: Final = 3
MEDIAN_S, SIGMA = 0.02, 0.5
MONTH_S: Final = 30 * 86_400.0
DOCS: Final = Path(__file__).resolve().parents[2] / "docs" / "plots"

Step = Callable[[float], bool]  # one second that ends then; true while an alarm stands


@dataclass(frozen=True, slots=True)
class Found:
    """One cell: the median delay (infinite: missed by most), the floor, and the seeds that never raised."""

    part: str
    normal: str
    rate_per_s: float
    fault: str
    delay_s: float
    floor_s: float
    missed: int


def _training_s(rate: float) -> int:
    return round(max(3600.0, 3000.0 / rate))


def _patience_s(rate: float) -> int:
    return round(max(3600.0, 500.0 / rate))


def _floor_s(rate: float, divergence: float) -> float:
    return log(max(rate * MONTH_S, 1e4)) / (rate * divergence) if divergence > 0 else inf


def _delay(calm: Step, fault: Step, rate: float) -> float:
    """Train, let the fault begin, and return the seconds until an alarm; one that stood before counts for nothing."""
    at = 0.0
    for _ in range(_training_s(rate)):
        at += 1.0
        calm(at)
    for passed in range(1, _patience_s(rate) + 1):
        if fault(at + passed):
            return float(passed)
    return inf


def _cell(part: str, normal: str, rate: float, fault: str, floor_s: float, delays: Sequence[float]) -> Found:
    return Found(part, normal, rate, fault, median(delays), floor_s, sum(delay == inf for delay in delays))


# --- errors


def _errors(rng: random.Random, detector: ErrorDetector, rate: float, ratio: float) -> Step:
    def second(at: float) -> bool:
        requests = poisson(rng, rate)
        detector.observe(requests, binomial(rng, requests, ratio), at, 1.0)
        return detector.alarm.stands

    return second


def errors(rate: float, ratio: float, bad: float) -> Found:
    """Return how soon *bad* failures are found where *ratio* is normal."""
    delays = []
    for seed in range(SEEDS):
        rng, detector = random.Random(seed), ErrorDetector(DetectPolicy(), 0.0)
        delays.append(_delay(_errors(rng, detector, rate, ratio), _errors(rng, detector, rate, bad), rate))
    divergence = bad * log(bad / ratio) + ((1 - bad) * log((1 - bad) / (1 - ratio)) if bad < 1 else 0.0)
    return _cell("errors", f"{ratio:.1%} fail", rate, f"{bad:.0%} fail", _floor_s(rate, divergence), delays)


def blip(rate: float) -> Found:
    """Return whether a second in which everything fails raises: here a miss is what is wanted."""
    delays = []
    for seed in range(SEEDS):
        rng, detector = random.Random(seed), ErrorDetector(DetectPolicy(), 0.0)
        calm, broken = (_errors(rng, detector, rate, ratio) for ratio in (0.001, 1.0))
        began = iter([broken])
        delays.append(_delay(calm, lambda at, began=began, calm=calm: next(began, calm)(at), rate))  # type: ignore[misc]
    return _cell("blip", "0.1% fail", rate, "one second", inf, delays)


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


def _latency(rng: random.Random, detector: LatencyDetector, rate: float, dealt: Mapping[int, float]) -> Step:
    means = [(i, rate * share) for i, share in dealt.items()]

    def second(at: float) -> bool:
        counts = {i: count for i, mean in means if (count := poisson(rng, mean))}
        detector.observe(RouteSecond("grid", at, latency=counts), 1.0)
        return detector.alarm.stands

    return second


def latency(rate: float, factor: float, part: float) -> Found:
    """Return how soon it is found that *part* of the requests take *factor* times as long."""
    normal, fault, delays = shares(1.0, 0.0), shares(factor, part), []
    for seed in range(SEEDS):
        rng, detector = random.Random(seed), LatencyDetector(DetectPolicy(), 0.0)
        delays.append(_delay(_latency(rng, detector, rate, normal), _latency(rng, detector, rate, fault), rate))
    divergence = sum(share * log(share / normal.get(i, 1e-9)) for i, share in fault.items())
    who = "all" if part == 1 else f"{part:.0%}"
    return _cell("latency", "20 ms", rate, f"x{factor:g} for {who}", _floor_s(rate, divergence), delays)


# --- arrivals


def _arrivals(rng: random.Random, detector: TrafficDetector, rate: float) -> Step:
    def second(at: float) -> bool:
        detector.observe(poisson(rng, rate), at, 1.0)
        return detector.surge.stands or detector.silence.stands

    return second


def arrivals(rate: float, factor: float) -> Found:
    """Return how soon *factor* times the rate is found."""
    delays = []
    for seed in range(SEEDS):
        rng, detector = random.Random(seed), TrafficDetector(DetectPolicy(), 0.0)
        delays.append(_delay(_arrivals(rng, detector, rate), _arrivals(rng, detector, rate * factor), rate))
    divergence = factor * log(factor) - factor + 1 if factor else 1.0
    return _cell("arrivals", "the rate", rate, f"x{factor:g}", _floor_s(rate, divergence), delays)


# --- all of it


def cells(rates: Sequence[float]) -> Iterator[Found]:
    """Yield every cell at *rates*."""
    for rate in rates:
        yield from (errors(rate, ratio, bad) for ratio in RATIOS for bad in ERRORS)
        yield from (latency(rate, factor, part) for part in (1.0, 0.1) for factor in FACTORS)
        yield from (arrivals(rate, factor) for factor in ARRIVALS)
        yield blip(rate)


def plot(title: str, found: Sequence[Found]) -> str:
    """Return delays (and floors, dashed) over the rate as SVG, both axes in powers of ten."""
    import pygal  # noqa: PLC0415  takes a while to load
    from pygal.style import CleanStyle  # noqa: PLC0415

    # pygal's finder for map plugins has no find_spec: every later import of something absent would warn (Python 3.11).
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

    chart = pygal.XY(
        title=title, x_title="requests a second, 10^x", y_title="seconds to detect, 10^y", style=CleanStyle, width=800,
        height=420, js=(), no_prefix=True, explicit_size=True, legend_at_bottom=True, legend_at_bottom_columns=5, dots_size=3,
    )  # fmt: skip
    for fault in dict.fromkeys(one.fault for one in found):
        rows = [one for one in found if one.fault == fault]
        dots = [
            (log2(one.rate_per_s) / log2(10), log2(one.delay_s) / log2(10)) for one in rows if isfinite(one.delay_s)
        ]
        floor = [(log2(one.rate_per_s) / log2(10), log2(max(one.floor_s, 1.0)) / log2(10)) for one in rows]
        chart.add(fault, dots)
        chart.add(f"floor, {fault}", floor, stroke_style={"dasharray": "3, 6"}, show_dots=False)
    text: str = chart.render(is_unicode=True)
    return text


def plots(found: Sequence[Found]) -> dict[str, str]:
    """Return each plot by its file name."""
    picked = {
        "errors": [one for one in found if one.part == "errors" and one.normal == "0.1% fail"],
        "latency-all": [one for one in found if one.part == "latency" and one.fault.endswith("all")],
        "latency-tenth": [one for one in found if one.part == "latency" and not one.fault.endswith("all")],
        "arrivals": [one for one in found if one.part == "arrivals"],
    }
    return {f"{name}.svg": plot(f"{name}: time to detect and its floor", rows) for name, rows in picked.items() if rows}


def document(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return the cells as JSON objects; what is infinite is null."""
    return [
        {key: None if value == inf else round(value, 2) if isinstance(value, float) else value for key, value in asdict(one).items()}
        for one in found
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure the grid, write it as JSON and as plots."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.detection.grid", description=__doc__)
    parser.add_argument("--rates", default=",".join(f"{rate:g}" for rate in RATES), help="requests a second, as 1,10")
    parser.add_argument("--into", type=Path, default=DOCS, help="where grid.json and the plots go")
    asked = parser.parse_args(arguments)
    found = []
    for one in cells([float(rate) for rate in asked.rates.split(",")]):
        found.append(one)
        print(
            f"{one.part:9} {one.rate_per_s:6g}/s  {one.fault:14} {one.delay_s:7g} s, floor {one.floor_s:.1f} s",
            flush=True,
        )
    asked.into.mkdir(parents=True, exist_ok=True)
    (asked.into / "grid.json").write_text(json.dumps(document(found), indent=0) + "\n")
    for name, text in plots(found).items():
        (asked.into / name).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
