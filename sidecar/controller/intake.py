"""
From findings to incidents: one cause, one number.

Theory
    A finding belongs, in this order, to the running incident on its scope; to one whose scope contains it, of an akin
    cause; to an akin one inside its scope, which then widens (the oldest takes the others in); to an akin one that ended
    less than `FOLD_S` ago on the same scope, which is reopened as a flap; else it opens a new one. Akin: both about the
    health of the API, both about what we refuse, or both about how much arrives; a client that fails while a limit is
    too low is another cause. What a drill does is never akin to what it does not, and opens an incident of its own. A
    finding that a person's verdict silences, (`episodes.py`) is heard by a running incident and does none of the rest; the events say so once.

What can go wrong
    The attributed scope wavers while counts are small: a young incident widens at once, an older one only when the wider
    scope has stood for `WIDEN_S`, or is severe.
    An alarm outlives its cause, because scores fade slowly: an ended incident is reopened only by an alarm that began
    after its end, or by one that is material again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from sidecar.controller.book import Book
from sidecar.controller.effects import PutEvidence, Rollback
from sidecar.controller.episodes import Episodes
from sidecar.controller.findings import Finding
from sidecar.controller.history import History
from sidecar.decide.policies import RollbackMode
from sidecar.decide.policy import Case, proven_again
from sidecar.decide.suspect import first_suspect
from sidecar.facts import Detector, Moment, RouteSecond, Scope, ScopeKind
from sidecar.incident import evidence, lifecycle, tally
from sidecar.incident.account import LEAD_S
from sidecar.incident.lifecycle import FOLD_S, IDLE_S, Impact, Incident, Resolution, Verdict

YOUNG_S: Final = 30.0
WIDEN_S: Final = 5.0

_WIDTH: Final = (ScopeKind.SERVICE, ScopeKind.ROUTE, ScopeKind.ENDPOINT, ScopeKind.CLIENT)  # a wide one takes others in
_KINDS: Final = (  # of causes
    frozenset({Detector.ERRORS, Detector.LATENCY, Detector.TRIP}),
    frozenset({Detector.REFUSALS}),
    frozenset({Detector.SURGE, Detector.SILENCE}),
    frozenset({Detector.BURN, Detector.DRIFT}),
)


class Intake:
    """
    Opens, joins, widens and reopens incidents.

    Attributes:
        drilled: The route that a drill is run on; what is opened about it is marked.
        opened: Incidents that were opened or reopened this second; people are told once it is known what was done.
    """

    def __init__(self, book: Book, history: History, episodes: Episodes) -> None:
        self._book = book
        self._history = history
        self._episodes = episodes
        self._wider: dict[tuple[int, Scope], float] = {}
        self.opened: list[tuple[int, str]] = []
        self.version = 0
        self.drilled = ""
        self.evidence: dict[int, dict[str, object]] = {}

    def __repr__(self) -> str:
        return f"<Intake {self._episodes!r}>"

    def take(self, findings: Sequence[Finding], now: Moment) -> dict[int, list[Case]]:
        """Sort this second's findings into incidents; return each running one's cases, its own scope's first."""
        self.opened.clear()
        self._episodes.follow((found.case for found in findings), now)
        placed: dict[int, list[Finding]] = {}
        for finding in sorted(findings, key=lambda f: (_WIDTH.index(f.case.scope.kind), not f.case.severe)):
            number = self._place(finding, now)
            if number is not None:
                placed.setdefault(number, []).append(finding)
        for incident in self._book.running():
            self._hear(incident, placed.get(incident.id, ()), now)
        return {n: _ordered(self._book.incidents[n].scope, found) for n, found in placed.items()}

    # --- where a finding belongs

    def _place(self, finding: Finding, now: Moment) -> int | None:
        scope = finding.case.scope
        running = [i for i in self._book.running() if i.observed is finding.observed]
        around = [i for i in running if i.scope == scope or (i.scope.contains(scope) and _akin(i, finding.case))]
        if around:
            return max(around, key=lambda i: (i.scope == scope, -i.id)).id
        if _faded(finding.case) or self._episodes.silenced(finding.case, now):
            return None
        drilled = self._drilled(scope)
        inside = [
            i
            for i in running
            if _takes_in(scope, i, now)
            and i.verdict is Verdict.PENDING
            and i.drill is drilled
            and _akin(i, finding.case)
        ]
        if inside:
            return self._widen(inside, finding.case, now)
        ended = None if drilled else self._ended_lately(finding, now)
        if ended is not None and not self._is_new(ended, finding.case, now):
            return None
        if ended is not None and ended.scope == scope and not ended.drill:
            return self._reopen(ended, finding, now)
        return self._open(finding, now)

    def _drilled(self, scope: Scope) -> bool:
        """Tell whether what is found on *scope* now is the drill's doing."""
        return bool(self.drilled) and (scope.name == self.drilled or scope.contains(Scope.route(self.drilled)))

    def _widen(self, inside: Sequence[Incident], case: Case, now: Moment) -> int | None:
        oldest = inside[0]
        since = self._wider.setdefault((oldest.id, case.scope), now.at)
        young = now.at - oldest.opened.at < YOUNG_S
        if not (young or case.severe or now.at - since >= WIDEN_S):
            return oldest.id
        self._wider.pop((oldest.id, case.scope))
        body = {"from": str(oldest.scope), "to": str(case.scope)}
        self._book.event("incident.widened", now, incident=oldest.id, scope=case.scope, body=body)
        self._book.put_incident(lifecycle.widen(oldest, case.scope))
        self.opened.append((oldest.id, "escalated"))  # more is affected than people were told
        for child in inside[1:]:
            self._absorb(child, oldest, now)
        return oldest.id

    def _absorb(self, child: Incident, parent: Incident, now: Moment) -> None:
        for isolation in self._book.live_of(child):  # they go on under the parent, whose recovery they now are
            self._book.put_isolation(replace(isolation, incident=parent.id))
            held = self._book.incidents[parent.id]
            self._book.put_incident(replace(held, isolations=(*held.isolations, isolation.id)))
        left = tuple(key for key in child.isolations if not self._book.isolations[key].live)
        self._book.put_incident(lifecycle.resolve(replace(child, isolations=left), Resolution.SUPERSEDED, now))
        body = {"by": parent.id}
        self._book.event("incident.absorbed", now, incident=child.id, scope=child.scope, body=body)

    def _ended_lately(self, finding: Finding, now: Moment) -> Incident | None:
        case = finding.case
        for incident in reversed(self._book.incidents.values()):
            ended = incident.resolved
            if (
                ended is None
                or incident.running
                or now.at - ended.at > FOLD_S
                or incident.observed is not finding.observed
            ):
                continue
            related = incident.scope.contains(case.scope) or case.scope.contains(incident.scope)
            if related and _akin(incident, case) and incident.verdict in (Verdict.PENDING, Verdict.CONFIRMED):
                return incident
        return None

    def _is_new(self, ended: Incident, case: Case, now: Moment) -> bool:
        """Tell whether *case* is more than the fading alarm of an ended incident."""
        assert ended.resolved is not None
        rows = self._history.window(self._history.routes_of(case.scope), ended.resolved.at)
        again = proven_again(case.signals, rows, case.scope, ended.resolved.at, now.at)
        return again or (self._episodes.began_at(case) > ended.resolved.at and case.tripped)

    def _reopen(self, ended: Incident, finding: Finding, now: Moment) -> int:
        scope = ended.scope
        incident = lifecycle.reopen(ended, now)
        self._book.put_incident(replace(incident, quote=self._episodes.quote(finding.case, now) or incident.quote))
        body = {"flaps": incident.flaps}
        self._book.event("incident.reopened", now, incident=ended.id, scope=scope, body=body)
        heard = {signal.detector for signal in finding.case.signals}
        self._suspect(self._book.incidents[ended.id], heard, min(s.since_at for s in finding.case.signals), now)
        self.opened.append((ended.id, "escalated" if finding.case.severe else "updated"))
        return ended.id

    # --- a new one

    def _open(self, finding: Finding, now: Moment) -> int:
        case, book = finding.case, self._book
        onset_at = min(signal.since_at for signal in case.signals)
        onset = Moment(onset_at, now.unix - (now.at - onset_at))
        incident = Incident(book.number_incident(), case.scope, now, onset, now, affected=finding.affected())
        incident = replace(incident, drill=self._drilled(case.scope), observed=finding.observed)
        incident = lifecycle.hear(incident, case.signals, now)
        quote = self._episodes.quote(case, now)
        incident = replace(incident, quote=quote, impact=self._impact_since(case.scope, onset_at))
        book.put_incident(incident)
        self._begin_account(incident, now)
        body = {
            "title": book.document(incident)["title"],
            "severity": incident.severity.value,
            "detectors": [d.value for d in incident.detectors],
        }
        book.event("incident.opened", now, incident=incident.id, scope=incident.scope, body=body)
        if quote:
            book.event("verdict.quoted", now, incident=incident.id, scope=incident.scope, body={"quote": quote})
        self._freeze(incident, now)
        self._suspect(incident, incident.detectors, onset_at, now)
        self.opened.append((incident.id, "opened"))
        return incident.id

    def _impact_since(self, scope: Scope, onset_at: float) -> Impact:
        rows = self._history.window(self._history.routes_of(scope), onset_at)
        failed = tally.requests_of(rows, scope)[1]
        bad = {row.at for row in rows if tally.requests_of((row,), scope)[1]}
        # The present second is counted with every running incident's, a moment later.
        latest = max((row.at for row in rows), default=0.0)
        now_failed = tally.requests_of([row for row in rows if row.at == latest], scope)[1]
        return Impact(failed=failed - now_failed, seconds=len(bad - {latest}))

    def _begin_account(self, incident: Incident, now: Moment) -> None:
        """Count what came before the detection; the present second is counted with every running incident's."""
        account, scope = self._book.account(incident), incident.scope
        seconds: dict[float, list[RouteSecond]] = {}
        for row in self._history.window(self._history.routes_of(scope), incident.onset.at - LEAD_S, now.at - 0.5):
            seconds.setdefault(row.at, []).append(row)
        for at, rows in sorted(seconds.items()):
            unix = now.unix - (now.at - at)
            if at <= incident.onset.at:
                account.lead_in(rows, scope, unix)
            else:
                account.take(rows, scope, {}, unix)

    def _freeze(self, incident: Incident, now: Moment) -> None:
        routes = self._history.routes_of(incident.scope)
        frozen = evidence.freeze(
            incident.scope,
            self._history.window(routes, now.at - evidence.FROZEN_S),
            self._history.samples(routes),
            {route: self._history.breaker(route) for route in routes},
            self.version,
            now,
        )
        self.evidence[incident.id] = frozen
        self._book.emit(PutEvidence(incident.id, frozen))

    def _suspect(self, incident: Incident, detectors: Collection[Detector], onset_at: float, now: Moment) -> None:
        book = self._book
        found = first_suspect(book.versions, incident.scope, detectors, onset_at, book.policy.suspect_window_s)
        if found is None or found == incident.suspect:
            return
        incident = book.put_incident(replace(incident, suspect=found))
        body = {"version": found.version, "source": found.source, "author": found.author}
        book.event("config.suspected", now, incident=incident.id, scope=incident.scope, body=body)
        auto = book.policy.rollback is RollbackMode.AUTO and not (incident.drill or incident.observed)
        if auto and book.may_propose(incident) and not incident.rolled_back:
            book.put_incident(replace(incident, rolled_back=True))
            reason = f"automatic: version {found.version} is the first suspect of incident {incident.id}"
            book.emit(Rollback(found.back_to, reason, incident.id))
            body = {"from": found.version, "to": found.back_to}
            book.event("config.rollback_started", now, incident=incident.id, scope=incident.scope, body=body)

    # --- what a running incident hears

    def _hear(self, incident: Incident, findings: Sequence[Finding], now: Moment) -> None:
        signals = tuple(signal for finding in findings for signal in finding.case.signals)
        heard = replace(lifecycle.hear(incident, signals, now), idle=self._idle(incident.scope, now))
        known = {claim.key for claim in incident.claims}
        for claim in heard.claims:
            if claim.key not in known:
                body = {
                    "detector": claim.signal.detector.value,
                    "value": claim.signal.value,
                    "score": claim.signal.score,
                }
                self._book.event("signal.joined", now, incident=heard.id, scope=claim.signal.scope, body=body)
        worse = heard.severity is not incident.severity
        if worse:
            self._book.event(
                "incident.worse", now, incident=heard.id, scope=heard.scope, body={"severity": heard.severity.value}
            )
            if heard.id not in {number for number, _ in self.opened}:
                self.opened.append((heard.id, "escalated"))
        if worse or len(heard.claims) != len(incident.claims):
            self._book.put_incident(heard)
        else:
            self._book.move_incident(heard, now)
        if heard.suspect is None and heard.detectors != incident.detectors:
            self._suspect(heard, heard.detectors, heard.onset.at, now)

    def _idle(self, scope: Scope, now: Moment) -> bool:
        """Tell whether no request came or waited on the routes of *scope* lately; not known soon after a start."""
        rows = self._history.window(self._history.routes_of(scope), now.at - IDLE_S)
        known = bool(rows) and now.at - min(row.at for row in rows) >= IDLE_S - 1.5
        return known and not any(row.arrivals or row.in_flight for row in rows)


def _ordered(scope: Scope, findings: Sequence[Finding]) -> list[Case]:
    """Return the cases: on the incident's own scope before narrower ones, severe ones before others."""
    ranked = sorted(findings, key=lambda f: (f.case.scope != scope, not f.case.severe, -f.case.sample))
    return [finding.case for finding in ranked]


def _takes_in(scope: Scope, incident: Incident, now: Moment) -> bool:
    """Tell whether *scope* is a wider view of what *incident* is about; an endpoint is one of a young route's incident."""
    if scope.kind is ScopeKind.ENDPOINT and incident.scope.kind in (ScopeKind.ROUTE, ScopeKind.CLIENT):
        return now.at - incident.opened.at < YOUNG_S
    return scope.contains(incident.scope)


def _faded(case: Case) -> bool:
    """
    Tell whether nothing of what *case* claims is there now: its score only remembers it.

    So it is when the one client that failed has left: its route's alarm stands, and no client explains it any more.
    """
    return all(s.detector is Detector.ERRORS and s.value <= s.baseline for s in case.signals)


def _akin(incident: Incident, case: Case) -> bool:
    """Tell whether the incident and the case may have one cause."""
    sounding = {signal.detector for signal in case.signals}
    return any(kind & sounding and kind & set(incident.detectors) for kind in _KINDS)
