"""
From cases to isolations, and back: start, ramp, renew, budget, ladder, end.

Each step is one method, called once a second in the order of `Engine.tick`. What they decide with is in `decide/`; here
it is applied to the book.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sidecar.controller.book import Book
from sidecar.controller.effects import ResetBreaker
from sidecar.controller.history import History
from sidecar.controller.meter import Meter
from sidecar.decide import budget, ladder, lease, policy, ramp, sticky
from sidecar.decide.lease import AUTOMATION, Isolation, IsolationState
from sidecar.decide.overrides import hands_off
from sidecar.decide.policies import LadderStep
from sidecar.decide.policy import Case, Why
from sidecar.decide.ramp import Move, Proof
from sidecar.decide.sticky import Mark
from sidecar.facts import Action, Detector, Mode, Moment, RouteSecond, Scope, ScopeKind
from sidecar.incident import lifecycle, tally
from sidecar.incident.lifecycle import Incident, IncidentState, Proposal, Resolution, Verdict
from sidecar.measure import histogram


class Responder:
    """
    Applies what automation may do.

    Args:
        book: What is so.
        history: The recent past.
        meter: What the trials say.
        mode: The least of all modes between a signal and an isolation.
    """

    def __init__(self, book: Book, history: History, meter: Meter, mode: Mode) -> None:
        self._book = book
        self._history = history
        self._meter = meter
        self._withheld: set[int] = set()  # incidents whose events say it already
        self._narrower: dict[str, tuple[Scope, float]] = {}  # isolations that are too wide: for whom, and since when
        self.mode = mode

    def __repr__(self) -> str:
        return f"<Responder {self.mode}, {self._meter}>"

    # --- start

    def act(self, number: int, cases: Sequence[Case], marks: Sequence[Mark | None], now: Moment) -> None:
        """
        Isolate for the first of *cases* that meets every condition of `decide/policy.py`; else say what is missing.

        Args:
            number: The incident.
            cases: Its findings of this second, its own scope's first; that one's reason is shown.
            marks: Of each case, the verdict that binds it.
            now: The end of the second.
        """
        for place, (case, mark) in enumerate(zip(cases, marks, strict=True)):
            incident = self._book.incidents[number]
            wide = next((i for i in self._book.live() if i.scope.contains(case.scope)), None)
            if (wide is not None and not self._narrows(wide, case, cases, now)) or self._fading(incident, case, now):
                continue
            why, proposal = self._ruled(case, mark, now, observed=incident.observed)
            if why is Why.ACT and proposal is not None:
                self.start(incident, proposal, case, AUTOMATION, now)
                if wide is not None:
                    self.end(wide, IsolationState.SUPERSEDED, AUTOMATION, f"only {case.scope} fails", now)
            elif place == 0:
                self._withhold(incident, case, why, proposal, now)

    def _narrows(self, wide: Isolation, case: Case, cases: Sequence[Case], now: Moment) -> bool:
        """Tell whether for some seconds all that is known has said that *wide* is bad for one client only."""
        causes = {it.scope for it in cases if any(signal.detector in policy.CAUSES for signal in it.signals)}
        if (
            wide.confirmed_by
            or wide.scope in causes
            or case.scope.kind is not ScopeKind.CLIENT
            or case.scope not in causes
        ):
            self._narrower.pop(wide.id, None)
            return False
        live = {isolation.id for isolation in self._book.live()}
        self._narrower = {key: kept for key, kept in self._narrower.items() if key in live}
        scope, since_at = self._narrower.get(wide.id, (case.scope, now.at))
        if scope != case.scope:
            since_at = now.at
        self._narrower[wide.id] = case.scope, since_at
        return now.at - since_at >= NARROWS_S

    def _ruled(self, case: Case, mark: Mark | None, now: Moment, *, observed: bool) -> tuple[Why, Proposal | None]:
        book = self._book
        load = self._history.load(now.at - budget.WINDOW_S, book.live())
        proposal = policy.propose(case.scope, case.signals, book.policy, load, budget.WINDOW_S)
        override = hands_off(book.overrides.values(), case.scope)
        mode = Mode.OBSERVE if observed else self.mode
        return policy.rule(case, book.policy, mode, mark=mark, override=override), proposal

    def _withhold(self, incident: Incident, case: Case, why: Why, proposal: Proposal | None, now: Moment) -> None:
        if why.would and incident.id not in self._withheld:
            self._withheld.add(incident.id)
            body = {"because": why.value, "would": proposal.action.value if proposal else "nothing"}
            self._book.event("isolation.withheld", now, incident=incident.id, scope=case.scope, body=body)
        told = replace(incident, ruling=why.value, proposal=proposal)
        if why.value != incident.ruling:
            self._book.put_incident(told)
        else:
            self._book.move_incident(told, now)

    def _fading(self, incident: Incident, case: Case, now: Moment) -> bool:
        """Tell whether nothing new has happened since the incident's last isolation ended."""
        ended = [i.ended.at for key in incident.isolations if (i := self._book.isolations.get(key)) and i.ended]
        if not ended:
            return False
        rows = self._history.window(self._history.routes_of(case.scope), max(ended))
        causes = tuple(signal for signal in case.signals if signal.detector in policy.CAUSES)
        return not policy.proven_again(causes, rows, case.scope, max(ended), now.at)

    def start(self, incident: Incident, proposal: Proposal, case: Case | None, owner: str, now: Moment) -> Isolation:
        """Put an isolation in force; narrower ones inside its scope are superseded by it."""
        book = self._book
        for inner in book.live():
            if proposal.scope.contains(inner.scope) and not (inner.confirmed_by and owner == AUTOMATION):
                self.end(inner, IsolationState.SUPERSEDED, owner, f"{proposal.scope} is isolated as a whole", now)
        incident = book.incidents.get(incident.id, incident)
        normal, broken, slow = self._ratios(incident, case, proposal.scope, now)
        isolation = Isolation(
            id=book.number_isolation(),
            incident=incident.id,
            scope=proposal.scope,
            action=proposal.action,
            base_ratio=proposal.share_ratio,
            owner=owner,
            reason=book.document(incident)["title"],
            started=now,
            end=lease.later(now, book.policy.lease_s),
            step_at=now.at,
            busy_at=now.at,
            slow_over_s=slow,
            normal_ratio=normal,
            broken_ratio=broken,
        )
        if owner != AUTOMATION:
            isolation = lease.confirm(isolation, owner)
        book.put_incident(
            replace(
                incident,
                isolations=(*incident.isolations, isolation.id),
                proposal=proposal,
                ruling="",
                isolated=incident.isolated or now,
                unanswered=incident.unanswered if incident.isolations else now,
            )
        )
        book.put_isolation(isolation)
        body = {"id": isolation.id, "action": isolation.action.value, "share": isolation.share_ratio,
                "lease_s": book.policy.lease_s, "reason": isolation.reason}  # fmt: skip
        book.event("isolation.started", now, author=owner, incident=incident.id, scope=isolation.scope, body=body)
        return isolation

    def _ratios(
        self, incident: Incident, case: Case | None, scope: Scope, now: Moment
    ) -> tuple[float, float, float | None]:
        """Return (normal, broken) ratios of bad trials, and the limit above which a trial is slow (latency only)."""
        signals = case.signals if case is not None else tuple(claim.signal for claim in incident.claims)
        errors = next((s for s in signals if s.detector in (Detector.ERRORS, Detector.TRIP)), None)
        normal, broken = (errors.baseline, max(errors.value, LEAST_BROKEN)) if errors else (NORMAL, UNKNOWN_BROKEN)
        latency = next((s for s in signals if s.detector is Detector.LATENCY and s.unit == "s"), None)
        if latency is None:
            return normal, broken, None
        limit = (max(latency.value, 1e-4) * max(latency.baseline, 1e-4)) ** 0.5
        routes = self._history.routes_of(scope)
        before = self._slow(self._history.window(routes, incident.onset.at - 60.0, incident.onset.at), scope, limit)
        during = self._slow(self._history.window(routes, max(incident.onset.at, now.at - 30.0)), scope, limit)
        return max(normal, min(before, 0.2)), max(broken if errors else 0.0, during, 0.3), limit

    @staticmethod
    def _slow(rows: Sequence[RouteSecond], scope: Scope, limit_s: float) -> float:
        if scope.kind is ScopeKind.CLIENT:
            total, _, slow = tally.requests_of(rows, scope)
        else:
            total = sum(histogram.total(row.latency) for row in rows)
            slow = sum(histogram.count_above(row.latency, limit_s) for row in rows)
        return slow / total if total else 0.01

    # --- ramp

    def ramp(self, now: Moment) -> None:
        """Give each isolated scope as much of its traffic back as its trials have earned."""
        for isolation in self._book.live():
            trials = self._meter.of(isolation)
            seen = trials.shown(isolation.step_at)
            base = max(isolation.base_ratio, isolation.floor_ratio)
            match ramp.move(isolation.share_ratio, base, seen, self._book.policy.ramp_hold_s, now.at):
                case Move.UP:
                    self._step(isolation, ramp.step_up(self._book.policy.ramp, isolation.share_ratio), "recovery", now)
                case Move.BACK:
                    back = ramp.step_back(self._book.policy.ramp, isolation.share_ratio, base)
                    self._step(isolation, back, "relapse", now)
                case Move.DONE:
                    self.end(isolation, IsolationState.RELEASED, AUTOMATION, "recovered on evidence", now)
                    self._close_breakers(isolation, now)
                    self.resolve(isolation.incident, Resolution.RECOVERED, now)
                case Move.STAY:
                    if seen.proof is Proof.SICK:
                        trials.begin()

    def _close_breakers(self, isolation: Isolation, now: Moment) -> None:
        """Close what an earlier trip still holds open: the trials were its probes, and one proof is enough (no second ramp)."""
        if isolation.scope.kind not in (ScopeKind.ROUTE, ScopeKind.SERVICE):
            return
        for route in self._history.routes_of(isolation.scope):
            if self._history.breaker(route) != "closed":
                self._book.emit(ResetBreaker(route))
                body = {"why": "recovered on evidence"}
                self._book.event("breaker.reset", now, incident=isolation.incident, scope=Scope.route(route), body=body)

    def _refuses(self, incident: Incident) -> bool:
        """Tell whether a breaker of an incident's routes is open: nothing is over while it refuses all."""
        tripped = Detector.TRIP in incident.detectors
        return tripped and any(self._history.breaker(r) == "open" for r in self._history.routes_of(incident.scope))

    def _step(self, isolation: Isolation, ratio: float | None, why: str, now: Moment) -> None:
        stepped = self._book.put_isolation(lease.step(isolation, ratio, now))
        trials = self._meter.of(isolation)
        body = {
            "id": isolation.id, "why": why, "from": isolation.share_ratio, "share": stepped.share_ratio,
            "trials": trials.test.trials, "failures": trials.test.failures,
        }  # fmt: skip
        self._book.event("isolation.ramped", now, incident=isolation.incident, scope=isolation.scope, body=body)
        trials.begin()
        incident = self._book.incidents[isolation.incident]
        recovering = any(i.state is IsolationState.RECOVERING for i in self._book.live_of(incident))
        if recovering and incident.state is not IncidentState.MITIGATED:
            self._book.put_incident(lifecycle.mitigate(incident, now))
            self._book.event("incident.mitigated", now, incident=incident.id, scope=incident.scope)
        elif not recovering and incident.state is IncidentState.MITIGATED:
            self._book.put_incident(lifecycle.relapse(incident))
            self._book.event("incident.relapsed", now, incident=incident.id, scope=incident.scope)

    # --- renew, expire

    def renew(self, now: Moment) -> None:
        """Renew the leases that are due, release what nobody asks for, and end those whose time is over."""
        for isolation in self._book.live():
            if isolation.end.at <= now.at:
                self.end(isolation, IsolationState.EXPIRED, AUTOMATION, "the lease was not renewed", now)
            elif lease.idle(isolation, self._book.policy.lease_s, now):
                self.end(isolation, IsolationState.RELEASED, AUTOMATION, "no request during a whole lease", now)
            elif lease.renewal_due(isolation, self._book.policy.lease_s, now):
                renewed = lease.renew(isolation, self._book.policy.lease_s, now)
                if renewed.end.at > isolation.end.at:
                    self._book.put_isolation(renewed)
                    body = {"id": isolation.id, "lease_s": self._book.policy.lease_s}
                    self._book.event(
                        "isolation.renewed", now, incident=isolation.incident, scope=isolation.scope, body=body
                    )

    def end(self, isolation: Isolation, state: IsolationState, by: str, why: str, now: Moment) -> None:
        """End one isolation."""
        self._book.put_isolation(lease.end(isolation, state, by, why, now))
        self._meter.forget(isolation)
        body = {"id": isolation.id, "state": state.value, "why": why}
        self._book.event(
            "isolation.ended", now, author=by, incident=isolation.incident, scope=isolation.scope, body=body
        )

    # --- budget

    def budget(self, now: Moment) -> None:
        """Raise what passes until automation refuses no more than its budget of all traffic."""
        live = self._book.live()
        if not live:
            return
        load = self._history.load(now.at - budget.WINDOW_S, live)
        live = [self._sampled(isolation, load.of(isolation.scope) / budget.WINDOW_S, now) for isolation in live]
        wanted = {i.scope: i.base_ratio if i.step_ratio is None else i.step_ratio for i in live}
        allowed = budget.raised(wanted, load, self._book.policy.max_refused_ratio)
        for isolation in live:
            needed = allowed[isolation.scope]
            floor = budget.settle(isolation.floor_ratio, needed if needed > wanted[isolation.scope] else 0.0)
            if floor != isolation.floor_ratio:
                self._floor(isolation, floor, now)

    def _sampled(self, isolation: Isolation, rate_per_s: float, now: Moment) -> Isolation:
        """Let the sample of an isolation follow its traffic: 1 % of a busy hour is nothing at night, and proves nothing."""
        if isolation.action is not Action.ISOLATE or rate_per_s <= 0:
            return isolation
        wanted, base = policy.sample_ratio(rate_per_s), isolation.base_ratio
        if base / RESAMPLE < wanted < base * RESAMPLE:
            return isolation
        sampled = self._book.put_isolation(replace(isolation, base_ratio=wanted))
        body = {"id": isolation.id, "from": base, "share": wanted, "rate_per_s": round(rate_per_s, 3)}
        self._book.event("isolation.sampled", now, incident=isolation.incident, scope=isolation.scope, body=body)
        return sampled

    def _floor(self, isolation: Isolation, floor: float, now: Moment) -> None:
        moved = self._book.put_isolation(replace(isolation, floor_ratio=floor))
        incident = self._book.incidents[isolation.incident]
        reached = moved.floor_ratio > 0 and moved.share_ratio > isolation.base_ratio
        body = {"id": isolation.id, "share": moved.share_ratio, "max_refused": self._book.policy.max_refused_ratio}
        kind = "isolation.budget_reached" if floor > 0 else "isolation.budget_met"
        self._book.event(kind, now, incident=incident.id, scope=isolation.scope, body=body)
        if reached and not incident.budget_reached:
            self._book.put_incident(replace(incident, budget_reached=True))
            if incident.isolated is not None and incident.isolated.at < now.at:
                self._book.notify("escalated", incident.id, now, urgent=True)

    # --- ladder

    def climb(self, now: Moment) -> None:
        """Climb the unattended ladder, and withdraw acknowledgements that have gone quiet."""
        for incident in self._book.asking():
            spoke = incident.spoke
            if spoke is not None and incident.verdict is Verdict.PENDING and ladder.gone_quiet(spoke.at, now.at):
                self._book.put_incident(lifecycle.withdraw(incident, now))
                body = {"quiet_s": ladder.QUIET_S, "by": incident.acknowledged_by}
                self._book.event(
                    "incident.acknowledgement_withdrawn", now, incident=incident.id, scope=incident.scope, body=body
                )
                self._book.notify("escalated", incident.id, now)
                continue
            rung = self._book.climb(incident)
            if rung is not None and ladder.due(rung[1], incident.unanswered.at, now.at):
                self._rung(replace(incident, rungs=rung[0] + 1), rung[1].do, now)

    def _rung(self, incident: Incident, do: LadderStep, now: Moment) -> None:
        self._book.put_incident(incident)
        self._book.event(f"ladder.{do}", now, incident=incident.id, scope=incident.scope, body={"rung": incident.rungs})
        live = self._book.live_of(incident)
        match do:
            case LadderStep.ESCALATE:
                self._book.notify("escalated", incident.id, now, urgent=True if live else None)
            case LadderStep.PROBE:
                for isolation in live:
                    if isolation.step_ratio is None and isolation.share_ratio < 1.0:
                        self._step(isolation, ramp.step_up(self._book.policy.ramp, isolation.share_ratio), "probe", now)
            case LadderStep.HOLD:
                for isolation in live:
                    self._book.put_isolation(replace(isolation, holding=True))
            case LadderStep.RELEASE:
                self._let_go(incident, live, now)

    def _let_go(self, incident: Incident, live: Sequence[Isolation], now: Moment) -> None:
        """Release what nobody answered for; the incident stays open as long as it sounds, and is not isolated again."""
        for isolation in live:
            self.end(isolation, IsolationState.RELEASED, AUTOMATION, "nobody answered; the ladder says release", now)
        self.leave_marks(incident, "none", AUTOMATION, now)
        self._book.notify("released", incident.id, now, urgent=True)

    def leave_marks(self, incident: Incident, verdict: str, author: str, now: Moment) -> None:
        """Leave a mark on every fingerprint of *incident*; it replaces an older one there."""
        made = [
            replace(
                sticky.make(claim.worst, claim.signal.scope, verdict, incident.id, author, now), sounding=claim.sounding
            )
            for claim in incident.claims
        ]
        keys = {(mark.scope, mark.detector) for mark in made}
        kept = [mark for mark in self._book.marks if (mark.scope, mark.detector) not in keys]
        self._book.put_marks([*kept, *made])

    # --- the end

    def close_quiet(self, now: Moment) -> None:
        """Resolve the incidents that have no isolation and have been quiet for `clear_after_s`."""
        for incident in self._book.running():
            if self._book.live_of(incident) or incident.quiet_s(now) < self._book.policy.clear_after_s:
                continue
            if self._refuses(incident):
                continue
            self.resolve(incident.id, self._ending(incident), now)

    def _ending(self, incident: Incident) -> Resolution:
        """Return how an incident ended that is quiet without an isolation: as its last one of this flap, or by itself."""
        last = self._book.isolations.get(incident.isolations[-1]) if incident.isolations else None
        if last is None or last.ended is None or last.ended.at < incident.unanswered.at:
            return Resolution.RECOVERED
        return _ENDINGS[last.state]

    def resolve(self, number: int, resolution: Resolution, now: Moment) -> None:
        """Resolve a running incident that has no isolation any more, and tell people."""
        incident = self._book.incidents[number]
        if not incident.running or self._book.live_of(incident):
            return
        self._book.put_incident(lifecycle.resolve(incident, resolution, now))
        impact = incident.impact
        body = {
            "resolution": resolution.value,
            "failed": impact.failed,
            "refused": impact.refused,
            "seconds": impact.seconds,
        }
        self._book.event("incident.resolved", now, incident=number, scope=incident.scope, body=body)
        self._book.notify("resolved", number, now)


NARROWS_S: Final = 5.0  # so long only one client fails of what is isolated as a whole
RESAMPLE: Final = 2.0  # the sample is set anew when it should be half or twice as large
NORMAL: Final = 0.001  # bad trials where no error detector says what is normal
UNKNOWN_BROKEN: Final = 0.5  # and how bad it is when a person isolates without one
LEAST_BROKEN: Final = 0.05
_ENDINGS: Final = {
    IsolationState.RELEASED: Resolution.RELEASED,
    IsolationState.SUPERSEDED: Resolution.SUPERSEDED,
    IsolationState.EXPIRED: Resolution.EXPIRED,
}
