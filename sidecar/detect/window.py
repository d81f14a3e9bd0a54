"""
A histogram that holds only what was ever used of it.

The answers of one route lie within a few octaves: 35 of the 146 buckets of `measure/histogram.py` are all that a
lognormal latency with σ = 0.5 ever fills. A `Window` keeps the buckets from the lowest to the highest used one, and is
widened by what falls outside. It never narrows by itself: a route whose answers take from a microsecond to a minute pays
for all buckets. The numbers are the same ones, in the same order, as those of a dense histogram.

A window of 16 bits a bucket ("H") is for whole counts that are cleared before long: the count that does not fit makes it one
of single precision, exact to 16 million, until it is cleared.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from sidecar.measure.histogram import LAST, LOWER_S, SIZE, UPPER_S


def quantile_s(counts: Sequence[float], q: float, low: int = 0) -> float:
    """Return the *q*-quantile in seconds of counts from bucket *low* on, interpolated within its bucket; 0 when empty."""
    total = sum(counts)
    if total <= 0:
        return 0.0
    rank = q * total
    for i, count in enumerate(counts, low):
        if rank <= count and count > 0:
            top = UPPER_S[i] if i < LAST else 2 * LOWER_S[i]
            return LOWER_S[i] + (top - LOWER_S[i]) * rank / count
        rank -= count
    return LOWER_S[LAST]


class Window:
    """
    Counts by bucket.

    Attributes:
        low: The bucket of the first cell.
        cells: The counts from there on.
    """

    __slots__ = ("cells", "low")

    def __init__(self, typecode: str = "f", counts: Sequence[float] = ()) -> None:
        self.cells = zeros(typecode, 0)
        self.low = 0
        used = [i for i, count in enumerate(counts) if count]
        if used:
            self.low = used[0]
            self.cells = array(typecode, counts[used[0] : used[-1] + 1])

    def __repr__(self) -> str:
        return f"<Window {self.low} to {self.low + len(self.cells) - 1}>"

    def add(self, bucket: int, count: float) -> None:
        """Add *count* to *bucket*."""
        cell = bucket - self.low
        if not 0 <= cell < len(self.cells):
            self._widen(bucket)
            cell = bucket - self.low
        try:
            self.cells[cell] += count
        except OverflowError:
            self.cells = array("f", self.cells)
            self.cells[cell] += count

    def add_all(self, counts: Mapping[int, int], weight: float) -> None:
        """Add *weight* for each one of *counts*: `add` without a call a bucket, as this is done every second."""
        cells, low = self.cells, self.low
        for bucket, count in counts.items():
            if not 0 <= bucket - low < len(cells):
                self._widen(bucket)
                cells, low = self.cells, self.low
            cells[bucket - low] += count * weight

    def _widen(self, bucket: int) -> None:
        """Make room for *bucket*, in an array that is no larger than that."""
        low, high = span(self.low, len(self.cells), bucket)
        self.low = self.low if self.cells else low
        cells = zeros(self.cells.typecode, high - low)
        cells[self.low - low : self.low - low + len(self.cells)] = self.cells
        self.cells, self.low = cells, low

    def blend(self, fade: float, counts: Sequence[float]) -> None:
        """Fade what is held by the factor *fade* and add the dense *counts*, rounding once."""
        for i, count in enumerate(counts):
            if count and not 0 <= i - self.low < len(self.cells):
                self._widen(i)
        cells, low = self.cells, self.low
        for j, held in enumerate(cells):
            cells[j] = held * fade + counts[low + j]

    def clear(self, typecode: str = "f") -> None:
        """Set all counts to zero, of *typecode* from now on; what was used will be used again."""
        self.cells = zeros(typecode, len(self.cells))

    def quantile_s(self, q: float) -> float:
        """Return the *q*-quantile in seconds; 0 when empty."""
        return quantile_s(self.cells, q, self.low)

    def above(self, bucket: int) -> float:
        """Return the sum above *bucket*."""
        return sum(self.cells[max(bucket + 1 - self.low, 0) :])

    def dense(self) -> array[float]:
        """Return all `SIZE` counts."""
        whole = zeros(self.cells.typecode, SIZE)
        whole[self.low : self.low + len(self.cells)] = self.cells
        return whole


def zeros(typecode: str, count: int) -> array[float]:
    """Return *count* zeros in no more memory than they need."""
    some: array[float] = array(typecode, bytes(8))
    return some[:1] * count


def span(low: int, width: int, bucket: int) -> tuple[int, int]:
    """Return the first bucket and the end of *width* buckets from *low* on, widened to hold *bucket*."""
    return (min(low, bucket), max(low + width, bucket + 1)) if width else (bucket, bucket + 1)
