"""
The whole loop as a function of (state, event, now): measure → detect → fuse → attribute → decide → tell.

Theory
    Frames only add up; nothing is decided when one arrives, except that a breaker's trip is told to the other workers
    at once. Once a second `tick` closes the second and runs the chain below, in one visible order. What it wants done
    are values (`effects.py`), the most urgent first. No clock, no I/O, no random number: the same inputs give the same
    effects, live, in a test and over a tape.

Tables: the chain of one second
    collect     workers' counters → one row a route              `collect.py`
    remember    the ring of seconds                              `history.py`
    detect      rows → signals                                   `detect/bank.py`
    fuse        signals → findings on their narrowest scope      `detect/fuse.py`, `attribute.py`
    sort        findings → incidents                             `intake.py`
    meter       trial traffic and cost of what is in force       `meter.py`
    act         cases → isolations                               `respond.py`, `decide/policy.py`
    give back   ramp, renew, ladder, budget                      `respond.py`
    end         quiet incidents, overrides that ran out
    tell        alerts, rollups, baselines                       `book.py`, `upkeep.py`

What can go wrong
    A second is late or missing: durations come from `now.at`, never from the number of ticks.
    The store is down: `durable=False`; decisions are the same, documents say `durable: false`.
    A restart: `Restored` brings incidents, leases, overrides, verdicts and baselines; what sounds is found again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sidecar.config.policies import Compiled
from sidecar.controller import restore
from sidecar.controller.book import Book
from sidecar.controller.collect import Collector, Totals
from sidecar.controller.commands import Asking, Confirm, Done, Practice, Quieting, Rejected, Release, Teaching
from sidecar.controller.documents import Documents
from sidecar.controller.drilling import Drilling
from sidecar.controller.effects import Effect, OpenBreaker, PutVersion
from sidecar.controller.episodes import Episodes
from sidecar.controller.findings import finding, would
from sidecar.controller.history import History
from sidecar.controller.intake import Intake
from sidecar.controller.meter import Meter
from sidecar.controller.places import Places
from sidecar.controller.respond import Responder
from sidecar.controller.restore import Restored
from sidecar.controller.silencing import Silencing
from sidecar.controller.tutor import Tutor
from sidecar.controller.upkeep import Upkeep
from sidecar.controller.verdicts import Desk
from sidecar.controller.views import MetricViews
from sidecar.decide import silence
from sidecar.decide.lease import AUTOMATION, IsolationState
from sidecar.decide.overrides import action_text
from sidecar.decide.policies import Response
from sidecar.decide.suspect import Version
from sidecar.detect import fuse
from sidecar.detect.bank import Bank
from sidecar.detect.series import Series
from sidecar.facts import Detector, Mode, Moment, RouteSecond, Scope, ScopeKind, Signal
from sidecar.link.frames import Decided, Frame, Sample, Tick, Trip

__all__ = ["Engine", "Restored"]


class Engine:
    """
    The deciding half of the controller.

    Args:
        compiled: The config in force.
        seed: The install's seed.
        now: The moment of the start.
        restored: What the store kept; None for a first start.
        boot: The id of this boot; empty trusts no stored monotonic moment.

    Attributes:
        tutor: What verdicts taught.
        rows: The last second, a row for each route.
        heard: What sounds this second, as the detectors say it: of routes, or of the service.
        claims: The same, each on its attributed scope.
    """

    def __init__(
        self, compiled: Compiled, *, seed: str, now: Moment, restored: Restored | None = None, boot: str = ""
    ) -> None:
        routes = _routes(compiled)
        self._compiled = compiled
        self._seed = seed
        self._version = 0
        self._at = now.at
        self._signals: Counter[tuple[str, str]] = Counter()
        self._sounding: frozenset[tuple[str, str]] = frozenset()
        self._trips: dict[str, float] = {}
        self.rows: tuple[RouteSecond, ...] = ()
        self.heard: tuple[Signal, ...] = ()
        self.claims: tuple[Signal, ...] = ()
        self._collector = Collector(now.at, routes)
        self._history = History(routes)
        self._series = Series()
        self._bank = Bank(compiled.detect, routes, now.at)
        self._book = Book(compiled.respond, boot)
        self._episodes = Episodes(self._book)
        self._intake = Intake(self._book, self._history, self._episodes)
        self._meter = Meter(self._book, self._history)
        self._responder = Responder(self._book, self._history, self._meter, _mode(compiled))
        self._places = Places(self._history)
        self._desk = Desk(self._book, self._history, self._bank, self._responder, self._places)
        self._documents = Documents(self._book, self._history, self._bank)
        self.tutor = Tutor(self._book, self._bank)
        self.tutor.listen(compiled.listen, compiled.detect.mode)
        self._upkeep = Upkeep(self._bank, self._history, self.tutor, now)
        self.drilling = Drilling(self._book, self._history, self._bank, self._intake, self.tutor)
        self._silencing = Silencing(self._book, self._places)
        if restored is not None:
            self.tutor.restore(restored.marks)
            restore.take_up(self._book, restored, now)
            self._bank.restore(restored.baselines, now.at)

    def __repr__(self) -> str:
        return f"<Engine {self._book}>"

    # --- events in ----------------------------------------------------------------------------------------------

    def observe(self, worker: int, frame: Frame, now: Moment) -> list[Effect]:
        """Take one frame of a worker."""
        match frame:
            case Tick():
                self._collector.take(frame, now.at)
                self._history.note_tick(frame)
            case Trip():
                self._tripped(worker, frame, now)
            case Sample():
                self._history.note_sample(frame)
            case Decided():
                self._history.note_decision(frame, now)
            case _:
                pass  # Hello and Ack are the link's and the config's
        return self._book.flush()

    def lost(self, worker: int, now: Moment) -> None:
        """Take the end of a worker's link."""
        self._collector.lost(worker, now.at)
        self._history.forget_worker(worker)

    def tick(self, now: Moment, *, durable: bool = True) -> list[Effect]:
        """
        Close one second and decide.

        Args:
            now: The end of the second.
            durable: The store has everything that was wanted before this call.
        """
        return self.second(self._collector.close_second(now.at), now, durable=durable)

    def second(self, seconds: Sequence[RouteSecond], now: Moment, *, durable: bool = True) -> list[Effect]:
        """
        Decide on one second of all routes, however it was counted: live, or on a tape.

        Args:
            seconds: A row for each route that had one; a known route without a row was idle.
            now: The end of the second.
            durable: As in `tick`.
        """
        self._at = now.at
        self._book.settled(stored=durable)
        self.rows = rows = self._history.extend(seconds, now.at)
        shown = self.drilling.shown(rows)
        self._series.add(shown, now.at)
        self._hold_still()
        self.heard = self.tutor.listened(self._bank.observe(shown, now.at), now)
        self.drilling.look(self.tutor.audible, now)
        self._count_signals(self.tutor.audible)
        findings = fuse.fuse(self.tutor.audible, self._series, self._compiled.detect, now.at)
        observed = fuse.fuse(self.tutor.observed, self._series, self._compiled.detect, now.at)
        self.claims = tuple(signal for found in findings for signal in found.signals)
        self._end_overrides(now)
        cases = self._intake.take([*map(finding, findings), *map(would, observed)], now)
        self._meter.take(_by_route(rows), _by_route(shown), now)
        for number, sorted_in in cases.items():
            found = [self._episodes.weighed(case) for case in sorted_in]
            self._responder.act(number, found, [self._episodes.mark_of(case, now) for case in found], now)
        self._responder.ramp(now)
        self._responder.renew(now)
        self._responder.climb(now)
        self._responder.budget(now)
        self._responder.close_quiet(now)
        for number, kind in self._intake.opened:
            self._book.notify(kind, number, now)
        self._silencing.turn(now)
        self.drilling.turn(now)
        self._upkeep.turn(self._book, rows, now)
        return self._book.flush()

    def command(self, command: Asking, now: Moment) -> tuple[Done | Rejected, list[Effect]]:
        """Do what a person asks, or say why not."""
        if isinstance(command, Quieting):
            return self._silencing.carry_out(command, now), self._book.flush()
        if isinstance(command, Practice):
            return self.drilling.carry_out(command, self._compiled, now), self._book.flush()
        if isinstance(command, Teaching):
            return self.tutor.carry_out(command, self._history.routes, now), self._book.flush()
        answer = self._desk.carry_out(command, now)
        if isinstance(answer, Done) and isinstance(command, Confirm | Release):
            self.tutor.judged(self._book.incidents[command.incident], now)
        return answer, self._book.flush()

    def configured(self, row: PutVersion, compiled: Compiled, touched: Collection[Scope], now: Moment) -> list[Effect]:
        """
        Live by *compiled* from now on: version *row*, which differs from the one before on the scopes *touched*.

        A newer config wins over older runtime state: it ends overrides and supersedes isolations on the same scopes.
        """
        routes = _routes(compiled)
        self._compiled = compiled
        self._book.policy = compiled.respond
        self._responder.mode = _mode(compiled)
        self._places.configured(compiled)
        self.tutor.listen(compiled.listen, compiled.detect.mode)
        self._collector.configured(routes)
        self._history.keep(routes)
        self._bank.apply(compiled.detect, routes, now.at)
        known = self._book.versions[-1].number if self._book.versions else 0
        self._version = self._intake.version = row.version
        if row.version != known:
            changes = tuple(dict(change) for change in row.changes)
            version = Version(row.version, known, row.author, row.source, now, changes, frozenset(touched))
            self._book.put_version(version)
            if known:
                self._bank.version_applied(now.at, row.version)
        self._supersede(row.version, frozenset(touched), now)
        return self._book.flush()

    def store_failed(self) -> None:
        """Learn at once, not with the next second, that what is not stored yet waits: documents say so."""
        self._book.settled(stored=False)

    def restate(self, now: Moment) -> list[Effect]:
        """Return what a new store must hold, after a damaged one was set aside."""
        self._book.restate()
        self.tutor.restate()
        return self.leaving(now)

    def leaving(self, now: Moment) -> list[Effect]:
        """Return what must be stored before this controller ends."""
        self._upkeep.save(self._book, now)
        self._meter.save(now)
        return self._book.flush()

    # --- stages -------------------------------------------------------------------------------------------------

    def _hold_still(self) -> None:
        """Let no baseline learn from a scope that is isolated or overridden."""
        scopes = [*(i.scope for i in self._book.live()), *self._book.overrides]
        drilled = {self.drilling.route} if self.drilling.route else set()
        self._bank.freeze(drilled.union(*(self._history.routes_of(scope) for scope in scopes)))

    def _count_signals(self, signals: Collection[Signal]) -> None:
        sounding = frozenset((s.scope.name or "service", s.detector.value) for s in signals)
        self._signals.update(sounding - self._sounding)
        self._sounding = sounding

    def _tripped(self, worker: int, trip: Trip, now: Moment) -> None:
        """Tell the other workers; a trip while its route has an incident is a flap of that one."""
        until_at = trip.at + trip.open_s
        self._book.emit(OpenBreaker(trip.route, until_at, trip.detail, worker))
        scope = Scope.route(trip.route)
        owners = [i for i in self._book.asking() if i.scope.contains(scope) and Detector.TRIP in i.detectors]
        number = owners[0].id if owners else None
        body = {"worker": worker, "rule": trip.rule, "detail": trip.detail, "open_s": trip.open_s}
        self._book.event("breaker.opened", now, incident=number, scope=scope, body=body)
        before = self._trips.get(trip.route)
        self._trips[trip.route] = trip.at
        if owners and before is not None and trip.at - before > 1.0:  # workers that trip together are one trip
            self._book.put_incident(replace(owners[0], flaps=owners[0].flaps + 1))

    def _end_overrides(self, now: Moment) -> None:
        for scope in [s for s, override in self._book.overrides.items() if override.end.at <= now.at]:
            ended = self._book.end_override(scope)
            body = {"why": "expired", "action": action_text(ended), "author": ended.author}
            self._book.event("override.ended", now, scope=scope, body=body)

    def _supersede(self, version: int, touched: frozenset[Scope], now: Moment) -> None:
        why = f"config version {version} changes the same scope"
        for scope in [scope for scope in self._book.overrides if _same(touched, scope)]:
            ended = self._book.end_override(scope)
            body = {"why": why, "action": action_text(ended), "version": version}
            self._book.event("override.ended", now, scope=scope, body=body)
        observing = self._responder.mode is not Mode.ENFORCE or self._compiled.respond.action is Response.OBSERVE
        for isolation in self._book.live():
            if _same(touched, isolation.scope):
                self._responder.end(isolation, IsolationState.SUPERSEDED, AUTOMATION, why, now)
            elif observing and not isolation.confirmed_by:
                why_not = f"since config version {version} automation only observes"
                self._responder.end(isolation, IsolationState.SUPERSEDED, AUTOMATION, why_not, now)

    # --- views --------------------------------------------------------------------------------------------------

    def status(self, now: Moment) -> dict[str, Any]:
        """Return health, one line about it, what to type, and the traffic."""
        return self._documents.status(now)

    def controls(self, now: Moment) -> list[dict[str, Any]]:  # noqa: ARG002  every view is asked with its moment
        """Return the inventory of every control."""
        return self.tutor.annotate(self._documents.controls(self._compiled))

    def routes(self, now: Moment) -> list[dict[str, Any]]:
        """Return every route with its traffic and guards."""
        return self._documents.routes(self.totals(), self._compiled, now)

    def series(self, route: str, window_s: float, step_s: float, now: Moment) -> dict[str, Any] | None:
        """Return a route's recent seconds; None for an unknown route."""
        return self._documents.series(route, window_s, step_s, now)

    def window(self, since_at: float, until_at: float) -> list[RouteSecond]:
        """Return the seconds of all routes with since < at ≤ until."""
        return self._history.window(self._history.routes, since_at, until_at)

    def isolations(self, now: Moment) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return the isolations in force."""
        return self._documents.isolations()

    def overrides(self, now: Moment) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return the overrides in force."""
        return self._documents.overrides()

    def silences(self) -> list[dict[str, Any]]:
        """Return the silences in force, the oldest first."""
        return [silence.document(each) for each in self._book.silences]

    def incidents(self, state: str | None, now: Moment) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return the incidents in memory, the newest first."""
        return self._documents.incidents(state)

    def incident(self, number: int, now: Moment) -> dict[str, Any] | None:  # noqa: ARG002
        """Return one incident; None when it is not in memory."""
        found = self._book.incidents.get(number)
        return None if found is None else self._book.document(found)

    def evidence(self, number: int) -> dict[str, Any] | None:
        """Return the frozen evidence of an incident of this controller's life."""
        return self._intake.evidence.get(number)

    def account(self, number: int) -> dict[str, Any] | None:
        """Return what an incident cost, while it is remembered."""
        found = self._book.accounts.get(number)
        return None if found is None else found.document()

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """Return why one request was refused, while it is remembered."""
        return self._documents.decision(decision_id)

    def totals(self) -> Totals:
        """Return the workers' counters since this controller began, as of the last second."""
        return self._collector.totals(self._at)

    def metric_views(self, now: Moment) -> MetricViews:  # noqa: ARG002
        """Return the engine's part of `/metrics`."""
        return replace(self._documents.metric_views(self._signals, self._version), drills=self.drilling.counts())


def _routes(compiled: Compiled) -> tuple[str, ...]:
    return tuple(rule.name for rule in compiled.proxy.routes)


def _mode(compiled: Compiled) -> Mode:
    """Return the least of the modes between a signal and an isolation."""
    modes = (compiled.mode, compiled.detect.mode, compiled.respond.mode)
    return next((mode for mode in (Mode.OFF, Mode.OBSERVE) if mode in modes), Mode.ENFORCE)


def _same(touched: Collection[Scope], scope: Scope) -> bool:
    """Tell whether a diff touches *scope* itself; for a client that is its route."""
    return scope in touched or (scope.kind is ScopeKind.CLIENT and Scope.route(scope.name) in touched)


def _by_route(rows: Sequence[RouteSecond]) -> dict[str, RouteSecond]:
    return {row.route: row for row in rows}
