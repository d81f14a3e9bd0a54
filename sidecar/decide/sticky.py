"""
A verdict sticks: automation never re-applies what a person has undone.

Theory
    A fingerprint is (scope, detector). A person's release leaves a mark on each fingerprint of the incident, with the
    effect that was judged. The effect is the distance between value and baseline on the scale on which it is additive:
    the difference of logits for ratios, of logarithms for seconds and rates. The same fingerprint may isolate again only
    when the mark has run out, when its effect is `WORSE` times the judged one, or when it is severe in a new episode (an
    episode lasts as long as the alarm sounds without a pause). To be told costs less than to be acted upon: it is raised
    again from `LOUDER` on, three times the odds, or three times the seconds or the rate, that were judged. A new episode
    of what was called false is not the mark's to silence where requests are counted: its size decides (`size.py`), which
    knows what was confirmed and how long harm has been done.

Tables
    verdict          lasts    raises again        isolates again
    false_positive   24 h     when louder; in a   when worse, or severe in a new episode
                              new episode by size
    benign           10 min   when louder         the same; the detectors learn the shift meanwhile
    none             5 min    in a new episode    the same

What can go wrong
    The alarm never pauses: the episode that a person judged stays judged, also when it was severe; only a worse one counts.
    A ratio of 0 or 1 has no logit: values are kept within `_EDGE` of both ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.facts import Detector, Moment, Scope, Signal
from sidecar.incident.words import clock

WORSE: Final = 3.0
LOUDER: Final = math.log(3.0)
LASTS_S: Final[Mapping[str, float]] = {"false_positive": 24 * 3600.0, "benign": 600.0, "none": 300.0}
_EDGE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Mark:
    """
    What one release left on one fingerprint.

    Attributes:
        verdict: `false_positive`, `benign` or `none`.
        effect: Of the signal that was judged.
        severe: Whether it was severe.
        excess: Its size, requests beyond normal; 0 where none are counted.
        incident, author: Where it was said and by whom.
        unix, until_unix: When it was said and how long it counts.
        sounding: The alarm that was judged still sounds.
    """

    scope: Scope
    detector: Detector
    verdict: str
    effect: float
    severe: bool
    incident: int
    author: str
    unix: float
    until_unix: float
    sounding: bool = True
    excess: float = 0.0

    @property
    def quote(self) -> str:
        """Return the old verdict for a new incident."""
        said = "released" if self.verdict == "none" else f"called {self.verdict}"
        return f"{self.detector} on {self.scope} was {said} by {self.author} at {clock(self.unix)} (incident {self.incident})"


def effect(signal: Signal) -> float:
    """Return how far *signal* is from its baseline: logits for ratios, logarithms for seconds and rates; never negative."""
    if signal.unit == "ratio":
        return abs(_logit(signal.value) - _logit(signal.baseline))
    return abs(math.log(max(signal.value, _EDGE)) - math.log(max(signal.baseline, _EDGE)))


def _logit(ratio: float) -> float:
    inside = min(max(ratio, _EDGE), 1.0 - _EDGE)
    return math.log(inside / (1.0 - inside))


def make(signal: Signal, scope: Scope, verdict: str, incident: int, author: str, now: Moment) -> Mark:
    """Return the mark that a release leaves on *signal*."""
    until = now.unix + LASTS_S[verdict]
    found = effect(signal)
    return Mark(
        scope, signal.detector, verdict, found, signal.severe, incident, author, now.unix, until, excess=signal.excess
    )


def binds(mark: Mark, signal: Signal, now: Moment) -> bool:
    """Tell whether *mark* forbids automation to isolate because of *signal*."""
    if now.unix >= mark.until_unix and not mark.sounding:
        return False
    if effect(signal) >= WORSE * mark.effect and mark.effect > 0.0:
        return False
    return not signal.severe or (mark.severe and mark.sounding)


def silences(mark: Mark, signal: Signal, now: Moment) -> bool:
    """Tell whether *mark* forbids even to raise an incident because of *signal*; where its size decides, it does not."""
    if mark.verdict == "false_positive" and not mark.sounding and signal.excess > 0.0:
        return False
    louder = effect(signal) >= mark.effect + LOUDER
    return binds(mark, signal, now) and not louder and (mark.verdict != "none" or mark.sounding)


def to_json(mark: Mark) -> dict[str, Any]:
    """Return *mark* as a JSON object."""
    return {
        "scope": str(mark.scope),
        "detector": mark.detector.value,
        "verdict": mark.verdict,
        "effect": mark.effect,
        "severe": mark.severe,
        "incident": mark.incident,
        "author": mark.author,
        "unix": mark.unix,
        "until_unix": mark.until_unix,
        "sounding": mark.sounding,
        "excess": mark.excess,
    }


def from_json(row: Mapping[str, Any]) -> Mark:
    """Read what `to_json` wrote."""
    return Mark(**{**row, "scope": Scope.parse(row["scope"]), "detector": Detector(row["detector"])})
