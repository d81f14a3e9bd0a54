"""Whether a drill may begin: on a route with traffic, at a quiet moment, before detectors that can find it and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sidecar.controller.book import Book
from sidecar.controller.commands import Rejected, StartDrill
from sidecar.controller.history import History
from sidecar.controller.tutor import Tutor
from sidecar.decide.policy import CAUSES
from sidecar.detect.bank import Bank
from sidecar.facts import Detector, Mode, Moment, Scope
from sidecar.incident import drill as drills
from sidecar.incident.drill import Drill, DrillKind
from sidecar.incident.words import duration

RATE_S: Final = 10.0
_FOUND_BY: Final = {
    DrillKind.ERRORS: (Detector.ERRORS, Detector.TRIP),
    DrillKind.LATENCY: (Detector.LATENCY,),
    DrillKind.HANG: (Detector.ERRORS, Detector.LATENCY),
    DrillKind.SURGE: (Detector.SURGE,),
    DrillKind.BAD_CONFIG: (Detector.REFUSALS,),
}  # one of them must enforce, and those that do must be warm
_STANDING: Final = ("alarm", "recovering")
_MISTAKEN: Final = (*CAUSES, Detector.SURGE, Detector.SILENCE, Detector.REFUSALS)


class Readiness:
    """
    Judges the moment.

    Args:
        book, history, bank, tutor: Of the engine.
    """

    def __init__(self, book: Book, history: History, bank: Bank, tutor: Tutor) -> None:
        self._book = book
        self._history = history
        self._bank = bank
        self._tutor = tutor

    def __repr__(self) -> str:
        return f"<Readiness of {self._bank}>"

    def problem(self, command: StartDrill, running: Drill | None, now: Moment, *, breaker: bool) -> Rejected | None:
        """Say why no drill may begin, and what to type; None when it may. *breaker*: the route has one, and it enforces."""
        if command.route not in self._history.routes:
            known = ", ".join(self._history.routes)
            return Rejected.not_found(f"there is no route '{command.route}'", f"the routes are {known}")
        if not drills.SHORTEST_S <= command.for_s <= drills.LONGEST_S:
            wanted = f"use --for {duration(drills.SHORTEST_S)} to {duration(drills.LONGEST_S)}, such as 60s"
            return Rejected.invalid(f"a drill of {duration(command.for_s)} is not possible", wanted)
        if running is not None:
            return Rejected.conflict(f"drill {running.id} is {running.state}", "`sidecar drill stop` ends it")
        if asking := self._book.asking():
            return Rejected.conflict(f"incident {asking[0].id} is open", "drill when nothing else is wrong")
        held = next(
            (o.scope for o in self._book.overrides.values() if o.scope.contains(Scope.route(command.route))), None
        )
        if held is not None:
            return Rejected.conflict(
                f"an override on {held} decides about {command.route}", f"sidecar override clear {held}"
            )
        rows = self._history.window((command.route,), now.at - RATE_S)
        rate = sum(row.arrivals for row in rows) / RATE_S
        if rate < drills.LEAST_PER_S:
            least = f"at least {drills.LEAST_PER_S:g}/s are needed: send some traffic first"
            return Rejected.conflict(f"{command.route} gets {rate:.2g} requests a second", least)
        found_by = [d for d in _FOUND_BY[DrillKind(command.kind)] if breaker or d is not Detector.TRIP]
        return self._not_ready(found_by, command.route)

    def _not_ready(self, found_by: Sequence[Detector], route: str) -> Rejected | None:
        """Say which detector that must find it could not; None when all can that are listened to."""
        listened = [d for d in found_by if self._enforces(route, d)]
        if not listened:  # it would be found, if at all, by those of whom nobody hears
            whys, hints = zip(*(self._tutor.deaf((route, d)) for d in found_by), strict=True)
            return Rejected.conflict(f"nobody would be told: {' and '.join(whys)}", hints[0])
        controls = {control.name: control for control in self._bank.inventory() if control.route == route}
        standing = [d for (name, d), state in self._bank.states().items() if name == route and state in _STANDING]
        for detector in standing:
            if detector in _MISTAKEN and self._enforces(
                route, detector
            ):  # what it still says of before would be taken for the drill's detection
                problem = f"detect.{detector.value} on {route} has not cleared after what was before"
                return Rejected.conflict(problem, "drill again when it has been quiet for `detect.clear_after`")
        for detector in listened:
            control = controls[f"detect.{detector.value}"]
            if control.state == "cannot run":
                return Rejected.conflict(f"{control.name} cannot run: {control.why}", "drill again when it is warm")
            if control.state == Mode.OFF.value:
                return Rejected.conflict(
                    f"{control.name} is off: nobody would find it", "set detect.mode to observe or enforce"
                )
        return None

    def _enforces(self, route: str, detector: Detector) -> bool:
        return self._tutor.mode_of((route, detector)) is Mode.ENFORCE
