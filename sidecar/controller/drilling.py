"""
Runs drills: the fault's beginning and end, what detection sees of it, and the grade of each stage.

Theory
    What a drill does to requests is counted as `ignored` everywhere (`/metrics`, rollups, tapes, objectives) and apart as
    what it was made to look like. Only detection is shown the second: `shown` adds it to the seconds that the bank and the
    attribution judge. Nothing is learnt from the route meanwhile. `surge` and `bad-config` touch no request at all: the
    arrivals, or refusals, that detection is shown are made up here.

Tables
    injecting → recovering    its time is over, or a person stopped it
    recovering → passed, failed    the loop has given everything back, or its target for that is over
    injecting, recovering → aborted    real trouble: an incident elsewhere, or failures that no drill made

What can go wrong
    Real trouble elsewhere: the drill ends, and its incident takes in nothing more that is not its own (`intake.py`).
    Real trouble on the drilled route while the drill's incident is open, or anywhere when that incident has grown wider: it
    would page nobody. So requests that fail without a drill, a wider scope when real trouble ends the drill, and an
    incident that outlives its drill for longer than its target, make it one like any other.
    Where the drill takes every request nothing can be seen; a share below 1 leaves some to tell.
    A restart: the drill is forgotten and its fault ends; its incident recovers, marked as it was, and watched like one that
    a drill has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from sidecar.config.policies import Compiled
from sidecar.controller.book import Book
from sidecar.controller.commands import Done, Practice, Rejected, StartDrill, StopDrill
from sidecar.controller.effects import SetFaults
from sidecar.controller.history import History
from sidecar.controller.intake import Intake
from sidecar.controller.readiness import Readiness
from sidecar.controller.tutor import Tutor
from sidecar.decide.lease import AUTOMATION, later
from sidecar.decide.policies import Response
from sidecar.decide.policy import CAUSES
from sidecar.decide.suspect import Version
from sidecar.detect.bank import Bank
from sidecar.facts import Fault, Mode, Moment, RouteSecond, Scope, Signal
from sidecar.incident import drill as drills
from sidecar.incident.drill import Drill, DrillKind, DrillState, Stage
from sidecar.incident.lifecycle import Incident
from sidecar.measure.histogram import merge
from sidecar.reasons import Reason

KEPT: Final = 20
WATCH_S: Final = 10.0
SURGE_FACTOR: Final = 6
REFUSED_RATIO: Final = 0.8
TROUBLE_FAILURES, TROUBLE_RATIO = 5, 0.2
LATENCY_S: Final = 2.0
_ON_REQUESTS: Final = (DrillKind.ERRORS, DrillKind.LATENCY, DrillKind.HANG)


class Drilling:
    """
    The drill that runs, and those that ran.

    Args:
        book, history, bank, intake, tutor: Of the engine.
    """

    def __init__(self, book: Book, history: History, bank: Bank, intake: Intake, tutor: Tutor) -> None:
        self._book = book
        self._history = history
        self._bank = bank
        self._intake = intake
        self._readiness = Readiness(book, history, bank, tutor)
        self._drills: list[Drill] = []
        self._version: Version | None = None
        self._told_forgotten: set[int] = set()
        self._receivers: frozenset[str] = frozenset()
        self._arrived: dict[str, Moment] = {}

    def __repr__(self) -> str:
        return f"<Drilling {self.running}>"

    @property
    def running(self) -> Drill | None:
        """Return the drill that is not over."""
        return self._drills[-1] if self._drills and self._drills[-1].running else None

    @property
    def route(self) -> str:
        """Return the route that is drilled; empty when none is."""
        return self.running.route if self.running is not None else ""

    def current(self) -> dict[str, Any] | None:
        """Return the drill that runs; None when none does."""
        return self.running.document() if self.running is not None else None

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many drills run, by (route, kind)."""
        return {(self.running.route, self.running.kind.value): 1} if self.running is not None else {}

    def documents(self) -> list[dict[str, Any]]:
        """Return the drills, the newest first."""
        return [drill.document() for drill in reversed(self._drills)]

    # --- commands -----------------------------------------------------------------------------------------------------

    def carry_out(self, command: Practice, compiled: Compiled, now: Moment) -> Done | Rejected:
        """Begin or end a drill, as a person asks."""
        return self.stop(command, now) if isinstance(command, StopDrill) else self.start(command, compiled, now)

    def start(self, command: StartDrill, compiled: Compiled, now: Moment) -> Done | Rejected:
        """Begin a drill, or say why not."""
        kind, route, respond = DrillKind(command.kind), command.route, compiled.respond
        breaker = _breaks(compiled, route)
        problem = self._readiness.problem(command, self.running, now, breaker=breaker)
        if problem is not None:
            return problem
        targets = drills.targets(
            kind,
            breaker=breaker,
            ramp_s=respond.ramp_hold_s * len(respond.ramp),
            clear_s=respond.clear_after_s,
            receivers=bool(compiled.receivers),
            isolates=Mode.ENFORCE is compiled.mode is compiled.detect.mode is respond.mode
            and respond.action is not Response.OBSERVE,
        )
        ends = later(now, command.for_s)
        drill = Drill(self._book.number_drill(), kind, route, command.share_ratio, command.author, now, ends, targets)
        self._drills = [*self._drills, drill][-KEPT:]
        self._receivers, self._arrived = frozenset(policy.name for policy in compiled.receivers), {}
        self._intake.drilled = route
        if kind in _ON_REQUESTS:
            fault = Fault(drill.id, route, kind.value, ends.at, command.share_ratio, LATENCY_S)
            self._book.emit(SetFaults((fault,)))
        elif kind is DrillKind.BAD_CONFIG:
            self._pretend_version(drill, now)
        body = {"id": drill.id, "kind": kind.value, "for_s": command.for_s, "share": command.share_ratio}
        self._book.event("drill.started", now, author=command.author, scope=Scope.route(route), body=body)
        return Done(drill.document())

    def _pretend_version(self, drill: Drill, now: Moment) -> None:
        number = self._book.versions[-1].number if self._book.versions else 1
        changes = ({"path": f"routes.{drill.route}.limit.rate", "old": None, "new": "1/s (a drill)"},)
        scope = frozenset((Scope.route(drill.route),))
        self._version = Version(number, number, drill.author, "drill", now, changes, scope)
        self._book.versions = [*self._book.versions, self._version]
        self._bank.version_applied(now.at, number)

    def stop(self, command: StopDrill, now: Moment) -> Done | Rejected:
        """End the fault at once; the drill is graded all the same."""
        drill = self.running
        if drill is None:
            return Rejected.conflict("no drill runs", "`sidecar drill errors --route R --for 60s` starts one")
        if drill.state is DrillState.INJECTING:
            drill = self._put(replace(drill, why=f"stopped by {command.author}"))
            self._fade(drill, command.author, now)
        return Done(self._drills[-1].document())

    # --- every second -------------------------------------------------------------------------------------------------

    def shown(self, rows: Sequence[RouteSecond]) -> tuple[RouteSecond, ...]:
        """Return the seconds as detection is shown them."""
        drill = self.running
        if drill is None:
            return tuple(rows)
        return tuple(self._shown(row, drill) if row.route == drill.route else row for row in rows)

    def _shown(self, row: RouteSecond, drill: Drill) -> RouteSecond:
        injecting = drill.state is DrillState.INJECTING
        if injecting and drill.kind is DrillKind.SURGE:
            return replace(row, arrivals=row.arrivals * SURGE_FACTOR)
        if injecting and drill.kind is DrillKind.BAD_CONFIG:
            count = round(row.arrivals * REFUSED_RATIO)
            return replace(
                row, refused={**row.refused, Reason.RATE_LIMITED.value: count}, cancelled=row.cancelled + count
            )
        if not row.drilled:
            return row
        good, bad = row.drilled.get("success", 0), row.drilled.get("failure", 0)
        return replace(
            row,
            successes=row.successes + good,
            failures=row.failures + bad,
            ignored=max(row.ignored - good - bad, 0),
            latency=merge(row.latency, row.drilled_latency),
        )

    def look(self, heard: Sequence[Signal], now: Moment) -> None:
        """
        End the drill when a detector that does not only observe claims trouble elsewhere; called before claims are sorted into incidents.

        Else the real trouble could join the drill's incident, which pages nobody.
        """
        drill = self.running
        if drill is None:
            return
        real = next((s for s in heard if s.detector in CAUSES and s.scope.name not in ("", drill.route)), None)
        if real is not None:
            self._abort(drill, f"{real.detector} on {real.scope} is real", now)

    def turn(self, now: Moment) -> None:
        """Note what the loop has done by now, end what is over, and give the grade."""
        drill = self.running
        if drill is None:
            self._watch_leftovers(now)
            return
        drill = self._put(self._noted(drill, now))
        trouble = self._trouble(drill, now)
        if trouble:
            self._abort(drill, trouble, now)
        elif drill.state is DrillState.INJECTING and now.at >= drill.ends.at:
            self._fade(drill, AUTOMATION, now)
        elif drill.state is DrillState.RECOVERING:
            self._grade(drill, now)

    def _noted(self, drill: Drill, now: Moment) -> Drill:
        number = drill.incident or next((incident.id for incident in self._own(drill)), None)
        done = self._done(drill, number)
        if Stage.DETECTED in done and self._receivers and self._receivers <= self._arrived.keys():
            told = max(self._arrived.values(), key=lambda moment: moment.at)
            drill = replace(drill, marks={Stage.TOLD: told, **drill.marks})
        marks = {**drill.marks, **{stage: now for stage in done if stage in drill.targets and stage not in drill.marks}}
        return replace(drill, incident=number, marks=marks)

    def arrived(self, receiver: str, number: int, now: Moment) -> None:
        """Note that *receiver* has taken a message about an incident."""
        incident = self._book.incidents.get(number)
        if self.running is not None and incident is not None and incident in self._own(self.running):
            self._arrived.setdefault(receiver, now)

    def _own(self, drill: Drill) -> list[Incident]:
        """Return the incidents that the loop opened for *drill*; of what only observes nobody is told, and nothing is done."""
        found = (i for i in self._book.incidents.values() if i.drill and not i.observed)
        return [incident for incident in found if incident.opened.at >= drill.started.at]

    def _done(self, drill: Drill, number: int | None) -> list[Stage]:
        rows = self._history.window((drill.route,), drill.started.at)
        done = [Stage.REFLEX] if any(row.trips for row in rows) else []
        if number is None:
            return done
        incident = self._book.incidents[number]
        done.append(Stage.DETECTED)
        if incident.scope == Scope.route(drill.route) or len(self._history.routes) == 1:
            done.append(Stage.ATTRIBUTED)
        if number in self._intake.evidence:
            done.append(Stage.EVIDENCE)
        if any(i.scope.contains(Scope.route(drill.route)) for i in self._book.live_of(incident)):
            done.append(Stage.ISOLATED)
        if incident.suspect is not None and incident.suspect.source == "drill":
            done.append(Stage.BLAMED)
        over = not any(own.running or self._book.live_of(own) for own in (incident, *self._own(drill)))
        over = over and self._history.breaker(drill.route) != "open"
        if drill.state is DrillState.RECOVERING and over:
            done.append(Stage.RECOVERED)
        return done

    def _trouble(self, drill: Drill, now: Moment) -> str:
        for incident in self._book.asking():
            if incident.id != drill.incident and not incident.drill and incident.opened.at >= drill.started.at:
                return f"incident {incident.id} on {incident.scope} is real"
        return self._failing(drill.route, drill.started.at, now)

    def _failing(self, route: str, since_at: float, now: Moment) -> str:
        """Say that a drilled route fails by itself; empty while it does not."""
        rows = self._history.window((route,), max(since_at, now.at - WATCH_S))
        failures, judged = sum(row.failures for row in rows), sum(row.judged for row in rows)
        if failures >= TROUBLE_FAILURES and failures >= TROUBLE_RATIO * judged:
            return f"{failures} of {judged} requests that no drill touched failed on {route}"
        return ""

    def _watch_leftovers(self, now: Moment) -> None:
        """
        Make the incident of a drill that is over one like any other, once there is more to it than the drill.

        A new controller knows no drill: what it finds marked is told once to be a leftover, and watched alike.
        """
        for incident in [each for each in self._book.running() if each.drill]:
            drill = next((d for d in reversed(self._drills) if d.started.at <= incident.opened.at), None)
            if drill is not None:
                name, over_at, patience_s = (
                    f"drill {drill.id}",
                    drill.faulted or drill.ends,
                    drill.targets[Stage.RECOVERED],
                )
            else:
                name, over_at, patience_s = "its drill", incident.opened, drills.LONGEST_S
                self._forgotten(incident, now)
            outlived = now.at - over_at.at > patience_s
            why = self._failing(incident.scope.name, over_at.at, now) or (f"it outlives {name}" if outlived else "")
            if why:
                self._make_real(incident, why, now)

    def _forgotten(self, incident: Incident, now: Moment) -> None:
        if incident.id not in self._told_forgotten:
            self._told_forgotten.add(incident.id)
            body = {"why": "the controller has started anew; the fault has ended"}
            self._book.event("drill.forgotten", now, incident=incident.id, scope=incident.scope, body=body)

    def _make_real(self, incident: Incident, why: str, now: Moment) -> None:
        self._book.put_incident(replace(incident, drill=False))
        self._book.event("incident.real", now, incident=incident.id, scope=incident.scope, body={"why": why})
        self._book.notify("escalated", incident.id, now)

    # --- ends -----------------------------------------------------------------------------------------------------------

    def _put(self, drill: Drill) -> Drill:
        self._drills[-1] = drill
        return drill

    def _fade(self, drill: Drill, by: str, now: Moment) -> None:
        """End the fault; the loop has to give everything back now."""
        self._clean(drill)
        self._put(replace(drill, state=DrillState.RECOVERING, faulted=now))
        body = {"id": drill.id, "why": drill.why or "its time is over"}
        self._book.event("drill.faded", now, author=by, scope=Scope.route(drill.route), body=body)

    def _clean(self, drill: Drill) -> None:
        if drill.kind in _ON_REQUESTS:
            self._book.emit(SetFaults(()))
        if self._version is not None:
            self._book.versions = [version for version in self._book.versions if version is not self._version]
            self._version = None

    def _abort(self, drill: Drill, why: str, now: Moment) -> None:
        self._clean(drill)
        incident = self._book.incidents.get(drill.incident or 0)
        own = self._failing(drill.route, drill.started.at, now)
        if incident is not None and incident.running and (own or incident.scope != Scope.route(drill.route)):
            self._make_real(incident, own or f"it reaches beyond {drill.route}, and {why}", now)
        self._finish(replace(drill, state=DrillState.ABORTED, faulted=drill.faulted or now, ended=now, why=why), now)

    def _grade(self, drill: Drill, now: Moment) -> None:
        assert drill.faulted is not None
        waited = now.at - drill.faulted.at
        over = Stage.RECOVERED in drill.marks or drill.incident is None or waited > drill.targets[Stage.RECOVERED]
        if over:
            met = all(drill.met(stage) for stage in drill.targets)
            deaf = sorted(self._receivers - self._arrived.keys()) if drill.incident is not None else []
            if deaf and not drill.why:
                drill = replace(drill, why=f"no message reached {', '.join(deaf)}: sidecar notify test {deaf[0]}")
            self._finish(replace(drill, state=DrillState.PASSED if met else DrillState.FAILED, ended=now), now)

    def _finish(self, drill: Drill, now: Moment) -> None:
        self._put(drill)
        self._intake.drilled = ""
        missed = [stage.value for stage in drill.targets if not drill.met(stage)]
        body = {"id": drill.id, "state": drill.state.value, "missed": missed, "why": drill.why}
        self._book.event("drill.ended", now, incident=drill.incident, scope=Scope.route(drill.route), body=body)


def _breaks(compiled: Compiled, route: str) -> bool:
    """Tell whether *route* has a breaker that enforces."""
    guards = compiled.guard.routes.get(route)
    breaker = guards.breaker if guards is not None else None
    return breaker is not None and Mode.ENFORCE is breaker.mode is compiled.guard.mode
