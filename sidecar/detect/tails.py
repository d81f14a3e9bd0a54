"""
How rare is this value? Upper tails of several streams, estimated as they pass, in constant memory.

Theory
    Peaks over threshold. The level u is the value that 1 % of the past exceeded; what lies above it is taken to fall off
    as a power of the value, that is exponentially in its logarithm (Hill):

        P(V > v) = 0.01 · exp(−(log₂ v − log₂ u) / m)      rarity = −log₁₀ P = 2 + (log₂ v − log₂ u) / (m · ln 10)

    m is the mean excess in octaves, pulled towards an eighth of an octave with the weight of 40 peaks, which is what the
    memory of 4,000 values holds of them: a tail must show often that it is heavy. Values that nobody ever saw thus get
    a finite rarity, on one scale for all streams, whatever their unit: so streams can be compared, and one threshold
    serves them all. Values that stay below u have rarity 0.

    The past is a histogram of log₂ v in eighths of an octave that forgets at 1/4,000 a value. Only 4 octaves around u
    are kept; they move with it. What lies below them counts as their lowest bin, what lies above as their highest.
    A bin is a byte: a value weighs 3 units at first, later ones more, and at 6 all are halved. What a half leaves over is
    carried upwards, across bins that are even or empty, to the next one that has a unit over too: two single units become
    one, in the place of the higher. So a half loses one unit of a stream at most, a sixth of a value, and a thin tail becomes
    longer rather than thinner: what is rare is not called rarer. A full bin (42 values or more) lies below u in any case,
    where the highest 40 of 4,000 values end; more is not asked of it.

Tables
    LEVEL_RATIO 1 %       MEMORY 4,000 values      WARMUP 144 values, before which nothing is rare
    BINS 32 a stream      FIT_EVERY 8 values: when a stream's u and m are found anew

    Between two values a stream may sleep as one packed record (`pack`, `unpack`): a route has 48 of them.

What can go wrong
    A stream that was 0 for more than 99 % of the time has no level but "more than 0": its first value ever seen is then as
    rare as its height above the lowest bin tells, which is very rare. That is meant.

Source: Pickands 1975; Siffer et al., Anomaly detection in streams with extreme value theory, 2017 (with a histogram in
place of their optimiser); Hill 1975.
"""

from __future__ import annotations

from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from math import inf, log, log2, log10
from struct import Struct
from typing import Any, Final

from sidecar.detect.keep import Document

LEVEL_RATIO: Final = 0.01
MEMORY: Final = 4000.0
WARMUP: Final = 144
PRIOR_PEAKS: Final = 40.0
PRIOR_OCTAVES: Final = 0.125
BINS: Final = 32
PER_OCTAVE: Final = 8
FIT_EVERY: Final = 8

_PER_STREAM: Final = ("anchors", "tops", "levels", "slopes")
_LN10: Final = log(10.0)
_AT_LEVEL: Final = -log10(LEVEL_RATIO)
_OFFSET: Final = 40 * PER_OCTAVE  # bin 0 lies at 2^-40; all places are counted from there
_LEAST: Final = 2.0**-40
_LOW: Final = 5  # where the level may lie in its bins …
_HIGH: Final = 16
_HOME: Final = 10  # … and where it is moved to
_LIGHTEST: Final = 3.0  # of one value, in the units of a bin
_HEAVIEST: Final = 6.0  # … of one value; then all are halved
_GROWTH: Final = 1.0 / (1.0 - 1.0 / MEMORY)
_FULL: Final = 255  # a bin: 42 values or more, above the 40 that lie above the level
_WIDER: Final = 64 / 3  # how many units of a bin of 16 bits were one of today's: older documents have them
_HEAD: Final = Struct("<Idd")  # seen, total, weight


class Tails:
    """
    The upper tails of *count* streams that are observed together.

    Attributes:
        seen: Values so far, of each stream.
    """

    __slots__ = (
        "_anchors",
        "_bins",
        "_count",
        "_levels",
        "_prior",
        "_slopes",
        "_tops",
        "_total",
        "_weight",
        "seen",
    )

    def __init__(self, count: int, *, prior_peaks: float = PRIOR_PEAKS) -> None:
        self._count = count
        self._prior = prior_peaks
        self._bins = bytearray(count * BINS)
        self._anchors = array("h", bytes(2 * count))  # the place of each stream's lowest bin
        self._tops = bytearray(count)  # the highest bin of each stream that holds anything
        self._levels = array("f", [inf] * count)  # u, as a place
        self._slopes = array("f", bytes(4 * count))  # rarity a place
        self._weight = _LIGHTEST
        self._total = 0.0
        self.seen = 0

    def __repr__(self) -> str:
        return f"<Tails of {self._count} after {self.seen}>"

    def observe(self, values: Sequence[float]) -> list[float]:
        """Return the rarity of each stream's next value, then learn it; none is negative."""
        bins, anchors, tops, weight = self._bins, self._anchors, self._tops, self._weight
        levels, slopes, added = self._levels, self._slopes, round(weight)
        rarities = []
        for k, value in enumerate(values):
            if (self.seen + k) % FIT_EVERY == 0:
                self._fit(k)
            place = PER_OCTAVE * log2(value) + _OFFSET if value > _LEAST else 0.0
            excess = place - levels[k]
            rarities.append(_AT_LEVEL + excess * slopes[k] if excess > 0 else 0.0)
            j = int(place) - anchors[k]
            if j > tops[k]:
                if j >= BINS and self.seen < WARMUP:  # where the stream lies is not known yet
                    self._move(k, j - _HOME)
                    j = _HOME
                tops[k] = j = min(j, BINS - 1)
            i = k * BINS + max(j, 0)
            bins[i] = min(bins[i] + added, _FULL)
        self._total += added
        self._weight = weight * _GROWTH
        self.seen += 1
        if self._weight > _HEAVIEST:
            self._lighten()
        return rarities if self.seen > WARMUP else [0.0] * self._count

    def _fit(self, k: int) -> None:
        """Find the level and the mean excess of stream *k* anew, and keep its bins around the level."""
        start = k * BINS
        most = LEVEL_RATIO * self._total
        above = moment = 0.0
        j = self._tops[k]
        while j > 0:
            held = self._bins[start + j]
            if above + held > most:
                break
            above += held
            moment += held * j
            j -= 1
        excess = moment - above * j  # both ends in the middle of their bins
        peaks = above / self._weight
        octaves = (excess / self._weight / PER_OCTAVE + self._prior * PRIOR_OCTAVES) / (peaks + self._prior)
        self._slopes[k] = 1.0 / (max(octaves, PRIOR_OCTAVES) * PER_OCTAVE * _LN10)
        self._levels[k] = self._anchors[k] + j + 0.5
        if (j < _LOW and self._anchors[k] > 0) or j > _HIGH:
            self._move(k, j - _HOME)

    def _move(self, k: int, by: int) -> None:
        """Let the bins of stream *k* begin *by* places higher, or lower; what is in the lowest one stays there."""
        by = max(by, -self._anchors[k])
        old = self._bins[k * BINS : (k + 1) * BINS]
        new = bytearray(BINS)
        for j, held in enumerate(old):
            i = min(max(j - by, 0), BINS - 1) if j else 0
            new[i] = min(new[i] + held, _FULL)
        self._bins[k * BINS : (k + 1) * BINS] = new
        self._anchors[k] += by
        self._tops[k] = min(max(self._tops[k] - by, 0), BINS - 1)

    def _lighten(self) -> None:
        bins, left = self._bins, 0
        for i, held in enumerate(bins):
            bins[i], left = divmod(held + (left if i % BINS else 0), 2)
        self._total /= 2
        self._weight /= 2

    def pack(self) -> bytes:
        """Return the memory as one record; its length depends on the number of streams alone."""
        head = _HEAD.pack(self.seen, self._total, self._weight)
        numbers = self._anchors.tobytes() + self._levels.tobytes() + self._slopes.tobytes()
        return head + numbers + self._tops + self._bins

    def unpack(self, record: bytes) -> None:
        """Put back what `pack` returned."""
        count, at = self._count, _HEAD.size
        self.seen, self._total, self._weight = _HEAD.unpack_from(record)
        self._anchors = array("h", record[at : at + 2 * count])
        self._levels = array("f", record[at + 2 * count : at + 6 * count])
        self._slopes = array("f", record[at + 6 * count : at + 10 * count])
        self._tops = bytearray(record[at + 10 * count : at + 11 * count])
        self._bins = bytearray(record[at + 11 * count :])

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        levels = [None if level == inf else level for level in self._levels]
        return {
            "seen": self.seen, "total": self._total, "weight": self._weight, "anchors": list(self._anchors),
            "tops": list(self._tops), "levels": levels, "slopes": list(self._slopes),
            "bins": b64encode(self._bins).decode(),
        }  # fmt: skip

    def restore(self, document: Mapping[str, Any]) -> None:
        """Put back what `snapshot` returned, of an older release too; a document of another shape is a ValueError."""
        bins, unit = bytearray(b64decode(document["bins"], validate=True)), 1.0
        if len(bins) == 2 * self._count * BINS:
            unit = _WIDER
            bins = bytearray(min(round(held / unit), _FULL) for held in array("H", bytes(bins)))
        anchors, tops = array("h", document["anchors"]), bytearray(document["tops"])
        if len(bins) != self._count * BINS or any(len(document[name]) != self._count for name in _PER_STREAM):
            raise ValueError(f"{len(bins)} bins for {self._count} streams")
        self._bins, self._anchors, self._tops = bins, anchors, tops
        self._slopes = array("f", document["slopes"])
        self._levels = array("f", [inf if level is None else level for level in document["levels"]])
        self._weight, self._total = document["weight"] / unit, float(document["total"]) / unit
        self.seen = int(document["seen"])
