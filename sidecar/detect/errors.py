"""
The error detector: is this route failing more than it used to?

Theory
    One mixture of five CUSUMs (`cusum.py`) over (judged, failed) requests, against a learnt ratio (`baseline.py`) and against
    how failures of this route clump (`clumps.py`): what a clump explains is no evidence. Once the alarm stands the question
    is whether all is normal again, and p0 alone answers it. Own
    refusals, 4xx and drills are not judged and never come here. h = ln γ + ln 5 + ln(tests), γ the requests of 30 days,
    so one false alarm a route and month at `sensitivity: normal`, whatever its traffic. At 10/s and p̂ = 0.1 % that
    means about 140 requests at 5 % failures, 27 at 20 %, 4 when all fail.

Tables
    baseline        tested against                     alternatives
    cold            Beta(0.5, 99.5)                    only that of 98 %: about half of all must fail
    young           p0 of the baseline                 all five; the claim asks for at least 3 % and twice p̂ since the
                                                       onset, and stands while the last 30 s show 0.8 of that
    grown           p0 of the baseline                 all five

    effect          measured over                      means
    value           the last 30 s, from the onset on   what a person reads; with fewer than `min_requests` in it: all since onset
    material        the same                           score ≥ h + 3, ratio ≥ max(5 %, 10·p̂), at least `min_requests`
    severe          the same                           ≥ 50 % failed of at least `min_requests` (20 at least)

What can go wrong
    The score is about the past: it fades with judged requests (`Mixture.forget`), over twice as many as the alarm
    needed, 50 at least, so an alarm that took 4 requests closes after some 100 good ones and one that took 500 after some 2,000. Behind
    an isolation or an open breaker only the trial traffic counts, and with none at all nothing is proven either way.
    An alarm that stood for 24 h becomes normal by itself only if its ratio is within the SLO.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from sidecar.detect.alarm import Alarm, State
from sidecar.detect.baseline import MARGIN, PRIOR_BAD, PRIOR_REQUESTS, RatioBaseline, logit, sigmoid
from sidecar.detect.clumps import Clumps
from sidecar.detect.cusum import Mixture, threshold
from sidecar.detect.keep import Document, Names, keep, revive
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.series import RECENT_S, Recent
from sidecar.facts import Detector, Scope, Signal

NEED_REQUESTS: Final = 300
TESTS: Final = 2  # errors and latency may act; they share the route's budget of false alarms
COLD_LEAST_RATIO: Final = 0.6  # leaves the alternative of 98 %, whose score grows from 44 % failures on
MATERIAL_SCORE: Final = 3.0  # above h
MATERIAL_RATIO: Final = 0.05
MATERIAL_FACTOR: Final = 10.0
SEVERE_RATIO: Final = 0.5
SEVERE_REQUESTS: Final = 20
LEAST_HORIZON: Final = 50.0  # requests over which an alarm's score fades, at least
YOUNG_RATIO, YOUNG_FACTOR = 0.03, 2.0
CLEAR_EFFECT: Final = 0.8  # an alarm whose effect fell below this part of what it takes to raise one fades
REBASELINE_S: Final = 86_400.0
PRIOR_TESTED_RATIO: Final = sigmoid(logit(PRIOR_BAD / PRIOR_REQUESTS) + MARGIN)


def material_ratio(normal_ratio: float) -> float:
    """Return the failure ratio from which automation may act where *normal_ratio* is normal."""
    return max(MATERIAL_RATIO, MATERIAL_FACTOR * normal_ratio)


def cap(level: float) -> float:
    """Return where a score ends: high enough for `h + 3`, low enough to come down again."""
    return max(1.5 * level, level + 2 * MATERIAL_SCORE)


class ErrorDetector:
    """
    Errors of one route, or of the pool of quiet routes.

    Attributes:
        baseline: What is normal.
        alarm: Where it stands.
        threshold: h.
        rebaselined: Set when the last alarm ended by age; the reader clears it.
    """

    __slots__ = (
        "_at", "_clumps", "_horizon", "_mixture", "_policy", "_recent", "alarm", "baseline", "rebaselined", "threshold",
    )  # fmt: skip
    KEPT: ClassVar[Names] = ("_horizon",)
    TIMES: ClassVar[Names] = ("_at",)

    def __init__(self, policy: DetectPolicy, at: float) -> None:
        self._policy = policy
        self._at = at
        self._mixture = Mixture(at, explains=True)
        self._clumps = Clumps()
        self._recent = Recent()
        self._horizon = LEAST_HORIZON
        self.baseline = RatioBaseline(NEED_REQUESTS, policy.warmup_s)
        self.alarm = Alarm()
        self.rebaselined = False
        self.threshold = 0.0
        self._aim()

    def __repr__(self) -> str:
        return f"<ErrorDetector {self.state} {self.score:.1f}/{self.threshold:.1f} {self.baseline!r}>"

    @property
    def state(self) -> State:
        """Return where it stands; `learning` while the baseline is cold and nothing is wrong."""
        if self.alarm.state is State.NORMAL and self.baseline.warm_at is None:
            return State.LEARNING
        return self.alarm.state

    @property
    def score(self) -> float:
        """Return the test's statistic."""
        return self._mixture.top

    @property
    def onset_at(self) -> float | None:
        """Return when the statistic last left zero; None while it is zero."""
        return self._mixture.onset()[0] if self._mixture.top else None

    def observe(self, requests: float, bad: float, at: float, elapsed_s: float, *, frozen: bool = False) -> None:
        """
        Take one second.

        Args:
            requests: Judged requests that ended in it.
            bad: Those of them that failed.
            at: Its end, monotonic seconds.
            elapsed_s: Seconds since the one before, as far as they were observed.
            frozen: Learn nothing from it.
        """
        self._at = at
        self._recent.add(requests, bad, at)
        mixture = self._mixture
        asked = not self.alarm.stands and (bad > 0 or mixture.top > 0)
        mixture.add(requests, bad, at, self._clumps.explained(requests, bad, at, elapsed_s, asked=asked))
        if self.alarm.stands and requests:
            mixture.forget(requests, self._horizon)
        self._step(requests, at)
        if self.alarm.stands or frozen:
            return
        if self.baseline.collect(requests, bad, at, elapsed_s):
            self._aim()
        if self.alarm.state is State.NORMAL and self.baseline.mature(at):
            self._aim()

    def _step(self, requests: float, at: float) -> None:
        alarm, mixture = self.alarm, self._mixture
        if alarm.state is State.NORMAL and mixture.top < 0.5 * self.threshold:
            return
        stood = alarm.stands
        qualifies = self._still() if stood else mixture.repeated() and self._speaks()
        turned = alarm.step(
            mixture.top, self.threshold, at, self._policy.clear_after_s, qualifies=qualifies, judged=requests > 0
        )
        if turned and stood:
            mixture.reset()
        elif turned:
            self._began()
        elif stood:
            self._age(at)

    def _speaks(self) -> bool:
        """Tell whether the effect is large enough for what the baseline knows."""
        if not self.baseline.young:
            return True
        _, since = self._mixture.onset()
        return since.bad >= max(YOUNG_RATIO, YOUNG_FACTOR * self.baseline.ratio) * since.requests

    def _still(self) -> bool:
        """Tell whether the effect is still large enough to stand; too few requests prove nothing."""
        if not self.baseline.young:
            return True
        requests, bad = self._recent.since(self._at - RECENT_S)
        least = CLEAR_EFFECT * max(YOUNG_RATIO, YOUNG_FACTOR * self.baseline.ratio)
        return requests < self._policy.min_requests or bad >= least * requests

    def _began(self) -> None:
        onset_at, since = self._mixture.onset()
        self.alarm.since_at = onset_at
        self._horizon = max(LEAST_HORIZON, 2 * since.requests)
        self.baseline.drop()
        self._aim()

    def _age(self, at: float) -> None:
        fired_at = self.alarm.fired_at
        if fired_at is None or at - fired_at < REBASELINE_S:
            return
        requests, bad = self._recent.since(at - RECENT_S)
        if requests and bad / requests <= self._policy.slo_error_ratio:
            self.accept()
            self.rebaselined = True

    def drop(self) -> None:
        """Forget what waits to be learnt: another detector found these seconds abnormal."""
        self.baseline.drop()
        self._aim()

    def accept(self) -> None:
        """Take the present ratio as normal: a person's verdict `benign`, or 24 h within the SLO."""
        requests, bad = self._measured()
        self.baseline.accept(requests, bad, self._at)
        self._mixture.reset()
        self.alarm.close()
        self._aim()

    def apply(self, policy: DetectPolicy) -> None:
        """Judge by *policy* from now on; what was learnt stays."""
        self._policy = policy
        self.baseline.apply(NEED_REQUESTS, policy.warmup_s)
        self._aim()

    def _aim(self) -> None:
        baseline = self.baseline
        cold = baseline.warm_at is None
        # A cold baseline has no rate either; the smallest γ belongs to the short time that it stays cold.
        rate_per_s = 0.0 if cold else baseline.rate_per_s
        self.threshold = threshold(rate_per_s, TESTS, self._policy.sensitivity)
        self.threshold += self._policy.offsets.get(Detector.ERRORS, 0.0)
        ratio = PRIOR_TESTED_RATIO if cold else baseline.tested_ratio
        least = COLD_LEAST_RATIO if cold else 0.0
        self._mixture.aim(ratio, 1.0, cap(self.threshold), least_ratio=least, level=self.threshold)
        self._clumps.aim(ratio, baseline.dispersion, rate_per_s, baseline.block_s)

    def _measured(self) -> tuple[float, float]:
        """Return (requests, bad) that describe the present: the last 30 s from the onset on, or all since it."""
        onset_at, since = self._mixture.onset()
        if self.alarm.since_at is not None:
            onset_at = self.alarm.since_at
        requests, bad = self._recent.since(max(onset_at, self._at - RECENT_S))
        if requests < self._policy.min_requests and since.requests > requests:
            return since.requests, since.bad
        return requests, bad

    def measured_ratio(self, onset_at: float) -> tuple[float, float]:
        """Return (failure ratio, requests) since *onset_at*, of the last 30 s at most, whatever the state."""
        requests, bad = self._recent.since(max(onset_at, self._at - RECENT_S))
        return (bad / requests if requests else 0.0), requests

    def signal(self, scope: Scope) -> Signal | None:
        """Return the claim while the alarm stands."""
        alarm = self.alarm
        if not alarm.stands or alarm.since_at is None:
            return None
        requests, bad = self._measured()
        ratio = bad / requests if requests else 0.0
        normal = self.baseline.ratio
        _, since = self._mixture.onset()
        enough = requests >= self._policy.min_requests
        severe = ratio >= SEVERE_RATIO and enough and requests >= SEVERE_REQUESTS
        material = enough and self.score >= self.threshold + MATERIAL_SCORE and ratio >= material_ratio(normal)
        return Signal(
            Detector.ERRORS,
            scope,
            value=ratio,
            baseline=normal,
            sample=round(requests),
            score=self.score,
            threshold=self.threshold,
            since_at=alarm.since_at,
            material=material,
            severe=severe,
            fading=alarm.fading,
            excess=max(since.bad - normal * since.requests, 0.0),
        )

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {
            **keep(self),
            "mixture": self._mixture.snapshot(),
            "clumps": self._clumps.snapshot(),
            "recent": self._recent.snapshot(),
            "baseline": self.baseline.snapshot(),
            "alarm": keep(self.alarm),
        }

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        revive(self, row, shift_s)
        self._mixture.restore(row["mixture"], shift_s)
        self._clumps.restore(row["clumps"], shift_s)
        self._recent.restore(row["recent"], shift_s)
        self.baseline.restore(row["baseline"], shift_s)
        revive(self.alarm, row["alarm"], shift_s)
        self.alarm.state = State(self.alarm.state)
        self._aim()
