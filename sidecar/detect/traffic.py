"""
The traffic detector: far more or far fewer arrivals than forecast. Advisory: it raises and never isolates.

Theory
    Arrivals, refused ones included, so that an isolation never looks like silence. Against a forecast of λ a second
    stand the rates 0, 0.3, 0.5, 2 and 4 times λ, each a Poisson CUSUM: n arrivals in Δ seconds add

        [n·ln(r) − λ·(r − 1)·Δ] / φ

    The forecast is the recent past: minutes that left a quarantine of 10 min, averaged over the last 10 (over the last
    300 arrivals where those are fewer). It therefore
    follows the day's rise and fall (a change below 40 % in half an hour adds nothing to any of the five), while what is
    abnormal stays out of it. φ is Pearson's dispersion of the minutes' and ten-minutes' arrivals (`baseline.py`).

    Silence has a second, simpler test: no arrival for 16·φ/λ seconds, at least 5.

Tables
    claim      from                                asks besides for                                   fades besides when
    surge      r = 2, 4                            10 s since the onset; twice the forecast and 2/s   below 0.8 of that
    silence    r = 0, 0.3, 0.5, or no arrival      10 s since the onset at 0.6 of the forecast, or    above 0.6 / 0.8 of it
                                                   5 s without any arrival

    The forecast is cold until ten warm-ups were seen, with 300 arrivals in them.

What can go wrong
    Without a season the night is not expected; it comes slowly enough for the forecast. A lasting shift alarms until a
    person says `benign` or 24 h are over. Below one request a second nothing is called a surge: the first person at
    work is none. Time falls here with seconds, not with requests: each second is an observation of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log, sqrt
from typing import Any, ClassVar, Final

from sidecar.detect.alarm import TRIGGER_SUSPECT, Alarm, State
from sidecar.detect.baseline import DEVIATIONS, Dispersion, Quarantine, warmup_scale
from sidecar.detect.cusum import Mixture, threshold
from sidecar.detect.errors import CLEAR_EFFECT, REBASELINE_S, TESTS, cap
from sidecar.detect.keep import Document, Names, keep, revive
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.series import RECENT_S, Recent
from sidecar.facts import Detector, Scope, Signal

NEED_ARRIVALS: Final = 300
FORECAST_WARMUPS: Final = 10.0
FORECAST_S: Final = 600.0
DAY_S: Final = 86_400.0
LOWER: Final = (0.0, 0.3, 0.5)
HIGHER: Final = (2.0, 4.0)
QUIET_PERIODS: Final = 16.0
LEAST_QUIET_S: Final = 5.0
LEAST_SHIFT_S: Final = 10.0
LEAST_FACTOR: Final = 2.0  # of the forecast: a surge
MOST_LEFT_RATIO: Final = 0.6  # of the forecast: a silence
LEAST_SURGE_PER_S: Final = 1.0
LEAST_SILENCE_PER_S: Final = 1 / 60
_CHANCES_PER_S: Final = 1e6  # turns a count into a binomial of tiny probability, whose variance is its mean
_NEVER: Final = -1e9


class Forecast:
    """
    Arrivals a second, as expected now.

    Attributes:
        arrivals, seconds: What was learnt, faded over ten minutes, or over as long as 300 arrivals take.
        warm_at: When it became fit to test against; None before.
    """

    __slots__ = (
        "_quarantine",
        "_seen",
        "_watched_s",
        "arrivals",
        "dispersion",
        "need_arrivals",
        "need_s",
        "seconds",
        "warm_at",
    )
    KEPT: ClassVar[Names] = ("arrivals", "seconds", "_seen", "_watched_s")
    TIMES: ClassVar[Names] = ("warm_at",)

    def __init__(self, warmup_s: float) -> None:
        self._quarantine = Quarantine(1, 1.0)
        self._watched_s = self._seen = 0.0
        self.apply(warmup_s)
        self.dispersion = Dispersion()
        self.arrivals = self.seconds = 0.0
        self.warm_at: float | None = None

    def __repr__(self) -> str:
        return f"<Forecast {self.rate_per_s:.2f}/s {self.dispersion!r}>"

    @property
    def rate_per_s(self) -> float:
        """Return λ."""
        return self.arrivals / self.seconds if self.seconds else 0.0

    @property
    def cold(self) -> str:
        """Say what is still lacking; empty once warm."""
        if self.warm_at is not None:
            return ""
        if self._watched_s < self.need_s:
            return f"forecast cold, {self._watched_s:.0f} of {self.need_s:.0f} s"
        return f"forecast cold, {self._seen:.0f} of {self.need_arrivals:.0f} arrivals"

    def collect(self, arrivals: int, at: float, elapsed_s: float) -> bool:
        """Take one second that is not known to be abnormal; return whether the forecast changed."""
        if self.warm_at is None:
            self._watched_s += elapsed_s
            self._seen += arrivals
            self._learn(arrivals, elapsed_s)
            if self._watched_s >= self.need_s and self._seen >= self.need_arrivals:
                self.warm_at = at
            return self.warm_at is not None
        self._quarantine.collect(((0, arrivals),), at, elapsed_s)
        free = self._quarantine.release(at, self.warm_at - self.need_s)
        for _, seconds, (count,) in free:
            self.dispersion.add(seconds * _CHANCES_PER_S, count)
            expected = self.rate_per_s * seconds
            spread = DEVIATIONS * sqrt(max(expected, 1.0) * self.dispersion.value)
            self._learn(min(max(count, expected - spread), expected + spread), seconds)
        return bool(free)

    def _learn(self, arrivals: float, seconds: float) -> None:
        rate_per_s = self.rate_per_s
        fade = exp(-seconds / (max(FORECAST_S, min(NEED_ARRIVALS / rate_per_s, DAY_S)) if rate_per_s else DAY_S))
        self.arrivals = self.arrivals * fade + arrivals
        self.seconds = self.seconds * fade + seconds

    def drop(self) -> None:
        """Forget what waits."""
        self._quarantine.drop()

    def accept(self, rate_per_s: float, at: float) -> None:
        """Expect *rate_per_s* from now on."""
        self._quarantine.drop()
        self.seconds = max(self.seconds, 1.0)
        self.arrivals = rate_per_s * self.seconds
        self.warm_at = at

    def apply(self, warmup_s: float) -> None:
        """Take a new warm-up; a forecast that is warm stays so."""
        scale = warmup_scale(warmup_s)
        self.need_s, self.need_arrivals = FORECAST_WARMUPS * warmup_s, NEED_ARRIVALS * scale
        self._quarantine.resize(scale)

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {**keep(self), "quarantine": self._quarantine.snapshot(), "dispersion": self.dispersion.snapshot()}

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        revive(self, row, shift_s)
        self._quarantine.restore(row["quarantine"], shift_s)
        self.dispersion.restore(row["dispersion"])


class TrafficDetector:
    """
    Surge and silence of one route, or of the pool of quiet routes.

    Attributes:
        forecast: What is expected.
        surge, silence: Where the two claims stand.
        threshold: h, of both mixtures.
        rebaselined: The claims that ended by age; the reader clears it.
    """

    __slots__ = (
        "_at", "_higher", "_horizon_s", "_lower", "_missing", "_policy", "_quiet_since", "_recent", "forecast",
        "rebaselined", "silence", "surge", "threshold",
    )  # fmt: skip
    KEPT: ClassVar[Names] = ("_horizon_s", "_missing")
    TIMES: ClassVar[Names] = ("_at", "_quiet_since")

    def __init__(self, policy: DetectPolicy, at: float) -> None:
        self._policy = policy
        self._at = self._quiet_since = at
        self._lower, self._higher = Mixture(at, len(LOWER)), Mixture(at, len(HIGHER))
        self._recent = Recent()
        self._horizon_s = 2 * LEAST_SHIFT_S
        self._missing = 0.0  # requests that stayed away since the onset of the silence that stands
        self.forecast = Forecast(policy.warmup_s)
        self.surge, self.silence = Alarm(), Alarm()
        self.rebaselined: list[Detector] = []
        self.threshold = 0.0
        self._aim()

    def __repr__(self) -> str:
        return f"<TrafficDetector surge {self.surge.state} silence {self.silence.state} {self.forecast!r}>"

    def state(self, detector: Detector) -> State:
        """Return where `surge` or `silence` stands; `learning` while the forecast is cold."""
        if self.forecast.warm_at is None:
            return State.LEARNING
        return (self.surge if detector is Detector.SURGE else self.silence).state

    def score(self, detector: Detector) -> float:
        """Return the statistic of `surge` or `silence`."""
        if self.forecast.warm_at is None:
            return 0.0
        return self._higher.top if detector is Detector.SURGE else self._silence_score()

    def observe(self, arrivals: int, at: float, elapsed_s: float, *, frozen: bool = False) -> None:
        """
        Take one second.

        Args:
            arrivals: Requests that came in, refused ones included.
            at: Its end, monotonic seconds.
            elapsed_s: Seconds since the one before, as far as they were observed.
            frozen: Learn nothing from it.
        """
        if arrivals:
            self._quiet_since = at
        self._at = at
        self._recent.add(elapsed_s, arrivals, at)
        if self.forecast.warm_at is not None:
            self._test(arrivals, at, elapsed_s)
        if frozen or self.surge.state is not State.NORMAL or self.silence.state is not State.NORMAL:
            return
        if self.forecast.collect(arrivals, at, elapsed_s):
            self._aim()

    def skip(self, at: float) -> None:
        """Go on at *at* after a gap in the reports: what was not observed is no silence, and its rate is unknown."""
        self._at = self._quiet_since = at

    def _test(self, arrivals: int, at: float, elapsed_s: float) -> None:
        # "Bad" are the arrivals and "good" the seconds: their weights are the two terms of the Poisson likelihood.
        for mixture in (self._lower, self._higher):
            mixture.add(arrivals + elapsed_s, arrivals, at)
        self._missing += self.forecast.rate_per_s * elapsed_s - arrivals if self.silence.stands else 0.0
        for alarm, mixture in ((self.surge, self._higher), (self.silence, self._lower)):
            score = self._silence_score() if mixture is self._lower else mixture.top
            if alarm.stands:
                mixture.forget(elapsed_s, self._horizon_s)
            elif alarm.state is State.NORMAL and score < TRIGGER_SUSPECT * self._level_of(mixture):
                continue
            self._step(alarm, mixture, score, at)

    def _step(self, alarm: Alarm, mixture: Mixture, score: float, at: float) -> None:
        stood = alarm.stands
        qualifies = self._still(mixture) if stood else self._qualifies(mixture)
        level = self._level_of(mixture)
        turned = alarm.step(score, level, at, self._policy.clear_after_s, qualifies=qualifies, judged=True)
        if turned and stood:
            mixture.reset()
        elif turned:
            onset_at, _ = mixture.onset()
            if mixture is self._lower:
                quiet = self.forecast.rate_per_s * (at - self._quiet_since)  # the mixture begins with an arrival
                onset_at, self._missing = min(onset_at, self._quiet_since), max(-self._beyond(mixture), quiet)
            alarm.since_at = onset_at
            self._horizon_s = max(2 * LEAST_SHIFT_S, 2 * (at - onset_at))
            self.forecast.drop()
        elif stood and alarm.fired_at is not None and at - alarm.fired_at >= REBASELINE_S:
            detector = Detector.SURGE if alarm is self.surge else Detector.SILENCE
            self.accept(detector)
            self.rebaselined.append(detector)

    def _qualifies(self, mixture: Mixture) -> bool:
        rate = self.forecast.rate_per_s
        onset_at, _ = mixture.onset()
        lasted = self._at - onset_at >= LEAST_SHIFT_S
        if mixture is self._lower:
            quiet = self._at - self._quiet_since >= LEAST_QUIET_S
            fell = lasted and self._rate(onset_at) <= MOST_LEFT_RATIO * rate
            return rate >= LEAST_SILENCE_PER_S and (fell or quiet)
        return lasted and self._rate(onset_at) >= LEAST_FACTOR * max(rate, LEAST_SURGE_PER_S)

    def _still(self, mixture: Mixture) -> bool:
        """Tell whether the arrivals of the last 30 s are still far enough from the forecast for a claim to stand."""
        rate, now = self.forecast.rate_per_s, self._rate(self._at - RECENT_S)
        if mixture is self._lower:
            return now <= MOST_LEFT_RATIO / CLEAR_EFFECT * rate
        return now >= CLEAR_EFFECT * LEAST_FACTOR * max(rate, LEAST_SURGE_PER_S)

    def _silence_score(self) -> float:
        rate = self.forecast.rate_per_s
        if rate < LEAST_SILENCE_PER_S:
            return 0.0
        quiet_s = self._at - self._quiet_since
        period_s = max(QUIET_PERIODS * self.forecast.dispersion.value / rate, LEAST_QUIET_S)
        return max(self._lower.top, min(quiet_s / period_s, 1.5) * self.level(Detector.SILENCE))

    def _rate(self, since_at: float) -> float:
        seconds, arrivals = self._recent.since(max(since_at, self._at - RECENT_S))
        return arrivals / seconds if seconds else 0.0

    def accept(self, detector: Detector) -> None:
        """Expect the present rate from now on: a person's verdict `benign`, or 24 h."""
        self.forecast.accept(self._rate(self._at - RECENT_S), self._at)
        alarm, mixture = (self.surge, self._higher) if detector is Detector.SURGE else (self.silence, self._lower)
        mixture.reset()
        alarm.close()
        self._quiet_since = self._at
        self._aim()

    def drop(self) -> None:
        """Forget what waits to be learnt."""
        self.forecast.drop()

    def apply(self, policy: DetectPolicy) -> None:
        """Judge by *policy* from now on; what was learnt stays."""
        self._policy = policy
        self.forecast.apply(policy.warmup_s)
        self._aim()

    def _aim(self) -> None:
        cold, dispersion = self.forecast.warm_at is None, self.forecast.dispersion.value
        rate = 0.0 if cold else self.forecast.rate_per_s
        self.threshold = threshold(rate, TESTS, self._policy.sensitivity)
        fewer, more = cap(self.level(Detector.SILENCE)), cap(self.level(Detector.SURGE))
        high = max(rate, LEAST_SURGE_PER_S)
        self._lower.weigh(
            [log(r) / dispersion if r else _NEVER for r in LOWER], [(1 - r) * rate / dispersion for r in LOWER], fewer
        )
        self._higher.weigh([log(r) / dispersion for r in HIGHER], [(1 - r) * high / dispersion for r in HIGHER], more)

    def level(self, detector: Detector) -> float:
        """Return where `surge` or `silence` fires."""
        return self.threshold + self._policy.offsets.get(detector, 0.0)

    def _level_of(self, mixture: Mixture) -> float:
        return self.level(Detector.SURGE if mixture is self._higher else Detector.SILENCE)

    def signals(self, scope: Scope) -> list[Signal]:
        """Return the claims that stand."""
        return [
            Signal(
                detector,
                scope,
                value=self._rate(alarm.since_at),
                baseline=self.forecast.rate_per_s,
                sample=round(self._recent.since(max(alarm.since_at, self._at - RECENT_S))[1]),
                score=self.score(detector),
                threshold=self.level(detector),
                since_at=alarm.since_at,
                unit="per_s",
                fading=alarm.fading,
                excess=self._excess(detector),
            )
            for detector, alarm in ((Detector.SURGE, self.surge), (Detector.SILENCE, self.silence))
            if alarm.stands and alarm.since_at is not None
        ]

    def _excess(self, detector: Detector) -> float:
        """Return how many requests came, or stayed away, beyond the forecast since the onset."""
        return max(self._beyond(self._higher) if detector is Detector.SURGE else self._missing, 0.0)

    def _beyond(self, mixture: Mixture) -> float:
        """Return how many requests came beyond the forecast since the onset that *mixture* sees."""
        _, since = mixture.onset()
        return since.bad - self.forecast.rate_per_s * (since.requests - since.bad)  # "good" are the seconds

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {
            **keep(self),
            "lower": self._lower.snapshot(),
            "higher": self._higher.snapshot(),
            "recent": self._recent.snapshot(),
            "forecast": self.forecast.snapshot(),
            "surge": keep(self.surge),
            "silence": keep(self.silence),
        }

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        revive(self, row, shift_s)
        self._lower.restore(row["lower"], shift_s)
        self._higher.restore(row["higher"], shift_s)
        self._recent.restore(row["recent"], shift_s)
        self.forecast.restore(row["forecast"], shift_s)
        for alarm, name in ((self.surge, "surge"), (self.silence, "silence")):
            revive(alarm, row[name], shift_s)
            alarm.state = State(alarm.state)
        self._aim()
