"""Everything that watches one route (or the pool of quiet routes): its detectors, fed with one `RouteSecond` each second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sidecar.detect.alarm import State
from sidecar.detect.errors import ErrorDetector
from sidecar.detect.keep import Document
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.trip import TripDetector
from sidecar.facts import Detector, RouteSecond, Scope, Signal

LONGEST_STEP_S: Final = 10.0  # of a longer gap only this much was watched


class Watch:
    """The detectors of one scope."""

    __slots__ = ("_policy", "at", "errors", "scope", "trip")

    def __init__(self, scope: Scope, policy: DetectPolicy, at: float) -> None:
        self.scope = scope
        self.at = at
        self._policy = policy
        self.errors = ErrorDetector(policy, at)
        self.trip = TripDetector()

    def __repr__(self) -> str:
        return f"<Watch {self.scope} {self.errors!r}>"

    @property
    def abnormal(self) -> bool:
        """Tell whether any claim about the upstream stands, so that nothing may be learnt."""
        return self.trip.trips > 0 or self.errors.alarm.stands

    def observe(self, second: RouteSecond, *, frozen: bool) -> None:
        """Take one second; one that is not newer than the last is left out."""
        elapsed_s = min(second.at - self.at, LONGEST_STEP_S)
        if elapsed_s <= 0:
            return
        self.at = second.at
        self.trip.observe(second, self._policy.clear_after_s)
        frozen = frozen or self.abnormal
        self.errors.observe(second.judged, second.failures, second.at, elapsed_s, frozen=frozen)

    def signals(self) -> Iterator[Signal]:
        """Yield every claim that stands."""
        claims = [self.errors.signal(self.scope)]
        ratio, sample = self.errors.measured_ratio()
        claims.append(self.trip.signal(self.scope, ratio, self.errors.baseline.ratio, sample))
        yield from (claim for claim in claims if claim is not None)

    def states(self) -> Mapping[Detector, State]:
        """Return where each detector stands."""
        return {
            Detector.ERRORS: self.errors.state,
            Detector.TRIP: State.ALARM if self.trip.trips else State.NORMAL,
        }

    def scores(self) -> Mapping[Detector, float]:
        """Return each test's statistic as a part of its threshold: 1 is where it fires."""
        return {
            Detector.ERRORS: self.errors.score / self.errors.threshold,
            Detector.TRIP: float(self.trip.trips),
        }

    def cold(self) -> Mapping[Detector, str]:
        """Say of each detector that cannot run yet, what it lacks."""
        rows = {Detector.ERRORS: self.errors.baseline.cold}
        return {detector: why for detector, why in rows.items() if why}

    def accept(self, detector: Detector) -> None:
        """Take the present as normal for *detector*."""
        match detector:
            case Detector.ERRORS:
                self.errors.accept()
            case Detector.TRIP:
                self.trip.accept()
            case _:
                pass

    def take_rebaselined(self) -> list[Detector]:
        """Return the detectors whose alarm became normal by age since the last call."""
        taken = [Detector.ERRORS] if self.errors.rebaselined else []
        self.errors.rebaselined = False
        return taken

    def apply(self, policy: DetectPolicy) -> None:
        """Judge by *policy* from now on."""
        self._policy = policy
        self.errors.apply(policy)

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {"at": self.at, "errors": self.errors.snapshot(), "trip": self.trip.snapshot()}

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        self.at = row["at"] + shift_s
        self.errors.restore(row["errors"], shift_s)
        self.trip.restore(row["trip"], shift_s)
