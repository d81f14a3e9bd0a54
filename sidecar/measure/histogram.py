"""
One log-spaced latency histogram: for quantiles, `/metrics`, detection and merging over workers.

Theory
    Six buckets an octave from 2⁻¹⁴ s (61 µs) to 2¹⁰ s (1,024 s): 144 buckets, one below and one above them. Bucket i
    (1 ≤ i ≤ 144) holds 2^((i − 85)/6) ≤ s < 2^((i − 84)/6). Its middle, the geometric one, is at most 2^(1/12) − 1 =
    5.9 % away from any value in it: that is the relative error of everything read from here. Two histograms merge by
    adding their counts, exactly.

Tables
    index      0          1                 …   85           …   144              145
    holds      < 61 µs    61 µs – 69 µs         1 – 1.12 s       912 – 1,024 s    ≥ 1,024 s

What can go wrong
    A bound of `/metrics` lies inside a bucket: the whole bucket is counted to the side on which its middle lies, so a
    request within 5.9 % of a bound may be on its wrong side; sums and counts stay exact. Below 61 µs all values are one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, inf, log2
from typing import Final

PER_OCTAVE: Final = 6
FLOOR_S: Final = 2.0**-14
CEILING_S: Final = 2.0**10
SIZE: Final = 24 * PER_OCTAVE + 2
LAST: Final = SIZE - 1
RELATIVE_ERROR: Final = 2.0 ** (0.5 / PER_OCTAVE) - 1.0
_OFFSET: Final = 14 * PER_OCTAVE + 1.0

UPPER_S: Final[tuple[float, ...]] = (*(2.0 ** ((i - 84) / PER_OCTAVE) for i in range(LAST)), inf)
LOWER_S: Final[tuple[float, ...]] = (0.0, *UPPER_S[:-1])
MIDDLE_S: Final[tuple[float, ...]] = tuple(2.0 ** ((i - 84.5) / PER_OCTAVE) for i in range(SIZE))

# OpenTelemetry's semantic conventions for http.server.request.duration.
OTEL_BOUNDS_S: Final[tuple[float, ...]] = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip

Counts = Mapping[int, int]


def index(seconds: float) -> int:
    """Return the bucket of *seconds*; negative values are in the first, infinity in the last."""
    if seconds < FLOOR_S:
        return 0
    if seconds >= CEILING_S:
        return LAST
    return int(log2(seconds) * 6.0 + _OFFSET)


def pairs(counts: Sequence[int]) -> list[list[int]]:
    """Return the filled buckets of a dense list as [[index, count], …]: how frames carry them."""
    return [[i, count] for i, count in enumerate(counts) if count]


def of_pairs(rows: Iterable[Sequence[int]]) -> dict[int, int]:
    """Read what `pairs` wrote."""
    return {row[0]: row[1] for row in rows}


def of_values(values: Iterable[float]) -> dict[int, int]:
    """Return the histogram of some seconds."""
    counts: dict[int, int] = {}
    for value in values:
        i = index(value)
        counts[i] = counts.get(i, 0) + 1
    return counts


def merge(*histograms: Counts) -> dict[int, int]:
    """Return the sum of some histograms."""
    total: dict[int, int] = {}
    for counts in histograms:
        for i, count in counts.items():
            total[i] = total.get(i, 0) + count
    return total


def difference(later: Counts, earlier: Counts) -> dict[int, int]:
    """Return what came between two readings of one cumulative histogram."""
    rows = ((i, count - earlier.get(i, 0)) for i, count in later.items())
    return {i: count for i, count in rows if count > 0}


def total(counts: Counts) -> int:
    """Count all values."""
    return sum(counts.values())


def quantile(counts: Counts, q: float) -> float:
    """
    Return the *q*-quantile in seconds, with `RELATIVE_ERROR`; 0 for an empty histogram.

    Args:
        counts: Bucket index → count.
        q: 0..1; the smallest value that at least q of all values do not exceed.
    """
    rank = max(1, ceil(q * total(counts) - 1e-9))
    for i in sorted(counts):
        rank -= counts[i]
        if rank <= 0:
            return MIDDLE_S[i]
    return 0.0


def count_above(counts: Counts, seconds: float) -> int:
    """Count the values above *seconds*, exact for a value that `quantile` returned."""
    first = _first_above(seconds)
    return sum(count for i, count in counts.items() if i >= first)


def cumulative(counts: Counts, bounds_s: Sequence[float] = OTEL_BOUNDS_S) -> list[int]:
    """Count the values at or below each of the ascending *bounds_s*, with `RELATIVE_ERROR` around each bound."""
    firsts = [_first_above(bound) for bound in bounds_s]
    return [sum(count for i, count in counts.items() if i < first) for first in firsts]


def _first_above(seconds: float) -> int:
    """Return the first bucket whose middle lies above *seconds*."""
    return bisect_right(MIDDLE_S, seconds)
