"""
What was called false stays quiet until it outgrows what it was; what was confirmed is never that small.

Theory
    A mark (`sticky.py`) is of the episode that was judged, and a threshold moves by six nats at most: a trigger that in its
    first seconds is as strong as an incident is beyond both. What tells the two apart is that it ends. So its *size* is
    remembered: the requests beyond normal since its onset that failed, were slow, arrived, stayed away or were refused
    (`Signal.excess`). It grows only while harm is done, and is the same unit for six seconds and for an hour. A
    signal is silent while it is no larger than the floor of its fingerprint (scope, detector),

        floor = min(largest called false + 2·√of it, smallest confirmed − 2·√of it)

    and a finding while all its signals are. Sizes are counts, so "as large" is within twice the counting error √. An
    incident of e requests a second beyond normal passes the floor after floor / e seconds: it is told later, not never.

Tables
    verdict              its fingerprint
    false_positive       what is as large is silent from now on; the threshold needs many such verdicts to learn that
    confirmed            what is as large is told again
    benign, changed      as if the incident had never been judged
    missed (a control)   everything that was called false there is forgotten, its marks too

    never silent         why
    severe               half of the requests fail: nobody's verdict on an earlier one reaches that far
    `LONGEST_S` of harm  whatever was called false by mistake delays a word by five minutes, not by its own size. Harm lasts
                         while the size grows, or while counted requests still wait
    not counted          trips, drift, an error budget: there is no size to compare

What can go wrong
    A verdict comes while the trouble goes on: its size is what was seen by then, and is measured again at its end.
    An isolation keeps requests from failing, and nothing isolates while all is silent: what it refused counts by what the
    trial traffic says of it (`size_of`).
    Memory: `KEPT` rows. The oldest false ones go first, a confirmed one only where no false one is left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Any, Final

from sidecar.facts import Detector, Scope, Signal
from sidecar.incident.lifecycle import Claim, Incident, Verdict

LONGEST_S: Final = 300.0
KEPT: Final = 200
_ERRORS: Final = 2.0  # standard errors of a count


def above(excess: float) -> float:
    """Return how large something may be that is as large as *excess*, within the error of counting."""
    return excess + _ERRORS * sqrt(excess)


def below(excess: float) -> float:
    """Return how small something may be that is as large as *excess*, within the error of counting."""
    return max(excess - _ERRORS * sqrt(excess), 0.0)


@dataclass(frozen=True, slots=True)
class Size:
    """
    How large one judged incident was on one fingerprint.

    Attributes:
        real: A person confirmed it; else called it false.
        excess: Requests beyond normal since its onset.
        severe: It was severe at its worst.
        quieted: Later ones that it has kept quiet.
    """

    incident: int
    scope: Scope
    detector: Detector
    real: bool
    excess: float
    severe: bool = False
    quieted: int = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    """The judged sizes, the oldest first."""

    rows: tuple[Size, ...] = ()

    def floor(self, scope: Scope, detector: Detector) -> float:
        """Return up to which size a signal of this fingerprint is silent; 0 when nothing is."""
        rows = [row for row in self.rows if row.detector is detector and row.scope == scope]
        false = max((above(row.excess) for row in rows if not row.real), default=0.0)
        return min(false, min((below(row.excess) for row in rows if row.real and not row.severe), default=inf))

    def silences(self, signal: Signal, scope: Scope, harmed_s: float) -> Size | None:
        """
        Return what keeps *signal* silent: the largest one that was called false; None when it is to be told.

        Args:
            signal: The claim.
            scope: Of the finding that it belongs to.
            harmed_s: From its onset to the last second in which harm was done.
        """
        if not self.rows or signal.severe or harmed_s > LONGEST_S:
            return None
        if not 0.0 < signal.excess <= self.floor(scope, signal.detector):
            return None
        return self._largest(scope, signal.detector)

    def _largest(self, scope: Scope, detector: Detector) -> Size | None:
        rows = [row for row in self.rows if not row.real and row.detector is detector and row.scope == scope]
        return max(rows, key=lambda row: row.excess, default=None)

    def silent(self, scopes: Collection[Scope], detector: Detector) -> list[dict[str, Any]]:
        """Return what is silent, and since which incident, as documents: one for each of *scopes* where anything is."""
        found = [(self.floor(scope, detector), self._largest(scope, detector)) for scope in scopes]
        return [
            {"scope": str(row.scope), "up_to": round(floor, 1), "incident": row.incident, "quieted": row.quieted}
            for floor, row in found
            if floor and row is not None
        ]

    def learnt(self, incident: int, detector: Detector) -> bool:
        """Tell whether all that *detector* said in an incident that was called false would be silent now."""
        rows = [row for row in self.rows if row.incident == incident and row.detector is detector]
        return bool(rows) and all(
            not row.real and not row.severe and row.excess <= self.floor(row.scope, detector) for row in rows
        )

    def judged(self, incident: int, rows: Sequence[Size]) -> Sizes:
        """Return this with what is now said of *incident*, in place of what was said before."""
        counted = [row for row in rows if row.excess > 0.0]
        return Sizes(_kept([*(row for row in self.rows if row.incident != incident), *counted]))

    def grown(self, incident: int, scope: Scope, detector: Detector, excess: float) -> Sizes:
        """Return this with the size that an incident came to after it was judged."""
        key = (incident, scope, detector)
        return Sizes(
            tuple(replace(r, excess=excess) if (r.incident, r.scope, r.detector) == key else r for r in self.rows)
        )

    def counted(self, size: Size) -> Sizes:
        """Return this with one more that *size* kept quiet."""
        return Sizes(tuple(replace(row, quieted=row.quieted + 1) if row == size else row for row in self.rows))

    def forgotten(self, rows: Collection[Size]) -> Sizes:
        """Return this without those of *rows* that were called false: somebody missed an incident."""
        return Sizes(tuple(row for row in self.rows if row.real or row not in rows))

    def to_json(self) -> list[list[Any]]:
        """Return the rows for the store."""
        return [
            [row.incident, str(row.scope), row.detector.value, row.real, round(row.excess, 1), row.severe, row.quieted]
            for row in self.rows
        ]

    @classmethod
    def from_json(cls, rows: Sequence[Sequence[Any]]) -> Sizes:
        """Read what `to_json` wrote."""
        return cls(
            tuple(Size(number, Scope.parse(scope), Detector(name), *more) for number, scope, name, *more in rows)
        )


def size_of(incident: Incident, claim: Claim) -> Size:
    """Return how large *claim* was; what isolations refused counts as the trial traffic says that it would have ended."""
    impact, worst = incident.impact, claim.worst
    succeeded_ratio = impact.would_have_succeeded_ratio
    kept = 0.0
    if worst.detector is Detector.ERRORS and succeeded_ratio is not None:
        kept = impact.refused * (1.0 - succeeded_ratio)
    severe = worst.severe or claim.signal.severe
    real = incident.verdict is Verdict.CONFIRMED
    return Size(incident.id, claim.signal.scope, worst.detector, real, worst.excess + kept, severe)


def silent_words(row: Mapping[str, Any]) -> str:
    """Return one row of `Sizes.silent` in words."""
    quieted = f", {row['quieted']} since" if row["quieted"] else ""
    return f"{row['scope']} up to {row['up_to']:.0f} requests beyond normal: as false as incident {row['incident']}{quieted}"


def _kept(rows: list[Size]) -> tuple[Size, ...]:
    while len(rows) > KEPT:
        rows.remove(next((row for row in rows if not row.real), rows[0]))
    return tuple(rows)
