"""
What is normal: the bad ratio of a stream, how sure we are of it, and how much more it varies than chance.

Theory
    p̂ is the mean of Beta(0.5 + K, 99.5 + N − K) over K bad of N judged requests, both halved every 24 h. What is tested
    against is not p̂ but p0 = sigmoid(logit(p̂) + margin), at least 0.1 %: the margin is 0.4, or more while the sample
    is small: the distance from p̂ to the posterior's upper 95 % point (Wilson and Hilferty's cube root for the gamma
    quantile, exact to 2 % here). So a route that has shown 300 requests is tested, but not as if its ratio were known.

    φ is Pearson's dispersion, Σ(k − np)² / Σ np(1 − p), over blocks of 60 s and of 600 s, the larger of the two,
    clamped to [1, 8]. Its p is the blocks' own slow mean, so an error of p̂ does not pose as dispersion. The sums start
    with a prior of φ = 1 that is worth four blocks, and are halved every 2 h and every 6 h. It serves the levels of latency
    and the arrivals, whose counts are large; failures are rare and clump, their φ is that of `clumps.py`.

    The incident is never learnt. Counts wait in quarantine for 10 min and are dropped when an alarm begins. Nothing
    leaves the quarantine in `suspect`; nothing enters it in `alarm` and `recovering`. A grown
    baseline winsorises a block at 4 deviations and moves by at most 0.1 logit an hour; a young one must be free to
    correct its first guess.

Tables
    age of the baseline            counts go                                       drift limit
    < warm-up                      straight into it                                none
    young (< 50,000 and K < 100)   through a quarantine of min(10 min, age/2)      none
    grown                          through a quarantine of 10 min                  0.1 logit/h

    With `detect.warmup` below 60 s the needed counts, the quarantine and its blocks shrink in the same proportion.

What can go wrong
    An API that is broken while it warms up is learnt as broken, except that half of all requests failing raises even
    then (`errors.py`) and throws the warm-up away. A slow rise below every test's reach is learnt at 0.1 logit an hour:
    a factor of 11 in a day; the budget path is there for it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from math import exp, log, sqrt
from typing import Any, ClassVar, Final, NamedTuple

from sidecar.detect.clumps import Clumping
from sidecar.detect.keep import Document, Names, keep, revive
from sidecar.detect.window import span, zeros

PRIOR_BAD: Final = 0.5
PRIOR_REQUESTS: Final = 100.0
FLOOR_RATIO: Final = 0.001
MARGIN: Final = 0.4
QUARANTINE_S: Final = 600.0
BLOCKS: Final = 10  # a quarantine's length in blocks
HALF_LIFE_S: Final = 86_400.0
DRIFT_PER_H: Final = 0.1
DEVIATIONS: Final = 4.0
GROWN_REQUESTS, GROWN_BAD = 50_000.0, 100.0
MAX_DISPERSION: Final = 8.0
_Z95: Final = 1.645
_EDGE: Final = 1e-6
_MOST_WHOLE: Final = 65_535


def logit(ratio: float) -> float:
    """Return the log-odds of *ratio*, which is held one in a million away from 0 and 1."""
    held = min(max(ratio, _EDGE), 1 - _EDGE)
    return log(held / (1 - held))


def sigmoid(x: float) -> float:
    """Return the ratio whose log-odds are *x*."""
    return 1 / (1 + exp(-x)) if x > -700 else 0.0


def margin(bad: float, ratio: float, least: float = MARGIN) -> float:
    """
    Return how far above *ratio*, in logits, normal may reach when it rests on *bad* bad requests: *least* at least.

    Source: Wilson and Hilferty 1931, upper 95 % point of a gamma variable of shape *bad*.
    """
    shape = max(bad, PRIOR_BAD)
    upper = (1 - 1 / (9 * shape) + _Z95 / (3 * sqrt(shape))) ** 3
    return max(least, log(upper) / sqrt(1 - min(ratio, 0.99)))


class Dispersion:
    """
    φ of one stream of blocks.

    Attributes:
        value: Ready to divide by, 1 to 8.
    """

    # One array for both lengths: requests, bad, Σ(k − np)², Σ np(1 − p) and blocks of each, then requests, bad and short
    # blocks of the long block that is not full yet.
    __slots__ = ("_sums", "value")
    SHORT_FADE: ClassVar = 0.5 ** (1 / 120)
    LONG_FADE: ClassVar = 0.5 ** (1 / 36)

    def __init__(self) -> None:
        self._sums = array("d", [0.0]) * 13
        self.value = 1.0

    def __repr__(self) -> str:
        return f"<Dispersion {self.value:.2f}>"

    def add(self, requests: float, bad: float) -> None:
        """Take one short block; every tenth ends a long one."""
        sums = self._sums
        self._count(0, requests, bad, self.SHORT_FADE)
        sums[10] += requests
        sums[11] += bad
        sums[12] += 1
        if sums[12] >= BLOCKS:
            self._count(5, sums[10], sums[11], self.LONG_FADE)
            sums[10] = sums[11] = sums[12] = 0.0
        self.value = min(max(_pearson(sums[:5]), _pearson(sums[5:10]), 1.0), MAX_DISPERSION)

    def _count(self, base: int, requests: float, bad: float, fade: float) -> None:
        """Add one block to the sums of its length, which begin at *base*."""
        if not requests:
            return
        total, total_bad, square, variance, blocks = self._sums[base : base + 5]
        total, total_bad = total * fade + requests, total_bad * fade + bad
        ratio = (total_bad + 0.5) / (total + 1)
        expected = requests * ratio * (1 - ratio)
        surprise = min((bad - requests * ratio) ** 2, 30 * max(expected, 1.0))  # one freak block says little
        self._sums[base : base + 5] = array(
            "d", (total, total_bad, square * fade + surprise, variance * fade + expected, blocks * fade + 1)
        )

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {"sums": list(self._sums), "value": self.value}

    def restore(self, row: Mapping[str, Any]) -> None:
        """Put a snapshot back."""
        self._sums, self.value = array("d", row["sums"]), row["value"]


def _pearson(sums: array[float]) -> float:
    """Return φ of one length, shrunk towards 1 by a prior of four blocks."""
    _, _, square, variance, blocks = sums
    prior = max(3.0, 4 * variance / blocks) if blocks else 1.0
    return (square + prior) / (variance + prior)


class Block(NamedTuple):
    """Counts of some seconds that waited: when the last of them ended, how many they were, and the sums by index."""

    end_at: float
    seconds: float
    sums: array[float]


class Quarantine:
    """
    Counts that may yet turn out to belong to an incident.

    `collect` adds to the open block, `release` returns the blocks whose time is over, oldest first, `drop` forgets all.
    """

    # Two flat arrays for all blocks, the open one last. Sums are in single precision, exact to 16 million. When told
    # that they are `whole`, in 16 bits until one does not fit, and a block has only the cells from the lowest index to
    # the highest that was collected (`window.py`): a histogram in quarantine is the largest thing of a route.
    __slots__ = ("_blocks", "_low", "_size", "_sums", "_times", "_whole", "_width", "length_s")

    def __init__(self, width: int, scale: float, blocks: int = BLOCKS, *, whole: bool = False) -> None:
        self._size, self._blocks, self._whole = width, blocks, whole
        self._low = self._width = 0
        self._times, self._sums = zeros("d", 0), zeros("f", 0)
        self.drop()
        self.resize(scale)

    def resize(self, scale: float) -> None:
        """Wait *scale* times the full length from now on."""
        self.length_s = QUARANTINE_S if scale == 1.0 else QUARANTINE_S * scale  # one number for all is less memory

    @property
    def block_s(self) -> float:
        """Return the length of one block."""
        return self.length_s / self._blocks

    def collect(self, counts: Iterable[tuple[int, float]], at: float, elapsed_s: float) -> None:
        """Add one second's (index, count) pairs to the open block, and close it when it is long enough."""
        times, sums = self._times, self._sums
        times[-2] = at
        times[-1] += elapsed_s
        base = len(sums) - self._width - self._low
        for i, count in counts:
            if not 0 <= i - self._low < self._width:
                sums = self._widen(i)
                base = len(sums) - self._width - self._low
            try:
                sums[base + i] += count
            except OverflowError:
                self._sums = sums = array("f", sums)
                sums[base + i] += count
        if times[-1] >= self.block_s:  # sums of two arrays are no larger than they must be; an extended one is
            self._times = times + zeros("d", 2)
            self._sums = sums + zeros(sums.typecode, self._width)

    def _widen(self, index: int) -> array[float]:
        """Make room for *index* in every block and return the sums."""
        was, width = self._sums, self._width
        low, high = span(self._low, width, index)
        sums, shift = zeros(was.typecode, (high - low) * (len(self._times) // 2)), self._low - low if width else 0
        for block in range(len(self._times) // 2):
            start = block * (high - low) + shift
            sums[start : start + width] = was[block * width : (block + 1) * width]
        self._sums, self._low, self._width = sums, low, high - low
        return sums

    def _dense(self, block: int) -> array[float]:
        """Return all sums of one block."""
        sums = zeros("f", self._size)
        sums[self._low : self._low + self._width] = array(
            "f", self._sums[block * self._width : (block + 1) * self._width]
        )
        return sums

    def release(self, at: float, learnt_since: float) -> list[Block]:
        """Return the blocks that waited long enough: the full length, or half the baseline's age while it is young."""
        free = []
        while len(self._times) > 2:
            end_at, seconds = self._times[:2]
            if at - end_at < min(self.length_s, (end_at - learnt_since) / 2):
                break
            free.append(Block(end_at, seconds, self._dense(0)))
            self._times, self._sums = self._times[2:], self._sums[self._width :]
        return free

    def drop(self) -> None:
        """Forget everything that waits."""
        self._times = zeros("d", 2)
        self._low, self._width = 0, 0 if self._whole else self._size
        self._sums = zeros("H" if self._whole else "f", self._width)

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        blocks = range(len(self._times) // 2)
        return {"times": list(self._times), "sums": [count for i in blocks for count in self._dense(i)]}

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        self._times, size = array("d", row["times"]), self._size
        self._low, self._width = 0, size
        if self._whole:
            used = [i % size for i, count in enumerate(row["sums"]) if count]
            self._low, self._width = (min(used), max(used) + 1 - min(used)) if used else (0, 0)
        blocks = [row["sums"][i + self._low : i + self._low + self._width] for i in range(0, len(row["sums"]), size)]
        fits = self._whole and max(row["sums"], default=0) <= _MOST_WHOLE
        self._sums = array("H" if fits else "f", [int(count) if fits else count for block in blocks for count in block])
        for i in range(0, len(self._times), 2):
            self._times[i] += shift_s


class RatioBaseline:
    """
    The normal bad ratio of one stream.

    Attributes:
        requests, bad, seconds: What was learnt, faded.
        dispersion: How the bad ones clump.
        held: logit(p̂) as it is used; moves by the drift limit once grown.
        warm_at: When the warm-up ended; None while it lasts.
    """

    __slots__ = ("_need", "_quarantine", "_warmup_s", "bad", "dispersion", "held", "requests", "seconds", "warm_at")
    KEPT: ClassVar[Names] = ("requests", "bad", "seconds", "held")
    TIMES: ClassVar[Names] = ("warm_at",)

    def __init__(self, need_requests: float, warmup_s: float) -> None:
        scale = warmup_scale(warmup_s)
        self._need = need_requests * scale
        self._warmup_s = warmup_s
        self._quarantine = Quarantine(2, scale)
        self.dispersion = Clumping(scale)
        self.warm_at: float | None = None
        self.requests = self.bad = self.seconds = 0.0
        self.held = logit(PRIOR_BAD / PRIOR_REQUESTS)

    def __repr__(self) -> str:
        return f"<RatioBaseline {self.ratio:.4%} of {self.requests:.0f} {self.dispersion!r}>"

    @property
    def ratio(self) -> float:
        """Return p̂."""
        return sigmoid(self.held)

    @property
    def tested_ratio(self) -> float:
        """Return p0: what a test takes as normal."""
        ratio = self.ratio
        return max(sigmoid(self.held + margin(PRIOR_BAD + self.bad, ratio)), FLOOR_RATIO)

    @property
    def young(self) -> bool:
        """Tell whether too little was learnt for p̂ to be more than a first guess."""
        return self.bad < GROWN_BAD and self.requests < GROWN_REQUESTS

    @property
    def rate_per_s(self) -> float:
        """Return the judged requests a second, as learnt."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def block_s(self) -> float:
        """Return the seconds of one block, over which clumping is learnt."""
        return self._quarantine.block_s

    @property
    def cold(self) -> str:
        """Say what the warm-up still lacks; empty once it is over."""
        if self.warm_at is not None:
            return ""
        if self.requests < self._need:
            return f"baseline cold, {self.requests:.0f} of {self._need:.0f} requests"
        return f"baseline cold, {self.seconds:.0f} of {self._warmup_s:.0f} s"

    def collect(self, requests: float, bad: float, at: float, elapsed_s: float) -> bool:
        """Take one second that is not known to be abnormal; return whether the baseline changed."""
        if self.warm_at is not None:
            self._quarantine.collect(((0, requests), (1, bad)), at, elapsed_s)
            return False
        self.requests += requests
        self.bad += bad
        self.seconds += elapsed_s
        self.held = self._target()
        if self.requests >= self._need and self.seconds >= self._warmup_s:
            self.warm_at = at
            return True
        return False

    def mature(self, at: float) -> bool:
        """Learn what has waited long enough; return whether the baseline changed."""
        if self.warm_at is None:
            return False
        free = self._quarantine.release(at, self.warm_at - self._warmup_s)
        for _, seconds, (requests, bad) in free:
            self._absorb(requests, bad, seconds)
        return bool(free)

    def _absorb(self, requests: float, bad: float, seconds: float) -> None:
        self.dispersion.add(requests, bad)
        grown, ratio = not self.young, self.ratio
        spread = DEVIATIONS * sqrt(requests * ratio * (1 - ratio) * self.dispersion.value) if grown else requests
        held_bad = min(max(bad, requests * ratio - spread), requests * ratio + spread)
        fade = 0.5 ** (seconds / HALF_LIFE_S)
        self.requests = self.requests * fade + requests
        self.bad = self.bad * fade + held_bad
        self.seconds = self.seconds * fade + seconds
        step = self._target() - self.held
        limit = DRIFT_PER_H * seconds / 3600 if grown else abs(step)
        self.held += min(max(step, -limit), limit)

    def _target(self) -> float:
        return logit((PRIOR_BAD + self.bad) / (PRIOR_REQUESTS + self.requests))

    def drop(self) -> None:
        """Forget what waits; a baseline that is still cold starts anew."""
        self._quarantine.drop()
        if self.warm_at is None:
            self.requests = self.bad = self.seconds = 0.0
            self.held = self._target()

    def accept(self, requests: float, bad: float, at: float) -> None:
        """Take *bad* of *requests* as normal from now on; a person, or 24 h, said so."""
        self._quarantine.drop()
        rate_per_s = self.rate_per_s
        ratio = (bad + 0.5) / (requests + 1)
        self.requests = max(requests, self._need)
        self.bad = max(ratio * (PRIOR_REQUESTS + self.requests) - PRIOR_BAD, 0.0)
        self.seconds = self.requests / rate_per_s if rate_per_s else max(self._warmup_s, 1.0)
        self.held = self._target()
        self.warm_at = at

    def apply(self, need_requests: float, warmup_s: float) -> None:
        """Take a new warm-up; a baseline that is warm stays so, what waits goes on waiting."""
        scale = warmup_scale(warmup_s)
        self._need = need_requests * scale
        self._warmup_s = warmup_s
        self._quarantine.resize(scale)

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {**keep(self), "quarantine": self._quarantine.snapshot(), "dispersion": self.dispersion.snapshot()}

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        revive(self, row, shift_s)
        self._quarantine.restore(row["quarantine"], shift_s)
        self.dispersion.restore(row["dispersion"])


def warmup_scale(warmup_s: float) -> float:
    """Return by how much a short warm-up shrinks counts and quarantine: 1 from 60 s on, 0.01 at least."""
    return min(1.0, max(warmup_s / 60.0, 0.01))
