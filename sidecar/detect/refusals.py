"""
The refusals detector: did the config version that just went live refuse far more than before? Advisory.

Theory
    A limit that is set far too low harms without any failure: own refusals feed no other detector. So the part of the
    arrivals that limits and concurrency refuse is tested like failures (`cusum.py`, same h), not against a learnt
    baseline but against the 60 s before the version was applied: the question is what the *version* did.

Tables
    event                                    reference                         test
    version applied                          share of the 60 s before it       starts at zero, for 10 min
    version applied while the claim stands   stays: those 60 s are the harm    goes on (a rollback lets it fall)
    10 min later without a claim             –                                 rests until the next version
    applied before 5 s were seen (start)     none: nothing to compare with     rests

    The claim asks for three refusals in two seconds and a share of at least 5 % and twice the reference, and fades below
    0.8 of that. It is never material nor severe. Its onset is never before the version.

What can go wrong
    A client that goes wild in those 10 min looks the same; the incident shows its share by client. With less than a
    minute seen before the version, the prior (0.5 of 100) stands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from sidecar.detect.alarm import Alarm, State
from sidecar.detect.baseline import FLOOR_RATIO, PRIOR_BAD, PRIOR_REQUESTS, logit, margin, sigmoid
from sidecar.detect.cusum import Mixture, threshold
from sidecar.detect.errors import CLEAR_EFFECT, LEAST_HORIZON, TESTS, cap
from sidecar.detect.keep import Document, Names, keep, revive
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.series import RECENT_S, Recent
from sidecar.facts import Detector, RouteSecond, Scope, Signal
from sidecar.reasons import Reason

BEFORE_S: Final = 60.0
STEP_S: Final = 5.0
WATCH_S: Final = 600.0
LEAST_SHARE: Final = 0.05
LEAST_FACTOR: Final = 2.0
REASONS: Final = (Reason.RATE_LIMITED.value, Reason.CONCURRENCY_LIMITED.value)


def refused(second: RouteSecond) -> int:
    """Count what limits and concurrency refused in *second*."""
    return sum(second.refused.get(reason, 0) for reason in REASONS)


class RefusalsDetector:
    """
    Refusals of one route, or of the service.

    Attributes:
        reference: Refused share before the version.
        version: The version that is watched; 0 before the first.
        alarm: Where the claim stands.
        threshold: h.
    """

    __slots__ = (
        "_applied_at", "_at", "_fed_s", "_horizon", "_mixture", "_policy", "_step", "_steps", "alarm", "reference",
        "threshold", "version",
    )  # fmt: skip
    KEPT: ClassVar[Names] = ("_fed_s", "_horizon", "_step", "reference", "threshold", "version")
    TIMES: ClassVar[Names] = ("_at", "_applied_at")

    def __init__(self, policy: DetectPolicy, at: float) -> None:
        self._policy = policy
        self._at = at
        self._applied_at: float | None = None
        self._mixture: Mixture | None = None  # while a version is watched: most of the time there is nothing to test
        self._steps = Recent(int(BEFORE_S / STEP_S) + 1)
        self._fed_s = 0.0
        self._step = [0.0, 0.0, 0.0]  # seconds, arrivals, refused
        self._horizon = LEAST_HORIZON
        self.reference = 0.0
        self.version = 0
        self.alarm = Alarm()
        self.threshold = threshold(0.0, TESTS, policy.sensitivity)

    def __repr__(self) -> str:
        return f"<RefusalsDetector {self.alarm.state} {self.score:.1f}/{self.threshold:.1f} version {self.version}>"

    @property
    def watching(self) -> bool:
        """Tell whether a version is being watched now."""
        return self._applied_at is not None and (self.alarm.stands or self._at - self._applied_at <= WATCH_S)

    @property
    def score(self) -> float:
        """Return the test's statistic."""
        return self._mixture.top if self._mixture is not None else 0.0

    def version_applied(self, at: float, version: int) -> None:
        """Begin to watch *version*, which went live at *at*."""
        if self._fed_s < STEP_S:
            return
        self._applied_at, self.version = at, version
        if self.alarm.stands:
            return
        self._end_step(self._at)
        arrivals, bad = self._steps.since(at - BEFORE_S)
        posterior = (PRIOR_BAD + bad, PRIOR_REQUESTS + arrivals)
        self.reference = posterior[0] / posterior[1]
        normal = max(sigmoid(logit(self.reference) + margin(posterior[0], self.reference)), FLOOR_RATIO)
        self.threshold = threshold(arrivals / BEFORE_S, TESTS, self._policy.sensitivity)
        self.threshold += self._policy.offsets.get(Detector.REFUSALS, 0.0)
        # Its totals begin early enough for the share of the last 30 s.
        self._mixture = self._mixture or Mixture(self._at - RECENT_S)
        self._mixture.reset()
        self._mixture.aim(normal, 1.0, cap(self.threshold))

    def observe(self, arrivals: int, bad: int, at: float, elapsed_s: float) -> None:
        """
        Take one second.

        Args:
            arrivals: Requests that came in.
            bad: Those that limits and concurrency refused.
            at: Its end, monotonic seconds.
            elapsed_s: Seconds since the one before, as far as they were observed.
        """
        self._at = at
        total = max(arrivals, bad)
        step = self._step
        self._fed_s += elapsed_s
        step[0] += elapsed_s
        step[1] += total
        step[2] += bad
        if step[0] >= STEP_S:
            self._end_step(at)
        if self._mixture is None:
            return
        if self.watching:
            self._test(self._mixture, total, bad, at)
        else:  # no claim stands: what it has collected is nobody's any more
            self._mixture = None
            self.alarm.close()

    def _end_step(self, at: float) -> None:
        self._steps.add(self._step[1], self._step[2], at)
        self._step = [0.0, 0.0, 0.0]

    def _test(self, mixture: Mixture, arrivals: int, bad: int, at: float) -> None:
        alarm = self.alarm
        mixture.add(arrivals, bad, at)
        stood = alarm.stands
        if stood and arrivals:
            mixture.forget(arrivals, self._horizon)
        elif not stood and not mixture.top and alarm.state is State.NORMAL:
            return
        least = max(LEAST_SHARE, LEAST_FACTOR * self.reference)
        qualifies = self._share() >= CLEAR_EFFECT * least if stood else mixture.repeated() and self._share() >= least
        turned = alarm.step(
            mixture.top, self.threshold, at, self._policy.clear_after_s, qualifies=qualifies, judged=arrivals > 0
        )
        if turned and stood:
            mixture.reset()
        elif turned:
            onset_at, since = mixture.onset()
            alarm.since_at = max(onset_at, self._applied_at if self._applied_at is not None else onset_at)
            self._horizon = max(LEAST_HORIZON, 2 * since.requests)

    def _measured(self) -> tuple[float, float]:
        since_at = self._at - RECENT_S
        if self.alarm.since_at is not None:
            since_at = max(since_at, self.alarm.since_at)
        elif self._mixture is not None:
            since_at = max(since_at, self._mixture.onset()[0])
        arrivals, bad = self._steps.since(since_at)
        return arrivals + self._step[1], bad + self._step[2]

    def _share(self) -> float:
        arrivals, bad = self._measured()
        return bad / arrivals if arrivals else 0.0

    def accept(self) -> None:
        """End the claim and the watch: a person said `benign`."""
        self._mixture = None
        self.alarm.close()
        self._applied_at = None

    def apply(self, policy: DetectPolicy) -> None:
        """Judge by *policy* from now on."""
        self._policy = policy

    def signal(self, scope: Scope) -> Signal | None:
        """Return the claim while it stands."""
        alarm = self.alarm
        if not alarm.stands or alarm.since_at is None or self._mixture is None:
            return None
        _, since = self._mixture.onset()
        return Signal(
            Detector.REFUSALS,
            scope,
            value=self._share(),
            baseline=self.reference,
            sample=round(self._measured()[0]),
            score=self.score,
            threshold=self.threshold,
            since_at=alarm.since_at,
            fading=alarm.fading,
            excess=max(since.bad - self.reference * since.requests, 0.0),
        )

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {
            **keep(self),
            "mixture": self._mixture.snapshot() if self._mixture is not None else None,
            "steps": self._steps.snapshot(),
            "alarm": keep(self.alarm),
        }

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        revive(self, row, shift_s)
        self._mixture = None
        if row["mixture"] is not None:
            self._mixture = Mixture(self._at)
            self._mixture.restore(row["mixture"], shift_s)
        self._steps.restore(row["steps"], shift_s)
        revive(self.alarm, row["alarm"], shift_s)
        self.alarm.state = State(self.alarm.state)
