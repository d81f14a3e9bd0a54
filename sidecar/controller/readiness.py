"""Whether a drill may begin: on a route with traffic, at a quiet moment, before detectors that can find it and nothing else."""

from __future__ import annotations

from typing import Final

from sidecar.controller.book import Book
from sidecar.controller.commands import Rejected, StartDrill
from sidecar.controller.history import History
from sidecar.decide.policy import CAUSES
from sidecar.detect.bank import Bank
from sidecar.facts import Detector, Mode, Moment, Scope
from sidecar.incident import drill as drills
from sidecar.incident.drill import Drill, DrillKind
from sidecar.incident.words import duration

RATE_S: Final = 10.0
_FOUND_BY: Final = {
    DrillKind.ERRORS: (Detector.ERRORS,),
    DrillKind.LATENCY: (Detector.ERRORS, Detector.LATENCY),
    DrillKind.HANG: (Detector.ERRORS, Detector.LATENCY),
    DrillKind.SURGE: (Detector.SURGE,),
    DrillKind.BAD_CONFIG: (Detector.REFUSALS,),
}  # what must be warm
_STANDING: Final = ("alarm", "recovering")
_MISTAKEN: Final = (*CAUSES, Detector.SURGE, Detector.SILENCE, Detector.REFUSALS)


class Readiness:
    """
    Judges the moment.

    Args:
        book, history, bank: Of the engine.
    """

    def __init__(self, book: Book, history: History, bank: Bank) -> None:
        self._book = book
        self._history = history
        self._bank = bank

    def __repr__(self) -> str:
        return f"<Readiness of {self._bank}>"

    def problem(self, command: StartDrill, running: Drill | None, now: Moment) -> Rejected | None:
        """Say why no drill may begin, and what to type; None when it may."""
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
        return self._not_ready(DrillKind(command.kind), command.route)

    def _not_ready(self, kind: DrillKind, route: str) -> Rejected | None:
        """Say which detector that must find it could not; None when all can."""
        controls = {control.name: control for control in self._bank.inventory() if control.route == route}
        standing = [d for (name, d), state in self._bank.states().items() if name == route and state in _STANDING]
        for detector in standing:
            if detector in _MISTAKEN:  # what it still says of before would be taken for the drill's detection
                problem = f"detect.{detector.value} on {route} has not cleared after what was before"
                return Rejected.conflict(problem, "drill again when it has been quiet for `detect.clear_after`")
        for detector in _FOUND_BY[kind]:
            control = controls[f"detect.{detector.value}"]
            if control.state == "cannot run":
                return Rejected.conflict(f"{control.name} cannot run: {control.why}", "drill again when it is warm")
            if control.state == Mode.OFF.value:
                return Rejected.conflict(
                    f"{control.name} is off: nobody would find it", "set detect.mode to observe or enforce"
                )
        return None
