"""
The sequential test behind most detectors: a mixture of five Bernoulli CUSUMs.

Theory
    Each request is good or bad. Normal is a bad ratio of p0; five alternatives p1 < … < p5 stand for "a little worse"
    up to "all is lost". For each one the log-likelihood ratio of what was seen is summed, never below zero:

        S_j ← max(0, S_j + [k·ln(p_j/p0) + (n−k)·ln((1−p_j)/(1−p0))] / φ)

    for n requests with k bad ones (Page 1954; Lorden 1971: no test with the same false-alarm rate is faster in the
    worst case). P(S_j ever passes h) ≤ e^−h a start, so the mean time between false alarms is at least e^h / 5
    requests for all five together: h = ln(γ) + ln(5) gives one in γ requests. The smallest sample is in the
    likelihood itself; no window, no "at least so many per cent".

    That bound counts every request as a start. A score leaves zero only at a bad request, and then stands at ln(p_j/p0):
    γ·p0 starts, each passing h with P ≤ (p_j/p0)·e^−h, make γ·p_j·e^−h false alarms. So h + ln(p_j) is enough for
    alternative j, which is 3 less at 4 % and nothing at 98 %. The two smallest alternatives keep the full h: where they are
    right, p0 is more likely to be a little wrong. On one scale: their scores grow h / (h + ln p_j) times as fast.

    φ ≥ 1 is over-dispersion (`baseline.py`): counts that vary φ times as much as independent requests would carry
    1/φ of the evidence (quasi-likelihood, Wedderburn 1974).

Tables
    p_j = sigmoid(logit(p0) + step): steps 0.9, 1.9, 3.2, 5, 10, at most 98 %. From p0 = 0.2 %: 0.5, 1.3, 4.7, 23 and 98 %.
    The last one makes three failures in a row enough where all fail; the four below cost at most a tenth of the best
    test's speed between them. An alternative that would not lie above p0, or lies below `least_ratio`, takes no part: its
    weights are zero and so is its score.

What can go wrong
    A score that grew all through an outage would need as long to fall again. So scores end at `cap`, and while an
    alarm stands `forget` lets them fade with the *requests* that were judged, not with time: silence proves nothing.
    One burst in one second could pass h by itself: `onset` returns the bad requests and the seconds that held them
    since the score left zero, and the detectors ask for at least three in two.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Any, Final, NamedTuple

from sidecar.detect.baseline import logit, sigmoid
from sidecar.detect.keep import Document
from sidecar.detect.policies import Sensitivity

STEPS: Final = (0.9, 1.9, 3.2, 5.0, 10.0)
CEILING: Final = 0.98
LEAST_BAD: Final = 3  # a hiccup is no incident: three bad requests …
LEAST_SECONDS: Final = 2  # … in two different seconds

OWN_LEVEL_FROM: Final = 2  # the third alternative

MONTH_S: Final = 30 * 86_400.0
FALSE_ALARMS: Final = {Sensitivity.LOW: 0.2, Sensitivity.NORMAL: 1.0, Sensitivity.HIGH: 5.0}  # a route and month


def threshold(rate_per_s: float, tests: int, sensitivity: Sensitivity) -> float:
    """
    Return h: the level that one of *tests* mixtures passes falsely as often as *sensitivity* allows.

    Args:
        rate_per_s: Requests a second that the test judges; 30 days of it are held within 1e4 and 1e9.
        tests: Mixtures that share the route's budget of false alarms.
        sensitivity: The budget.
    """
    requests = min(max(rate_per_s * MONTH_S, 1e4), 1e9)
    return log(requests) + log(len(STEPS)) + log(tests) - log(FALSE_ALARMS[sensitivity])


def _scale(step: int, ratio: float, level: float) -> float:
    """Return by how much the score of an alternative grows faster because its own level is lower than *level*."""
    if not level or step < OWN_LEVEL_FROM:
        return 1.0
    return level / max(level + log(ratio), level / 2)


class Mark(NamedTuple):
    """Running totals at a moment; the difference of two is what happened between."""

    at: float
    requests: float
    bad: float
    bad_seconds: float


class Mixture:
    """
    Some CUSUMs, five unless told otherwise, over one stream of (requests, bad).

    Attributes:
        top: The largest score.
        cap: Where scores end.
    """

    # One array, because seven mixtures share the 16 KiB of a route: for n alternatives it holds n scores, n weights of a
    # bad request, n of a good one, n marks of four numbers, and the running totals, which are a mark too. Where something
    # may be explained, n weights of it follow, and n sums of what was explained since the score left zero.
    __slots__ = ("_cells", "_size", "cap", "top")

    def __init__(self, at: float, size: int = len(STEPS), *, explains: bool = False) -> None:
        self.top = 0.0
        self.cap = 1e9
        self._size = size
        own = 2 * size if explains else 0
        self._cells = array("d", [0.0] * (3 * size) + [at, 0.0, 0.0, 0.0] * (size + 1) + [0.0] * own)

    def __repr__(self) -> str:
        return f"<Mixture {self.top:.1f} of {' '.join(f'{s:.1f}' for s in self._cells[: self._size])}>"

    def aim(
        self, normal_ratio: float, dispersion: float, cap: float, least_ratio: float = 0.0, level: float = 0.0
    ) -> None:
        """
        Set what is normal from now on; the scores stay.

        Args:
            normal_ratio: p0.
            dispersion: φ, by which the evidence is divided.
            cap: Where scores end.
            least_ratio: The smallest alternative that takes part.
            level: h, when alternatives shall have levels of their own; 0 gives all the same one.
        """
        base = logit(normal_ratio)
        ratios = [min(sigmoid(base + step), CEILING) for step in STEPS]
        parts = [ratio > normal_ratio and ratio >= least_ratio for ratio in ratios]
        scales = [_scale(j, ratio, level) / dispersion for j, ratio in enumerate(ratios)]
        rows = list(zip(ratios, parts, scales, strict=True))
        self.weigh(
            [log(ratio / normal_ratio) * scale if part else 0.0 for ratio, part, scale in rows],
            [log((1 - ratio) / (1 - normal_ratio)) * scale if part else 0.0 for ratio, part, scale in rows],
            cap,
            scales,
        )

    def weigh(self, bad: Sequence[float], good: Sequence[float], cap: float, explained: Sequence[float] = ()) -> None:
        """Set what one bad and one good request (and one nat explained) add to each score, for other families than Bernoulli."""
        n = self._size
        self._cells[n : 3 * n] = array("d", [*bad, *good])
        if len(self._cells) > 7 * n + 4:
            self._cells[7 * n + 4 : 8 * n + 4] = array("d", explained)
        self.cap = cap

    def add(self, requests: float, bad: float, at: float, explained: float = 0.0) -> None:
        """
        Take one second's counts.

        Args:
            requests: How many were judged.
            bad: How many of them were bad.
            at: The second's end.
            explained: Nats of the evidence that something harmless explains (`clumps.py`); negative ones give back what was
                explained since a score left zero, no more.
        """
        cells, n = self._cells, self._size
        now, explains, owing = 7 * n, 7 * n + 4, 8 * n + 4
        if not bad and not self.top:  # the common second: all is zero and stays so
            cells[now] = at
            cells[now + 1] += requests
            return
        before = cells[now : now + 4]
        cells[now] = at
        cells[now + 1] += requests
        cells[now + 2] += bad
        cells[now + 3] += bad > 0
        good, cap, top = requests - bad, self.cap, 0.0
        for j in range(n):
            was = cells[j]
            score = was + bad * cells[n + j] + good * cells[n + n + j]
            if explained:
                owed = max(explained * cells[explains + j], -cells[owing + j])
                cells[owing + j] += owed
                score -= owed
            if score <= 0.0:
                score = 0.0
            elif score > cap:
                score = cap
            if not was and score:
                mark = 3 * n + 4 * j
                cells[mark : mark + 4] = before
            if not score and len(cells) > owing:
                cells[owing + j] = 0.0
            top = max(top, score)
            cells[j] = score
        self.top = top

    def onset(self) -> tuple[float, Mark]:
        """
        Return when the leading score last left zero, and the totals since then.

        Source: it is the maximum-likelihood estimate of the change point (Page 1954).
        """
        n = self._size
        now = Mark(*self._cells[7 * n : 7 * n + 4])
        if not self.top:
            return now.at, Mark(now.at, 0.0, 0.0, 0.0)
        mark = 3 * n + 4 * self._cells.index(self.top, 0, n)
        at, requests, bad, bad_seconds = self._cells[mark : mark + 4]
        return at, Mark(now.at, now.requests - requests, now.bad - bad, now.bad_seconds - bad_seconds)

    def repeated(self) -> bool:
        """Tell whether enough bad requests in enough seconds stand behind the leading score."""
        _, since = self.onset()
        return since.bad >= LEAST_BAD and since.bad_seconds >= LEAST_SECONDS

    def forget(self, requests: float, horizon: float) -> None:
        """Let the scores fade by e for each *horizon* requests."""
        keep = exp(-requests / horizon)
        n = self._size
        for j in (*range(n), *range(8 * n + 4, len(self._cells))):
            self._cells[j] *= keep
        self.top = max(self._cells[: self._size])

    def reset(self) -> None:
        """Start anew from here."""
        n = self._size
        self._cells[:n] = array("d", bytes(8 * n))
        if len(self._cells) > 8 * n + 4:
            self._cells[8 * n + 4 :] = array("d", bytes(8 * n))
        self.top = 0.0

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        n = self._size
        cells = self._cells
        return {
            "cells": list(cells[: 7 * n]),
            "now": list(cells[7 * n : 7 * n + 4]),
            "owed": list(cells[8 * n + 4 :]),
            "cap": self.cap,
        }

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*; what `aim` or `weigh` sets is theirs."""
        n = self._size
        cells, now, owed = array("d", row["cells"]), array("d", row["now"]), array("d", row.get("owed", ()))
        if len(cells) != 7 * n:
            raise ValueError(f"a mixture of {n} has {7 * n} numbers, not {len(cells)}")
        if len(now) != 4:
            raise ValueError(f"the totals of a mixture are 4 numbers, not {len(now)}")
        for mark in range(3 * n, 7 * n, 4):
            cells[mark] += shift_s
        now[0] += shift_s
        self._cells[: 7 * n + 4] = cells + now
        if len(owed) == len(self._cells[8 * n + 4 :]):
            self._cells[8 * n + 4 :] = owed
        self.cap = row["cap"]
        self.top = max(cells[:n])
