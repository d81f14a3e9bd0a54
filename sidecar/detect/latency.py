"""
The latency detector: is this route slower than it used to be, for many or for a few?

Theory
    The test of `errors.py` on other counts: requests above q50, q95 and q99 of a frozen baseline, a mixture of five
    CUSUMs each, with levels of their own. A shift of all shows at q50, a slow tenth at q95, a stuck hundredth at q99. The three share the
    detector's part of the budget of false alarms (ln 3 on top of h).

    A request that waits for its first byte counts as slow as soon as its age passes q99: a hang is seen after q99 and
    a second, not after its timeout. Each request counts once. The gauge `waiting` shows at every second all that wait:
      · age in (q99, q99 + Δ], Δ since the last second: it passed q99 just now: counted, as one request and slow;
      · older: it was counted before;
      · W before − those still there = leavers. They will appear in `latency`, now or (a long body) a little later, with
        more than q99: so many of the ends above q99 are not counted again. This credit fades by half a second, since
        those who gave up (client gone) never appear.
    A bucket that the edge q99 + Δ cuts is split in proportion.

    Being certain is not being worth a word. A shared machine adds milliseconds to everything, now and then, and the test
    is certain of them. So a claim asks for an effect on p95, and for one that the calm route itself has not shown:
    `Jitter` (`quantiles.py`) keeps the largest excess that p95 had while all was well.

Tables
    claim                 p95 now (ended in the last 10 s, faded, and those that wait beyond q99) against p95 of the baseline
    is raised             from an excess of 0.3 times normal or 1.5 times the jitter on, the larger one, or of 50 ms;
                          of 10 ms at least. While the baseline is young: 1 time normal, and 25 ms at least
    fades                 below 0.8 of that
    is material           score ≥ h + 3, ≥ 2 times and ≥ +50 ms, at least `min_requests`
    is severe             never: slowness alone needs a second witness (a hang has its own: `inflight.py`)

    A shift too small to raise is learnt, at the drift limit.

What can go wrong
    A jitter that was never seen raises once, when it is larger than a scheduler's turn (25 ms); then it is known.
    Buckets are 12 % wide: p95 is interpolated within its bucket, and the test needs three bad requests in two seconds.
    Clients with few connections that all hang at once send no more: three that still wait a second later are enough.
    A route that streams has no long first byte and is not slow. On a route with huge latencies 50 ms are nothing, but
    then the test itself asks for the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any, ClassVar, Final

from sidecar.detect.alarm import TRIGGER_SUSPECT, Alarm, State
from sidecar.detect.cusum import LEAST_BAD, Mixture, threshold
from sidecar.detect.errors import CLEAR_EFFECT, LEAST_HORIZON, MATERIAL_SCORE, REBASELINE_S, TESTS, cap
from sidecar.detect.keep import Document, Names, keep, revive
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.quantiles import QUANTILES, Fading, Jitter, LatencyBaseline
from sidecar.detect.series import RECENT_S, Recent
from sidecar.detect.window import quantile_s
from sidecar.facts import Detector, RouteSecond, Scope, Signal
from sidecar.measure.histogram import LOWER_S, UPPER_S

NEED_REQUESTS: Final = 1000
RAISE_RATIO, RAISE_S = 0.3, 0.05  # beyond normal: a part of it, or so many seconds
JITTER_FACTOR: Final = 1.5  # of what a calm route has shown: the next extreme is a little larger than the last one
LEAST_S: Final = 0.01  # less is nobody's incident
YOUNG_RAISE_RATIO: Final = 1.0
YOUNG_LEAST_S: Final = 0.025  # Linux's scheduling period with eight runnable threads: the jitter of a busy machine
MATERIAL_RATIO, MATERIAL_S = 2.0, 0.05
HORIZON_S: Final = 10.0
HORIZON_REQUESTS: Final = 20.0


class Waiters:
    """Counts each request that passed *bound* once, although it shows up in several seconds."""

    __slots__ = ("beyond", "credit", "stay")
    KEPT: ClassVar[Names] = ("beyond", "credit")
    TIMES: ClassVar[Names] = ()

    def __init__(self) -> None:
        self.beyond = 0.0  # waited beyond the bound at the last second
        self.credit = 0.0  # of those, left since, and not seen to end yet
        self.stay = 0.0  # waited beyond the bound at the last second, and at the one before

    def take(self, waiting: Mapping[int, int], ended: float, bound: int, elapsed_s: float) -> tuple[float, float]:
        """
        Take one second.

        Args:
            waiting: Ages of the requests without a first byte, by bucket.
            ended: Requests that ended in this second above the bound.
            bound: Bucket of q99.
            elapsed_s: Seconds since the last call.

        Returns:
            How many passed the bound just now and still wait, and how many of *ended* were counted before.
        """
        self.stay = 0.0
        if not waiting and not self.beyond and not self.credit:
            return 0.0, 0.0
        edge_s = UPPER_S[bound] + elapsed_s
        beyond = passed = 0.0
        for i, count in waiting.items():
            if i > bound:
                beyond += count
                passed += count * _part_below(i, edge_s)
        self.stay = beyond - passed
        leavers = max(self.beyond - self.stay, 0.0)
        credit = self.credit * 0.5**elapsed_s + leavers
        before = min(ended, credit)
        self.beyond, self.credit = beyond, (credit - before if credit - before > 1e-3 else 0.0)
        return passed, before


def _part_below(bucket: int, edge_s: float) -> float:
    low, high = LOWER_S[bucket], UPPER_S[bucket]
    if high <= edge_s:
        return 1.0
    return (edge_s - low) / (high - low) if low < edge_s else 0.0


class LatencyDetector:
    """
    Latency of one route, or of the pool of quiet routes.

    Attributes:
        baseline: What is normal.
        alarm: Where it stands.
        threshold: h, of each of the three mixtures.
        rebaselined: Set when the last alarm ended by age; the reader clears it.
    """

    __slots__ = (
        "_at", "_horizon", "_jitter", "_mixtures", "_policy", "_present", "_recent", "_waiters", "_waiting", "alarm",
        "baseline", "rebaselined", "threshold",
    )  # fmt: skip
    KEPT: ClassVar[Names] = ("_horizon",)
    TIMES: ClassVar[Names] = ("_at",)

    def __init__(self, policy: DetectPolicy, at: float) -> None:
        self._policy = policy
        self._at = at
        self._mixtures = tuple(Mixture(at) for _ in QUANTILES)
        self._present = Fading()
        self._recent = Recent()
        self._waiters = Waiters()
        self._jitter = Jitter()
        self._waiting: Mapping[int, int] = {}
        self._horizon = LEAST_HORIZON
        self.baseline = LatencyBaseline(NEED_REQUESTS, policy.warmup_s)
        self.alarm = Alarm()
        self.rebaselined = False
        self.threshold = 0.0
        self._aim()

    def __repr__(self) -> str:
        return f"<LatencyDetector {self.state} {self.score:.1f}/{self.threshold:.1f} {self.baseline!r}>"

    @property
    def state(self) -> State:
        """Return where it stands; `learning` while the baseline is cold."""
        return State.LEARNING if self.baseline.warm_at is None else self.alarm.state

    @property
    def score(self) -> float:
        """Return the largest of the three statistics."""
        return max(mixture.top for mixture in self._mixtures)

    @property
    def onset_at(self) -> float | None:
        """Return when the largest statistic last left zero; None while all are zero."""
        leader = self._leader()
        return leader.onset()[0] if leader.top else None

    def _leader(self) -> Mixture:
        return max(self._mixtures, key=lambda mixture: mixture.top)

    def observe(self, second: RouteSecond, elapsed_s: float, *, frozen: bool = False) -> None:
        """
        Take one second.

        Args:
            second: What happened; its latency histogram and its waiting requests are read.
            elapsed_s: Seconds since the one before, as far as they were observed.
            frozen: Learn nothing from it.
        """
        self._at, self._waiting = second.at, second.waiting
        latency, baseline = second.latency, self.baseline
        self._present.add(latency, elapsed_s, self._horizon_s())
        if baseline.warm_at is None:
            if not frozen and baseline.collect(latency, second.at, elapsed_s):
                self._aim()
            return
        requests, above = self._count(latency, elapsed_s)
        self._test(requests, above)
        if self.alarm.stands or frozen:
            return
        baseline.collect(latency, second.at, elapsed_s)
        calm = self.alarm.state is State.NORMAL
        if calm and self._jitter.due(elapsed_s):
            self._jitter.add(self._excess_s())
        if (calm and baseline.vary(requests, above, elapsed_s)) | (calm and baseline.mature(second.at)):
            self._aim()

    def _horizon_s(self) -> float:
        rate_per_s = self.baseline.rate_per_s
        return max(HORIZON_S, min(HORIZON_REQUESTS / rate_per_s, 600.0)) if rate_per_s else HORIZON_S

    def _count(self, latency: Mapping[int, int], elapsed_s: float) -> tuple[float, tuple[float, float, float]]:
        """Return (requests, those above q50, q95, q99) of one second, each request once in its life."""
        low, middle, high = self.baseline.bounds
        total = over_low = over_middle = over_high = 0
        for i, count in latency.items():
            total += count
            if i > low:
                over_low += count
            if i > middle:
                over_middle += count
            if i > high:
                over_high += count
        passed, before = self._waiters.take(self._waiting, over_high, high, elapsed_s)
        fresh = passed - before
        return total + fresh, (over_low + fresh, over_middle + fresh, over_high + fresh)

    def _test(self, requests: float, above: tuple[float, float, float]) -> None:
        at, alarm = self._at, self.alarm
        self._recent.add(requests, above[2], at)
        for mixture, bad in zip(self._mixtures, above, strict=True):
            mixture.add(requests, bad, at)
            if alarm.stands and requests:
                mixture.forget(requests, self._horizon)
        score = self.score
        if alarm.state is State.NORMAL and score < TRIGGER_SUSPECT * self.threshold:
            return
        stood = alarm.stands
        if stood:
            qualifies = self._excess_s() >= CLEAR_EFFECT * self._least_s()
        else:
            qualifies = (
                self._leader().repeated() or self._waiters.stay >= LEAST_BAD
            ) and self._excess_s() >= self._least_s()
        turned = alarm.step(
            score, self.threshold, at, self._policy.clear_after_s, qualifies=qualifies, judged=requests > 0
        )
        if turned and stood:
            self._reset()
        elif turned:
            self._began()
        elif stood and alarm.fired_at is not None and at - alarm.fired_at >= REBASELINE_S:
            self.accept()
            self.rebaselined = True

    def _began(self) -> None:
        onset_at, since = self._leader().onset()
        self.alarm.since_at = onset_at
        self._horizon = max(LEAST_HORIZON, 2 * since.requests)
        self.baseline.drop()
        self._jitter.drop()

    def _reset(self) -> None:
        for mixture in self._mixtures:
            mixture.reset()

    def p95_s(self) -> float:
        """Return the present p95, those included that wait beyond q99."""
        return quantile_s(self._present.with_waiting(self._waiting, self.baseline.bounds[2]), 0.95)

    def _excess_s(self) -> float:
        return self.p95_s() - self.baseline.p95_s

    def _least_s(self) -> float:
        """Return the excess from which a claim is worth a word."""
        young = self.baseline.young
        ratio, least_s = (YOUNG_RAISE_RATIO, YOUNG_LEAST_S) if young else (RAISE_RATIO, LEAST_S)
        return max(min(max(ratio * self.baseline.p95_s, JITTER_FACTOR * self._jitter.excess_s), RAISE_S), least_s)

    def accept(self) -> None:
        """Take the present as normal: a person's verdict `benign`, or 24 h."""
        self.baseline.accept(self._present.with_waiting({}, 0), self._at)
        self._reset()
        self.alarm.close()
        self._aim()

    def drop(self) -> None:
        """Forget what waits to be learnt: another detector found these seconds abnormal."""
        self.baseline.drop()
        self._jitter.drop()

    def apply(self, policy: DetectPolicy) -> None:
        """Judge by *policy* from now on; what was learnt stays."""
        self._policy = policy
        self.baseline.apply(NEED_REQUESTS, policy.warmup_s)
        self._aim()

    def _aim(self) -> None:
        baseline = self.baseline
        self.threshold = threshold(baseline.rate_per_s, TESTS, self._policy.sensitivity) + log(len(QUANTILES))
        self.threshold += self._policy.offsets.get(Detector.LATENCY, 0.0)
        ratios, most = baseline.tested_ratios(), cap(self.threshold)  # one number for all is less memory
        for mixture, ratio, dispersion in zip(self._mixtures, ratios, baseline.dispersions, strict=True):
            mixture.aim(ratio, dispersion.value, most, level=self.threshold)

    def signal(self, scope: Scope) -> Signal | None:
        """Return the claim while the alarm stands."""
        alarm = self.alarm
        if not alarm.stands or alarm.since_at is None:
            return None
        p95, normal = self.p95_s(), self.baseline.p95_s
        requests, _ = self._recent.since(max(alarm.since_at, self._at - RECENT_S))
        leader = self._leader()
        _, since = leader.onset()
        usual = (1.0 - QUANTILES[self._mixtures.index(leader)]) * since.requests  # above its quantile
        sample = requests if requests >= self._policy.min_requests else max(requests, since.requests)
        large = p95 >= MATERIAL_RATIO * normal and p95 >= normal + MATERIAL_S
        enough = sample >= self._policy.min_requests
        return Signal(
            Detector.LATENCY,
            scope,
            value=p95,
            baseline=normal,
            sample=round(sample),
            score=self.score,
            threshold=self.threshold,
            since_at=alarm.since_at,
            unit="s",
            material=large and enough and self.score >= self.threshold + MATERIAL_SCORE,
            fading=alarm.fading,
            excess=max(since.bad - usual, 0.0),
            ongoing=self._waiters.stay > 0.0 and not alarm.fading,
        )

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {
            **keep(self),
            "mixtures": [mixture.snapshot() for mixture in self._mixtures],
            "present": self._present.snapshot(),
            "recent": self._recent.snapshot(),
            "waiters": keep(self._waiters),
            "waiting": sorted(self._waiting.items()),
            "jitter": keep(self._jitter),
            "baseline": self.baseline.snapshot(),
            "alarm": keep(self.alarm),
        }

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        revive(self, row, shift_s)
        for mixture, document in zip(self._mixtures, row["mixtures"], strict=True):
            mixture.restore(document, shift_s)
        self._present.restore(row["present"])
        self._recent.restore(row["recent"], shift_s)
        revive(self._waiters, row["waiters"], 0.0)
        self._waiting = dict(row["waiting"])
        revive(self._jitter, row.get("jitter", {}), 0.0)
        self.baseline.restore(row["baseline"], shift_s)
        revive(self.alarm, row["alarm"], shift_s)
        self.alarm.state = State(self.alarm.state)
        self._aim()
