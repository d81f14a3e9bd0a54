"""
Alarms that have not paused, and which of them a person's verdict keeps from being told.

Theory
    An episode is one (detector, scope) from its first second in a finding to its last. Its size is the largest that its signal
    claimed: a detector measures from its own onset, which may move while an alarm fades. A finding is silent while every
    signal of it is: because it is no larger than what was called false (`size.py`), or by a mark (`sticky.py`) while the
    alarm that was judged sounds, and where no requests are counted. The first silent second of an episode is an event, so that nothing is kept from anybody in secret.

What can go wrong
    A verdict comes while the alarm sounds: when that ends, its mark and its size are what it came to by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from sidecar.controller.book import Book
from sidecar.decide import sticky
from sidecar.decide.policy import Case
from sidecar.decide.size import Size
from sidecar.facts import Detector, Moment, Scope, Signal

Key = tuple[Detector, Scope]
GROWTH: Final = 0.5  # requests: less is the baseline's rounding


@dataclass(frozen=True, slots=True)
class Episode:
    """One alarm that has not paused: when it began, the largest size that it came to, and when it last did harm."""

    began_at: float
    excess: float
    harmed_at: float

    def heard(self, signal: Signal, at: float) -> Episode:
        """Return this after one more second, of which *signal* was said."""
        if signal.excess > self.excess + GROWTH:
            return Episode(self.began_at, signal.excess, at)
        return replace(self, harmed_at=at) if signal.ongoing else self


class Episodes:
    """
    Follows the alarms, and answers what verdicts say of them.

    Args:
        book: Its marks and sizes.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._sounding: dict[Key, Episode] = {}
        self._told: set[Key] = set()

    def __repr__(self) -> str:
        return f"<Episodes {len(self._sounding)} sounding, {len(self._told)} silent>"

    def follow(self, cases: Iterable[Case], now: Moment) -> None:
        """Take what sounds in this second."""
        sounding: dict[Key, Episode] = {}
        for key, signal in (((s.detector, case.scope), s) for case in cases for s in case.signals):
            known = sounding.get(key) or self._sounding.get(key)
            sounding[key] = known.heard(signal, now.at) if known else Episode(now.at, signal.excess, now.at)
        ended = {key: episode for key, episode in self._sounding.items() if key not in sounding}
        self._sounding = sounding
        self._told &= sounding.keys()
        marks = [self._followed(mark, ended) for mark in self._book.marks]
        kept = [mark for mark in marks if mark.sounding or now.unix < mark.until_unix]
        if kept != self._book.marks:
            self._book.put_marks(kept)

    def _followed(self, mark: sticky.Mark, ended: Mapping[Key, Episode]) -> sticky.Mark:
        """Return *mark* with whether its alarm still sounds; once that has ended, with the size that it came to."""
        key = (mark.detector, mark.scope)
        if not mark.sounding or key in self._sounding:
            return mark
        size = ended[key].excess if key in ended else 0.0
        if mark.verdict == "false_positive" and size > mark.excess:
            self._book.put_sizes(self._book.sizes.grown(mark.incident, mark.scope, mark.detector, size))
        return replace(mark, sounding=False, excess=max(mark.excess, size))

    def began_at(self, case: Case) -> float:
        """Return when the youngest alarm of *case* began."""
        found = (self._sounding.get((signal.detector, case.scope)) for signal in case.signals)
        return max(episode.began_at if episode else 0.0 for episode in found)

    def mark_of(self, case: Case, now: Moment) -> sticky.Mark | None:
        """Return the verdict that forbids automation to isolate for *case*: one that binds all its signals."""
        bound = [self._binding(signal, case.scope, now) for signal in case.signals]
        return bound[0] if bound and all(bound) else None

    def _binding(self, signal: Signal, scope: Scope, now: Moment) -> sticky.Mark | None:
        marks = (m for m in self._book.marks if m.scope == scope and m.detector is signal.detector)
        return next((mark for mark in marks if sticky.binds(mark, signal, now)), None)

    def quote(self, case: Case, now: Moment) -> str:
        """Return the last verdict on the same, as a new incident quotes it; empty without one."""
        keys = {(signal.detector, case.scope) for signal in case.signals}
        marks = [m for m in self._book.marks if (m.detector, m.scope) in keys and now.unix < m.until_unix]
        return marks[-1].quote if marks else ""

    def weighed(self, case: Case) -> Case:
        """Return *case* without the materiality of what is no larger than what a person called false."""
        small = [self._small(self._grown(signal, case.scope), case.scope) is not None for signal in case.signals]
        if not any(small):
            return case
        pairs = zip(case.signals, small, strict=True)
        return replace(case, signals=tuple(replace(s, material=s.material and not is_small) for s, is_small in pairs))

    def silenced(self, case: Case, now: Moment) -> bool:
        """Tell whether nobody is to be told of *case*; once an episode an event says why."""
        grown = [self._grown(signal, case.scope) for signal in case.signals]
        found = [self._silent(signal, case.scope, now) for signal in grown]
        if not found or not all(found):
            return False
        for signal, why in zip(grown, found, strict=True):
            key = (signal.detector, case.scope)
            if why is None or key in self._told:
                continue
            self._told.add(key)
            body = {"detector": signal.detector.value, "because": _because(why, signal)}
            self._book.event("signal.silenced", now, incident=why.incident, scope=case.scope, body=body)
            if isinstance(why, Size):
                self._book.put_sizes(self._book.sizes.counted(why))
        return True

    def _silent(self, signal: Signal, scope: Scope, now: Moment) -> sticky.Mark | Size | None:
        mark = self._binding(signal, scope, now)
        if mark is not None and sticky.silences(mark, signal, now):
            return mark
        return self._small(signal, scope)

    def _small(self, signal: Signal, scope: Scope) -> Size | None:
        harmed_s = self._sounding[signal.detector, scope].harmed_at - signal.since_at
        return self._book.sizes.silences(signal, scope, harmed_s)

    def _grown(self, signal: Signal, scope: Scope) -> Signal:
        """Return *signal* with the size that its episode came to."""
        return replace(signal, excess=self._sounding[signal.detector, scope].excess)


def _because(why: sticky.Mark | Size, signal: Signal) -> str:
    if isinstance(why, sticky.Mark):
        return why.quote
    sizes = f"{why.excess:.0f} requests beyond normal then, {signal.excess:.0f} now"
    return f"{why.detector} on {why.scope} was called false in incident {why.incident}: {sizes}"
