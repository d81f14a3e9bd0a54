"""
Everything that watches one route (or the pool of quiet routes): its detectors, fed with one `RouteSecond` a second.

A second that one detector finds abnormal is learnt by none: when a claim about the upstream begins, what waits in the
quarantines of errors and latency is dropped together, and both learn nothing until it ended. Surge and silence do not
stop them; a surge that harms shows in errors or latency.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, assert_never

from sidecar.detect.alarm import State
from sidecar.detect.burn import BurnDetector
from sidecar.detect.drift import DriftDetector
from sidecar.detect.errors import ErrorDetector
from sidecar.detect.keep import Document
from sidecar.detect.latency import LatencyDetector
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.refusals import RefusalsDetector, refused
from sidecar.detect.traffic import TrafficDetector
from sidecar.detect.trip import REACH_S, TripDetector
from sidecar.facts import Detector, RouteSecond, Scope, Signal

LONGEST_STEP_S: Final = 10.0  # of a longer gap only this much was watched
RATE_S: Final = 900.0  # over which a route's own rate is averaged, to tell quiet ones


class Watch:
    """
    The detectors of one scope.

    Attributes:
        at: End of the last second that was taken.
        arrivals, watched_s: The scope's recent traffic, faded over 15 min; their quotient is its rate.
        age_s: How long it was watched in all.
    """

    __slots__ = (
        "_policy", "_was_abnormal", "age_s", "arrivals", "at", "burn", "drift", "errors", "latency", "refusals", "scope", "traffic",
        "trip", "watched_s",
    )  # fmt: skip

    def __init__(self, scope: Scope, policy: DetectPolicy, at: float) -> None:
        self._policy = policy
        self._was_abnormal = False
        self.scope = scope
        self.at = at
        self.arrivals = self.watched_s = self.age_s = 0.0
        self.errors = ErrorDetector(policy, at)
        self.latency = LatencyDetector(policy, at)
        self.traffic = TrafficDetector(policy, at)
        self.refusals = RefusalsDetector(policy, at)
        self.trip = TripDetector()
        self.drift = DriftDetector(policy)
        self.burn = BurnDetector(policy.objective) if policy.objective is not None else None

    def __repr__(self) -> str:
        return f"<Watch {self.scope} {self.errors!r} {self.latency!r} {self.traffic!r}>"

    @property
    def rate_per_s(self) -> float:
        """Return the recent arrivals a second."""
        return self.arrivals / self.watched_s if self.watched_s else 0.0

    @property
    def abnormal(self) -> bool:
        """Tell whether any claim about the upstream stands, so that nothing may be learnt."""
        return self.trip.trips > 0 or self.errors.alarm.stands or self.latency.alarm.stands

    def observe(self, second: RouteSecond, *, frozen: bool) -> None:
        """Take one second; one that is not newer than the last is left out."""
        gap = second.at - self.at > LONGEST_STEP_S
        elapsed_s = min(second.at - self.at, LONGEST_STEP_S)
        if elapsed_s <= 0:
            return
        self.at = second.at
        self._count(second.arrivals, elapsed_s)
        self.trip.observe(second, self._policy.clear_after_s)
        began = self.trip.trips > 0 and self.trip.since_at == second.at
        held = frozen or self.abnormal
        self.errors.observe(second.judged, second.failures, second.at, elapsed_s, frozen=held)
        self.latency.observe(second, elapsed_s, frozen=held)
        if began:
            onsets = (at for at in (self.errors.onset_at, self.latency.onset_at) if at is not None)
            self.trip.since_at = max(next(onsets, second.at - elapsed_s), second.at - REACH_S)
        if gap:
            self.traffic.skip(second.at)
        else:
            self.traffic.observe(second.arrivals, second.at, elapsed_s, frozen=frozen)
        self.refusals.observe(second.arrivals, refused(second), second.at, elapsed_s)
        self.drift.observe(second, elapsed_s, held=frozen or self.abnormal)
        if self.burn is not None:
            self.burn.observe(second, elapsed_s, told=frozen or self.abnormal)
        if self.abnormal and not self._was_abnormal:
            self.errors.drop()
            self.latency.drop()
        self._was_abnormal = self.abnormal

    def _count(self, arrivals: int, elapsed_s: float) -> None:
        fade = 1 - elapsed_s / RATE_S
        self.arrivals = self.arrivals * fade + arrivals
        self.watched_s = self.watched_s * fade + elapsed_s
        self.age_s += elapsed_s

    def signals(self) -> list[Signal]:
        """Return every claim that stands."""
        scope = self.scope
        claims: list[Signal | None] = []
        if self.errors.alarm.stands:
            claims.append(self.errors.signal(scope))
        if self.latency.alarm.stands:
            claims.append(self.latency.signal(scope))
        claims += self.traffic.signals(scope)
        claims.append(self.refusals.signal(scope))
        claims.append(self.drift.signal(scope))
        if self.burn is not None:
            claims.append(self.burn.signal(scope))
        if self.trip.since_at is not None:
            ratio, sample = self.errors.measured_ratio(self.trip.since_at)
            claims.append(self.trip.signal(scope, ratio, self.errors.baseline.ratio, sample))
        return [claim for claim in claims if claim is not None]

    def states(self) -> Mapping[Detector, State]:
        """Return where each detector stands."""
        return {
            Detector.ERRORS: self.errors.state,
            Detector.LATENCY: self.latency.state,
            Detector.SURGE: self.traffic.state(Detector.SURGE),
            Detector.SILENCE: self.traffic.state(Detector.SILENCE),
            Detector.REFUSALS: self.refusals.alarm.state,
            Detector.TRIP: State.ALARM if self.trip.trips else State.NORMAL,
            Detector.BURN: self.burn.state if self.burn is not None else State.NORMAL,
            Detector.DRIFT: self.drift.state,
        }

    def scores(self) -> Mapping[Detector, float]:
        """Return each test's statistic as a part of its threshold: 1 is where it fires."""
        return {
            Detector.ERRORS: self.errors.score / self.errors.threshold,
            Detector.LATENCY: self.latency.score / self.latency.threshold,
            Detector.SURGE: self.traffic.score(Detector.SURGE) / self.traffic.level(Detector.SURGE),
            Detector.SILENCE: self.traffic.score(Detector.SILENCE) / self.traffic.level(Detector.SILENCE),
            Detector.REFUSALS: self.refusals.score / self.refusals.threshold,
            Detector.TRIP: float(self.trip.trips),
            Detector.BURN: self.burn.score if self.burn is not None else 0.0,
            Detector.DRIFT: self.drift.rarity / self.drift.threshold,
        }

    def cold(self) -> Mapping[Detector, str]:
        """Say of each detector that cannot run yet, what it lacks."""
        forecast = self.traffic.forecast.cold
        rows = {
            Detector.ERRORS: self.errors.baseline.cold,
            Detector.LATENCY: self.latency.baseline.cold,
            Detector.SURGE: forecast,
            Detector.SILENCE: forecast,
            Detector.BURN: "" if self.burn is not None else "no objective: the route has no `slo`",
            Detector.DRIFT: self.drift.cold,
        }
        return {detector: why for detector, why in rows.items() if why}

    def accept(self, detector: Detector) -> None:
        """Take the present as normal for *detector*."""
        match detector:
            case Detector.ERRORS:
                self.errors.accept()
            case Detector.LATENCY:
                self.latency.accept()
            case Detector.SURGE | Detector.SILENCE:
                self.traffic.accept(detector)
            case Detector.REFUSALS:
                self.refusals.accept()
            case Detector.TRIP:
                self.trip.accept()
            case Detector.BURN:
                if self.burn is not None:
                    self.burn.accept()
            case Detector.DRIFT:
                self.drift.accept()
            case _:
                assert_never(detector)

    def take_rebaselined(self) -> list[Detector]:
        """Return the detectors whose alarm became normal by age since the last call."""
        taken = list(self.traffic.rebaselined)
        self.traffic.rebaselined.clear()
        if self.errors.rebaselined:
            taken.append(Detector.ERRORS)
            self.errors.rebaselined = False
        if self.latency.rebaselined:
            taken.append(Detector.LATENCY)
            self.latency.rebaselined = False
        return taken

    def apply(self, policy: DetectPolicy) -> None:
        """Judge by *policy* from now on; another objective begins with an empty ledger."""
        if policy.objective != self._policy.objective:
            self.burn = BurnDetector(policy.objective) if policy.objective is not None else None
        self._policy = policy
        self.errors.apply(policy)
        self.latency.apply(policy)
        self.traffic.apply(policy)
        self.refusals.apply(policy)
        self.drift.apply(policy)

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {
            "at": self.at,
            "abnormal": self._was_abnormal,
            "rate": [self.arrivals, self.watched_s, self.age_s],
            "errors": self.errors.snapshot(),
            "latency": self.latency.snapshot(),
            "traffic": self.traffic.snapshot(),
            "refusals": self.refusals.snapshot(),
            "trip": self.trip.snapshot(),
            "drift": self.drift.snapshot(),
            "burn": self.burn.snapshot() if self.burn is not None else None,
        }

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        self.at = row["at"] + shift_s
        self._was_abnormal = row["abnormal"]
        self.arrivals, self.watched_s, self.age_s = row["rate"]
        self.errors.restore(row["errors"], shift_s)
        self.latency.restore(row["latency"], shift_s)
        self.traffic.restore(row["traffic"], shift_s)
        self.refusals.restore(row["refusals"], shift_s)
        self.trip.restore(row["trip"], shift_s)
        self.drift.restore(row["drift"], shift_s)
        if self.burn is not None and row.get("burn") is not None:
            self.burn.restore(row["burn"], shift_s)
