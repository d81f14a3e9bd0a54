"""
Normal and present latency of one route, as histograms of `measure/histogram.py`.

Theory
    `LatencyBaseline` learns like `RatioBaseline` (see `baseline.py`): warm-up, a quarantine of 10 min, dropped on an
    alarm, faded by half in 24 h, winsorised at 4 deviations. q50, q95 and q99 are *held*: they are bucket bounds that,
    once the baseline has grown to 10,000 requests, follow the histogram by at most 5 % an hour, and the share above
    each bound by at most 0.1 logit an hour. What is tested is that true share, not the nominal 50, 5 and 1 %, and a
    margin of 0.2 logit, half of what a failure ratio gets: a bound is where it is because that many requests lay above it,
    so its share is known from the start, and a claim asks for an effect on p95 besides. When a bound moves by a bucket its share moves by the histogram's step between the two, no more.

    `Fading` is the present: the last seconds by e^(−age/τ).

    `Jitter` is the largest excess of p95 that a calm route has shown, halved every 6 h: it is sampled every 10 s (the
    present's own memory), and the largest of six samples counts once their minute has ended in calm.

What can go wrong
    The histogram is kept in blocks of 200 s while it waits, in 16 bits a bucket as long as they are enough: three blocks are what memory allows. φ is of
    blocks of 60 s and 600 s as everywhere, and these skip the quarantine: a block that belongs to an undetected
    incident can raise φ, but is cut at 30 times its variance. A slow rise teaches the jitter too, minute by minute:
    whoever asks caps it.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import exp, sqrt
from typing import Any, ClassVar, Final

from sidecar.detect.baseline import (
    DEVIATIONS,
    DRIFT_PER_H,
    HALF_LIFE_S,
    Dispersion,
    Quarantine,
    logit,
    margin,
    sigmoid,
    warmup_scale,
)
from sidecar.detect.keep import Document, Names, keep, revive
from sidecar.detect.window import Window
from sidecar.measure.histogram import LAST, SIZE, index

QUANTILES: Final = (0.5, 0.95, 0.99)
LEVEL_DRIFT_PER_H: Final = 0.05
LEVEL_MARGIN: Final = 0.2  # logit; more while few requests are known
HISTOGRAM_BLOCKS: Final = 3
MINUTE_S: Final = 60.0
GROWN_REQUESTS: Final = 10_000.0
SAMPLE_S: Final = 10.0
JITTER_HALF_LIFE_S: Final = 6 * 3600.0


class LatencyBaseline:
    """
    The normal latency of one stream.

    Attributes:
        counts, total, seconds: What was learnt, faded.
        levels_s: q50, q95, q99 as they are used.
        bounds: Their buckets; what lies above the bucket is above the level.
        held: logit of the share above each bound, as it is used.
        p95_s: Of the histogram.
        warm_at: When the warm-up ended; None while it lasts.
    """

    __slots__ = (
        "_block", "_need", "_quarantine", "_warmup_s", "bounds", "counts", "dispersions", "held", "levels_s", "p95_s",
        "seconds", "total", "warm_at",
    )  # fmt: skip
    KEPT: ClassVar[Names] = ("total", "seconds", "levels_s", "bounds", "held", "p95_s", "_block")
    TIMES: ClassVar[Names] = ("warm_at",)

    def __init__(self, need_requests: float, warmup_s: float) -> None:
        scale = warmup_scale(warmup_s)
        self._need = need_requests * scale
        self._warmup_s = warmup_s
        self._quarantine = Quarantine(SIZE, scale, HISTOGRAM_BLOCKS, whole=True)
        self._block = array("d", [0.0]) * 5  # seconds, requests, above each level
        self.dispersions = tuple(Dispersion() for _ in QUANTILES)
        self.counts = Window()
        self.total = self.seconds = self.p95_s = 0.0
        self.levels_s = array("d", [0.0]) * 3
        self.bounds = [LAST] * 3
        self.held = array("d", [logit(1 - q) for q in QUANTILES])
        self.warm_at: float | None = None

    def __repr__(self) -> str:
        return f"<LatencyBaseline p95 {self.p95_s * 1000:.1f} ms of {self.total:.0f}>"

    @property
    def rate_per_s(self) -> float:
        """Return the requests a second, as learnt; 0 while cold."""
        return self.total / self.seconds if self.seconds and self.warm_at is not None else 0.0

    @property
    def young(self) -> bool:
        """Tell whether too little was learnt for the levels to be more than a first guess."""
        return self.total < GROWN_REQUESTS

    @property
    def cold(self) -> str:
        """Say what the warm-up still lacks; empty once it is over."""
        if self.warm_at is not None:
            return ""
        if self.total < self._need:
            return f"baseline cold, {self.total:.0f} of {self._need:.0f} requests"
        return f"baseline cold, {self.seconds:.0f} of {self._warmup_s:.0f} s"

    def tested_ratios(self) -> list[float]:
        """Return, for each level, the share above it that a test takes as normal; nominal while cold."""
        if self.warm_at is None:
            return [1 - q for q in QUANTILES]
        ratios = (sigmoid(held) for held in self.held)
        return [sigmoid(logit(ratio) + margin(0.5 + ratio * self.total, ratio, LEVEL_MARGIN)) for ratio in ratios]

    def collect(self, latency: Mapping[int, int], at: float, elapsed_s: float) -> bool:
        """Take one second that is not known to be abnormal; return whether the baseline changed."""
        if self.warm_at is not None:
            self._quarantine.collect(latency.items(), at, elapsed_s)
            return False
        for i, count in latency.items():
            self.counts.add(i, count)
            self.total += count
        self.seconds += elapsed_s
        if self.total < self._need or self.seconds < self._warmup_s:
            return False
        self.warm_at = at
        self._settle(3600.0)
        return True

    def vary(self, requests: float, above: tuple[float, float, float], elapsed_s: float) -> bool:
        """Take one second's tested counts for φ; return whether a block ended and φ may have changed."""
        block = self._block
        block[0] += elapsed_s
        block[1] += requests
        for i, bad in enumerate(above, 2):
            block[i] += bad
        if block[0] < MINUTE_S:
            return False
        for dispersion, bad in zip(self.dispersions, block[2:], strict=True):
            dispersion.add(block[1], bad)
        self._block = array("d", [0.0]) * 5
        return True

    def mature(self, at: float) -> bool:
        """Learn what has waited long enough; return whether the baseline changed."""
        if self.warm_at is None:
            return False
        free = self._quarantine.release(at, self.warm_at - self._warmup_s)
        for block in free:
            self._absorb(block.sums, block.seconds)
        return bool(free)

    def _absorb(self, sums: array[float], seconds: float) -> None:
        if not self.young:
            self._winsorise(sums)
        fade = 0.5 ** (seconds / HALF_LIFE_S)
        self.counts.blend(fade, sums)
        self.total = sum(self.counts.cells)
        self.seconds = self.seconds * fade + seconds
        self._settle(seconds)

    def _winsorise(self, sums: array[float]) -> None:
        """Cut a block's share above each level to 4 deviations beyond the expected one."""
        for bound, held, dispersion in zip(self.bounds, self.held, self.dispersions, strict=True):
            requests, ratio = sum(sums), sigmoid(held)
            most = requests * ratio + DEVIATIONS * sqrt(requests * ratio * (1 - ratio) * dispersion.value)
            above = sum(sums[bound + 1 :])
            if above > most:
                for i in range(bound + 1, SIZE):
                    sums[i] *= most / above

    def _settle(self, seconds: float) -> None:
        """Let levels and shares follow the histogram, as far as *seconds* allow once it is grown."""
        grown = not self.young
        self.p95_s = self.counts.quantile_s(0.95)
        for j, q in enumerate(QUANTILES):
            level = self.counts.quantile_s(q)
            if grown and self.levels_s[j]:
                step = 1 + LEVEL_DRIFT_PER_H * seconds / 3600
                level = min(max(level, self.levels_s[j] / step), self.levels_s[j] * step)
            bound, was = index(level), self.bounds[j]
            target = self._above(bound)
            if grown and self.levels_s[j]:
                held = self.held[j] + (target - self._above(was) if bound != was else 0.0)
                limit = DRIFT_PER_H * seconds / 3600
                target = held + min(max(target - held, -limit), limit)
            self.levels_s[j], self.bounds[j], self.held[j] = level, bound, target

    def _above(self, bound: int) -> float:
        return logit((self.counts.above(bound) + 0.5) / (self.total + 1))

    def drop(self) -> None:
        """Forget what waits; a baseline that is still cold starts anew."""
        self._quarantine.drop()
        self._block = array("d", [0.0]) * 5
        if self.warm_at is None:
            self.counts = Window()
            self.total = self.seconds = 0.0

    def accept(self, counts: array[float], at: float) -> None:
        """Take the shape of *counts* as normal from now on; a person, or 24 h, said so."""
        self._quarantine.drop()
        total = sum(counts)
        if total <= 0:
            return
        rate_per_s = self.rate_per_s
        scale = max(self._need, total) / total
        self.counts = Window("f", [count * scale for count in counts])
        self.total = sum(self.counts.cells)
        self.seconds = self.total / rate_per_s if rate_per_s else max(self._warmup_s, 1.0)
        self.levels_s = array("d", [0.0]) * 3
        self.warm_at = at
        self._settle(3600.0)

    def apply(self, need_requests: float, warmup_s: float) -> None:
        """Take a new warm-up; a baseline that is warm stays so."""
        scale = warmup_scale(warmup_s)
        self._need = need_requests * scale
        self._warmup_s = warmup_s
        self._quarantine.resize(scale)

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {
            **keep(self),
            "counts": list(self.counts.dense()),
            "quarantine": self._quarantine.snapshot(),
            "dispersions": [dispersion.snapshot() for dispersion in self.dispersions],
        }

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        revive(self, row, shift_s)
        self.counts = Window("f", row["counts"])
        self._quarantine.restore(row["quarantine"], shift_s)
        for dispersion, document in zip(self.dispersions, row["dispersions"], strict=True):
            dispersion.restore(document)


class Fading:
    """A histogram of the present: each count weighs e^(−age/τ). Weights grow instead of all counts shrinking."""

    __slots__ = ("_weight", "counts")
    KEPT: ClassVar[Names] = ("_weight",)
    TIMES: ClassVar[Names] = ()

    def __init__(self) -> None:
        self.counts = Window()
        self._weight = 1.0

    def add(self, latency: Mapping[int, int], elapsed_s: float, horizon_s: float) -> None:
        """Take one second's ends."""
        self._weight *= exp(elapsed_s / horizon_s)
        if self._weight > 1e9:
            cells = self.counts.cells
            cells[:] = array("f", [count / self._weight for count in cells])
            self._weight = 1.0
        self.counts.add_all(latency, self._weight)

    def with_waiting(self, waiting: Mapping[int, int], bound: int) -> array[float]:
        """Return the present as plain counts, with those that wait beyond *bound* at their age so far."""
        now = array("f", [count / self._weight for count in self.counts.dense()])
        for i, count in waiting.items():
            if i > bound:
                now[i] += count
        return now

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {**keep(self), "counts": list(self.counts.dense())}

    def restore(self, row: Mapping[str, Any]) -> None:
        """Put a snapshot back."""
        revive(self, row, 0.0)
        self.counts = Window("f", row["counts"])


class Jitter:
    """
    How far above its normal p95 a calm route goes.

    Attributes:
        excess_s: The largest excess, faded.
    """

    __slots__ = ("_fed_s", "_samples", "_top_s", "excess_s")
    KEPT: ClassVar[Names] = ("_fed_s", "_samples", "_top_s", "excess_s")
    TIMES: ClassVar[Names] = ()

    def __init__(self) -> None:
        self.excess_s = self._top_s = self._fed_s = 0.0
        self._samples = 0

    def __repr__(self) -> str:
        return f"<Jitter {self.excess_s * 1000:.1f} ms>"

    def due(self, elapsed_s: float) -> bool:
        """Let a calm second pass; return whether a sample is to be added now."""
        self._fed_s += elapsed_s
        return self._fed_s >= SAMPLE_S

    def add(self, excess_s: float) -> None:
        """Add one sample; the sixth ends the minute."""
        self._fed_s = 0.0
        self._samples += 1
        self._top_s = max(self._top_s, excess_s)
        if self._samples >= MINUTE_S / SAMPLE_S:
            self.excess_s = max(self.excess_s * 0.5 ** (MINUTE_S / JITTER_HALF_LIFE_S), self._top_s)
            self.drop()

    def drop(self) -> None:
        """Forget the minute that has not ended: it was not calm."""
        self._top_s, self._fed_s, self._samples = 0.0, 0.0, 0
