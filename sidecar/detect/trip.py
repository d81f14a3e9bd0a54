"""
The reflex told as a signal: a breaker of this route opened.

Theory
    A breaker that is open starves every other detector of the requests they ask for. So its trip is a claim by itself:
    severe, and every minimum of the sample is met. It stands until neither a trip nor a refusal by the open breaker was
    seen for `clear_after_s`; open times grow to minutes, and the refusals in between show that it is still open. Its onset
    is the first failure of the run that tripped it: where the error detector's score last left zero (`cusum.py`), the
    latency detector's when nothing failed and answers were slow, at most `REACH_S` ago, the breaker's own view.

What can go wrong
    A route without traffic shows no refusals, so the claim ends while the breaker may still be open: nobody is refused
    by it then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from sidecar.detect.keep import Document, Names, keep, revive
from sidecar.facts import Detector, RouteSecond, Scope, Signal
from sidecar.reasons import Reason

REACH_S: Final = 10.0  # a breaker looks back so far; the failures behind its trip lie in it


class TripDetector:
    """
    Breaker trips of one route.

    Attributes:
        trips: How many in this episode; 0 when none stands.
        since_at: When the run of failures behind the first of them began.
    """

    __slots__ = ("_quiet", "_seen_at", "since_at", "trips")
    KEPT: ClassVar[Names] = ("trips", "_quiet")
    TIMES: ClassVar[Names] = ("since_at", "_seen_at")

    def __init__(self) -> None:
        self.trips = 0
        self.since_at: float | None = None
        self._seen_at: float | None = None
        self._quiet = False

    def __repr__(self) -> str:
        return f"<TripDetector {self.trips} since {self.since_at}>"

    def observe(self, second: RouteSecond, clear_after_s: float) -> None:
        """Take one second."""
        refusing = self.trips > 0 and second.refused.get(Reason.BREAKER_OPEN, 0) > 0
        self._quiet = not (second.trips or refusing)
        if second.trips:
            if not self.trips:
                self.since_at = second.at
            self.trips += second.trips
            self._seen_at = second.at
        elif refusing:
            self._seen_at = second.at
        elif self._seen_at is not None and second.at - self._seen_at >= clear_after_s:
            self.accept()

    def accept(self) -> None:
        """End the claim."""
        self.trips, self.since_at, self._seen_at = 0, None, None

    def signal(self, scope: Scope, ratio: float, normal: float, sample: float) -> Signal | None:
        """Return the claim while it stands, with the failure ratio since its onset as the error detector measured it."""
        if self.since_at is None:
            return None
        return Signal(
            Detector.TRIP,
            scope,
            value=ratio,
            baseline=normal,
            sample=round(sample),
            score=float(self.trips),
            threshold=1.0,
            since_at=self.since_at,
            material=True,
            severe=True,
            fading=self._quiet,
        )

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return keep(self)

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        revive(self, row, shift_s)
