"""
Failures come in clumps: how large they are on this route, and how much of a burst they explain.

Theory
    A restart, a retry loop, a slow query: real failures stand together. To a test that takes them for independent every
    larger clump is an incident. Dividing the score by φ (`baseline.Dispersion`) is right for counts that are large and
    nearly normal; where a minute holds less than one failure it is not: a clump of k has a probability of about
    ((φ − 1)/φ)^k, far more than e^(−score/φ). So the null hypothesis of `errors.py` is a process that clumps:

        for a time L the ratio is one draw of a beta variable of mean p0 and size c, then another one. After m requests
        with k failures in the open block the next request fails with probability π = (p0·c + k) / (c + m).

    Twice: L is a minute, and ten. The larger π of the two, and never less than p0, is what is expected next; it is a
    probability that was said before the fact, so likelihood ratios against it are honest (Dawid 1984, Ville 1939). `explained` is

        ln [P(counts | π) / P(counts | p0)]

    the part of the evidence against p0 that is owed to clumps; `cusum.py` subtracts it. With φ = 1, c is infinite and it is 0.

    c = requests in L / (φ − 1). φ is estimated over blocks of that length; every block adds its surprise
    (k − np)², and its k(1 − p), which independent failures would have as their surprise on average:

        φ − 1 = (Σ surprise − Σ k(1−p) + prior) / (Σ k(1−p) + 2)

    The information is in the failures, not in the hours: the sums fade over half a day, or over 50 failures, whichever
    is longer, at most over ten days.

Tables
    scale     L                          φ − 1 before anything was seen    corrected by
    fast      1 minute                   0.1, worth two failures            × 1.5: a clump as long as a block is cut by its edges,
                                                                           which hide a third of it
    slow      10 minutes                 0                                  less what the fast one explains of it
    With a short warm-up both are as much shorter as the quarantine's blocks (`baseline.py`), and the 0.1 is as much less.

What can go wrong
    A block begins at a failure. A clump that begins just before its block ends is seen as two, and then as more than it is.
    Clumps that never came in the fading time are news, and raise once. When traffic is lower than learnt, a clump is a
    larger part of it: c shrinks with the rate of the last ten minutes, and does not grow with it.

Source: Skellam 1948 (beta-binomial); the moment estimator is Pearson's, with k in the place of np.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import inf, lgamma, log
from typing import Any, Final

from sidecar.detect.keep import Document

PRIOR_EXCESS: Final = 0.1
PRIOR_FAILURES: Final = 2.0
SLOW_BLOCKS: Final = 10
EDGE_LOSS: Final = 1.5
FAST_GAIN: Final = 1 / 720  # of blocks of a minute: half a day
SLOW_GAIN: Final = 1 / 72
LONGEST: Final = 20.0  # ten days
MEMORY_FAILURES: Final = 50.0
MOST_SURPRISE: Final = 30.0  # of one block, in failures: one freak says little
MAX_EXCESS: Final = 63.0
MAX_DISPERSION: Final = 8.0
RATE_S: Final = 600.0


class Clumping:
    """
    How much the failures of one stream clump, as learnt.

    Attributes:
        fast, slow: φ − 1 of the two scales.
    """

    # Of each scale: requests, failures, surprise beyond chance, Σ k(1 − p); then the slow block that is not full yet:
    # requests, failures, blocks.
    __slots__ = ("_prior", "_sums", "fast", "slow")

    def __init__(self, scale: float = 1.0) -> None:
        """Begin; *scale* is the short block's length in minutes."""
        self._prior = PRIOR_FAILURES * PRIOR_EXCESS * scale
        self._sums = array("d", [0.0]) * 11
        self.fast = self.slow = 0.0
        self._weigh()

    def __repr__(self) -> str:
        return f"<Clumping {self.fast:.2f} {self.slow:.2f}>"

    @property
    def value(self) -> float:
        """Return φ, 1 to 8: how many times the variance of chance a block has."""
        return min(1.0 + self.fast + self.slow, MAX_DISPERSION)

    def add(self, requests: float, bad: float) -> None:
        """Take one short block; every tenth ends a long one."""
        sums = self._sums
        self._count(0, requests, bad, FAST_GAIN)
        sums[8] += requests
        sums[9] += bad
        sums[10] += 1
        if sums[10] >= SLOW_BLOCKS:
            self._count(4, sums[8], sums[9], SLOW_GAIN)
            sums[8] = sums[9] = sums[10] = 0.0
        self._weigh()

    def _count(self, base: int, requests: float, bad: float, gain: float) -> None:
        if not requests:
            return
        total, total_bad, excess, weight = self._sums[base : base + 4]
        expected = requests * (total_bad + 0.5) / (total + 1)
        fade = 1 - min(gain, max(expected / MEMORY_FAILURES, gain / LONGEST))
        total, total_bad = total * fade + requests, total_bad * fade + bad
        ratio = total_bad / total  # of all, this block included: without a failure nothing is surprising
        chance = bad * (1 - ratio)
        surprise = min((bad - requests * ratio) ** 2, MOST_SURPRISE * max(requests * ratio, 1.0))
        self._sums[base : base + 4] = array(
            "d", (total, total_bad, excess * fade + surprise - chance, weight * fade + chance)
        )

    def _weigh(self) -> None:
        _, _, fast, fast_weight, _, _, slow, slow_weight, *_ = self._sums
        seen = (self._prior + fast) / (PRIOR_FAILURES + fast_weight)
        self.fast = min(max(EDGE_LOSS * seen, 0.0), MAX_EXCESS)
        left = (slow - self.fast * slow_weight) / (PRIOR_FAILURES + slow_weight)
        self.slow = min(max(left, 0.0), MAX_EXCESS)

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {"clumps": list(self._sums)}

    def restore(self, row: Mapping[str, Any]) -> None:
        """Put a snapshot back; a document of another shape is a KeyError or a ValueError."""
        sums = array("d", row["clumps"])
        if len(sums) != len(self._sums):
            raise ValueError(f"{len(sums)} sums instead of {len(self._sums)}")
        self._sums = sums
        self._weigh()


class Clumps:
    """
    What clumps explain of the present.

    Attributes:
        recent_per_s: Requests a second of late, or nothing yet (-1).
    """

    # One array, of each scale: c, L, when its block began, and the block's requests and failures.
    __slots__ = ("_cells", "_normal_per_s", "_ratio", "recent_per_s")

    def __init__(self) -> None:
        self._ratio = 0.0
        self._normal_per_s = 0.0
        self._cells = array("d", (inf, 0.0, -inf, 0.0, 0.0) * 2)
        self.recent_per_s = -1.0

    def __repr__(self) -> str:
        return f"<Clumps of {self._cells[0]:.0f} and {self._cells[5]:.0f} requests>"

    def aim(self, ratio: float, clumping: Clumping, rate_per_s: float, block_s: float) -> None:
        """
        Set what is normal from now on.

        Args:
            ratio: p0.
            clumping: What was learnt; its scales are *block_s* and ten times as long.
            rate_per_s: Requests a second, as learnt; with 0 nothing is explained.
            block_s: Length of the short block.
        """
        self._ratio, self._normal_per_s = ratio, rate_per_s
        for base, length, excess in ((0, block_s, clumping.fast), (5, SLOW_BLOCKS * block_s, clumping.slow)):
            self._cells[base] = rate_per_s * length / excess if excess and rate_per_s else inf
            self._cells[base + 1] = length

    def explained(self, requests: float, bad: float, at: float, elapsed_s: float, *, asked: bool) -> float:
        """
        Take one second and return the nats of its evidence against p0 that are owed to clumps; not *asked*, 0.

        A negative number is a refund: after failures the good requests were less expected than under p0.
        """
        cells, scarce = self._cells, self._scarce(requests / elapsed_s, elapsed_s)
        most, leader, size = self._ratio, -1, inf
        for base in (0, 5):
            if at - cells[base + 2] > cells[base + 1]:
                if not bad:
                    continue
                cells[base + 2 : base + 5] = array("d", (at - elapsed_s, 0.0, 0.0))
            if asked and cells[base] < inf:
                held = cells[base] * scarce
                expected = (self._ratio * held + cells[base + 4] + bad) / (held + cells[base + 3] + requests)
                if expected > most:
                    most, leader, size = expected, base, held
        found = self._evidence(leader, size, requests, bad) if leader >= 0 else 0.0
        for base in (0, 5):
            if at - cells[base + 2] <= cells[base + 1]:
                cells[base + 3] += requests
                cells[base + 4] += bad
        return found

    def _scarce(self, rate_per_s: float, elapsed_s: float) -> float:
        """Take the present rate; return which part of the learnt one the recent one is, at most 1."""
        normal = self._normal_per_s
        if self.recent_per_s < 0:
            self.recent_per_s = normal
        self.recent_per_s += (rate_per_s - self.recent_per_s) * min(elapsed_s / RATE_S, 1.0)
        return min(max(self.recent_per_s / normal, 0.01), 1.0) if normal else 1.0

    def _evidence(self, base: int, size: float, requests: float, bad: float) -> float:
        """Return ln P(bad of requests | the open block of one scale) − ln P(the same | p0)."""
        ratio, (seen, failed) = self._ratio, self._cells[base + 3 : base + 5]
        worse, well, good = ratio * size + failed, (1 - ratio) * size + seen - failed, requests - bad
        return (
            (lgamma(worse + bad) - lgamma(worse) if bad else 0.0)
            + lgamma(well + good) - lgamma(well)
            - lgamma(size + seen + requests) + lgamma(size + seen)
            - bad * log(ratio) - good * log(1 - ratio)
        )  # fmt: skip

    def snapshot(self) -> Document:
        """Return the memory as a JSON object: what `aim` does not set. A block that was never open is None."""
        blocks = [list(self._cells[base + 2 : base + 5]) for base in (0, 5)]
        return {"recent_per_s": self.recent_per_s, "blocks": [None if row[0] == -inf else row for row in blocks]}

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        self.recent_per_s = row["recent_per_s"]
        for base, block in zip((0, 5), row["blocks"], strict=True):
            if block is not None:
                began_at, requests, bad = block
                self._cells[base + 2 : base + 5] = array("d", (began_at + shift_s, requests, bad))
