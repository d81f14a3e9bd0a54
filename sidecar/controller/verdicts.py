"""
What a person says, carried out at once: verdicts, notes, overrides, breakers.

Tables (a command that is not in its row is a CONFLICT and says what to type instead)

    acknowledge   open, acknowledged, mitigated; in an ended one there is nothing to look at
    confirm       running: keeps its isolation, or applies the proposed one; ended: the verdict alone; not in closed ones
    release       running: ends its isolations; ended: the verdict alone, when it says one; not in closed ones
    note, tick    always
    close         resolved

What can go wrong
    The same command twice: what is already so is answered as done and leaves no second event.
    A verdict is changed: the newer one counts, its marks replace the older ones, both stay in the timeline.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, assert_never

from sidecar.controller.book import Book
from sidecar.controller.commands import (
    Acknowledge,
    ClearOverride,
    Close,
    CloseBreaker,
    Command,
    Confirm,
    Done,
    Note,
    Rejected,
    Release,
    ReleaseVerdict,
    SetOverride,
    Tick,
)
from sidecar.controller.effects import ResetBreaker
from sidecar.controller.history import History
from sidecar.controller.places import Places
from sidecar.controller.respond import Responder
from sidecar.decide import lease
from sidecar.decide.lease import IsolationState
from sidecar.decide.overrides import Override, action_text
from sidecar.detect.bank import Bank
from sidecar.facts import Action, Moment, Scope, ScopeKind
from sidecar.incident import lifecycle
from sidecar.incident.lifecycle import Incident, IncidentState, Resolution, Ticked, Verdict
from sidecar.incident.telling import CHECKLISTS
from sidecar.incident.words import duration

MAX_TEXT: Final = 2_000
MAX_TTL_S: Final = 30 * 86_400.0


class Desk:
    """
    Carries out commands.

    Args:
        book: What is so.
        history: Knows the routes.
        bank: Learns a shift that a person called benign.
        responder: Starts and ends isolations.
        places: Where an override can be.
    """

    def __init__(self, book: Book, history: History, bank: Bank, responder: Responder, places: Places) -> None:
        self._book = book
        self._history = history
        self._bank = bank
        self._responder = responder
        self._places = places

    def __repr__(self) -> str:
        return f"<Desk {self._book}>"

    def carry_out(self, command: Command, now: Moment) -> Done | Rejected:
        """Do what a person asks, or say why not; a refused command has changed nothing."""
        match command:
            case SetOverride():
                return self._set_override(command, now)
            case ClearOverride():
                return self._clear_override(command, now)
            case CloseBreaker():
                return self._close_breaker(command, now)
            case Acknowledge() | Confirm() | Release() | Note() | Tick() | Close():
                incident = self._book.incidents.get(command.incident)
                if incident is None:
                    return _unknown(command.incident)
                return self._on_incident(command, incident, now)
            case _:
                assert_never(command)

    def _on_incident(
        self, command: Acknowledge | Confirm | Release | Note | Tick | Close, incident: Incident, now: Moment
    ) -> Done | Rejected:
        match command:
            case Acknowledge():
                return self._acknowledge(command, incident, now)
            case Confirm():
                return self._confirm(command, incident, now)
            case Release():
                return self._release(command, incident, now)
            case Note():
                return self._note(command, incident, now)
            case Tick():
                return self._tick(command, incident, now)
            case Close():
                return self._close(command, incident, now)

    def _told(self, number: int) -> Done:
        return Done(self._book.document(self._book.incidents[number]))

    def _event(self, kind: str, incident: Incident, author: str, now: Moment, **body: Any) -> None:
        self._book.event(kind, now, author=author, incident=incident.id, scope=incident.scope, body=body)

    # --- incidents

    def _acknowledge(self, command: Acknowledge, incident: Incident, now: Moment) -> Done | Rejected:
        if not incident.running:
            return Rejected.conflict(
                f"incident {incident.id} is {incident.state}", f"sidecar incident show {incident.id}"
            )
        again = incident.acknowledged_by == command.author
        self._book.put_incident(lifecycle.acknowledge(incident, command.author, now))
        if not again:
            self._event("incident.acknowledged", incident, command.author, now)
        return self._told(incident.id)

    def _confirm(self, command: Confirm, incident: Incident, now: Moment) -> Done | Rejected:
        if incident.state is IncidentState.CLOSED:
            return _closed(incident)
        live = self._book.live_of(incident)
        waiting = [isolation for isolation in live if not isolation.confirmed_by]
        proposal = incident.proposal if incident.running and not (live or incident.observed) else None
        cover = self._cover(proposal.scope if proposal else incident.scope, incident)
        if proposal is not None and cover:
            return Rejected.conflict(
                f"{proposal.scope} is already isolated by {cover}",
                "sidecar incident list --state open shows its incident",
            )
        if incident.verdict is Verdict.CONFIRMED and not waiting and proposal is None:
            return self._told(incident.id)
        self._forget_marks(incident)
        said = self._book.answer(replace(incident, verdict=Verdict.CONFIRMED), now)
        self._book.put_incident(said)
        self._event("verdict.confirmed", incident, command.author, now)
        for isolation in waiting:
            self._book.put_isolation(lease.confirm(isolation, command.author))
            self._event("isolation.confirmed", incident, command.author, now, id=isolation.id)
        if proposal is not None:
            self._responder.start(said, proposal, None, command.author, now)
            self._responder.budget(now)
        return self._told(incident.id)

    def _cover(self, scope: Scope, incident: Incident) -> str:
        others = (i for i in self._book.live() if i.incident != incident.id and i.scope.contains(scope))
        return next((isolation.id for isolation in others), "")

    def _release(self, command: Release, incident: Incident, now: Moment) -> Done | Rejected:
        if incident.state is IncidentState.CLOSED:
            return _closed(incident)
        if len(command.reason) > MAX_TEXT:
            return Rejected.invalid(f"the reason has {len(command.reason)} characters", f"use at most {MAX_TEXT}")
        verdict = command.verdict
        if not incident.running and verdict is ReleaseVerdict.NONE:
            return Rejected.conflict(
                f"incident {incident.id} is {incident.state}: nothing is isolated by it",
                f"sidecar incident release {incident.id} --verdict false_positive (or benign) still records a verdict",
            )
        said = replace(incident, verdict=_SAID.get(verdict, incident.verdict))
        self._book.put_incident(said)
        self._event(f"verdict.{verdict}", incident, command.author, now, reason=command.reason)
        for isolation in self._book.live_of(incident):
            why = command.reason or f"released as {verdict}"
            self._responder.end(isolation, IsolationState.RELEASED, command.author, why, now)
        self._responder.leave_marks(said, verdict.value, command.author, now)
        if verdict is ReleaseVerdict.BENIGN:
            self._accept(said)
        if incident.running:
            self._finish(said.id, command.author, now)
        return self._told(incident.id)

    def _finish(self, number: int, author: str, now: Moment) -> None:
        resolved = lifecycle.resolve(self._book.incidents[number], Resolution.RELEASED, now)
        self._book.put_incident(resolved)
        impact = resolved.impact
        self._event(
            "incident.resolved", resolved, author, now, resolution="released", failed=impact.failed,
            refused=impact.refused, seconds=impact.seconds,
        )  # fmt: skip
        self._book.notify("released", number, now)

    def _forget_marks(self, incident: Incident) -> None:
        kept = [mark for mark in self._book.marks if mark.incident != incident.id]
        if kept != self._book.marks:
            self._book.put_marks(kept)

    def _accept(self, incident: Incident) -> None:
        for claim in incident.claims:
            scope = claim.signal.scope
            pool = [""] if scope.kind is ScopeKind.SERVICE else []  # the bank's word for the pool of quiet routes
            for route in (*self._history.routes_of(scope), *pool):
                self._bank.accept(route, claim.signal.detector)

    def _note(self, command: Note, incident: Incident, now: Moment) -> Done | Rejected:
        text = command.text.strip()
        if not text or len(text) > MAX_TEXT:
            what = "the note is empty" if not text else f"the note has {len(text)} characters"
            return Rejected.invalid(what, f"write 1 to {MAX_TEXT} characters")
        self._book.put_incident(self._book.answer(incident, now))
        self._event("incident.note", incident, command.author, now, text=text)
        return self._told(incident.id)

    def _tick(self, command: Tick, incident: Incident, now: Moment) -> Done | Rejected:
        steps = CHECKLISTS[incident.lead.signal.detector]
        if not 1 <= command.step <= len(steps):
            known = f"sidecar incident show {incident.id} lists steps 1 to {len(steps)}"
            return Rejected.not_found(f"its runbook has no step {command.step}", known)
        text = steps[command.step - 1]
        if (text in {tick.text for tick in incident.ticks}) is command.done:
            return self._told(incident.id)
        ticks = tuple(tick for tick in incident.ticks if tick.text != text)
        ticks = (*ticks, Ticked(text, command.author, now.unix)) if command.done else ticks
        self._book.put_incident(self._book.answer(replace(incident, ticks=ticks), now))
        kind = "runbook.ticked" if command.done else "runbook.unticked"
        self._event(kind, incident, command.author, now, step=command.step, text=text)
        return self._told(incident.id)

    def _close(self, command: Close, incident: Incident, now: Moment) -> Done | Rejected:
        if incident.state is IncidentState.CLOSED:
            return self._told(incident.id)
        if incident.running:
            return Rejected.conflict(
                f"incident {incident.id} is {incident.state}, only a resolved one can be closed",
                f"sidecar incident release {incident.id} --verdict none ends its isolations first",
            )
        self._book.put_incident(lifecycle.close(incident, now))
        self._event("incident.closed", incident, command.author, now)
        return self._told(incident.id)

    # --- what a person sets without an incident

    def _set_override(self, command: SetOverride, now: Moment) -> Done | Rejected:
        problem = self._override_problem(command)
        if problem is not None:
            return problem
        made = Override(
            command.scope, command.action, command.author, command.reason.strip(), now, lease.later(now, command.ttl_s),
            command.rate_per_s, command.share_ratio,
        )  # fmt: skip
        old = self._book.overrides.get(command.scope)
        if old is not None:
            body = {"why": "replaced", "action": action_text(old)}
            self._book.event("override.ended", now, author=command.author, scope=command.scope, body=body)
        self._book.put_override(made)
        facts = {"action": action_text(made), "ttl_s": command.ttl_s, "reason": made.reason}
        self._book.event("override.set", now, author=command.author, scope=command.scope, body=facts)
        return Done(self._book.override_document(made))

    def _override_problem(self, command: SetOverride) -> Rejected | None:
        scope = command.scope
        if not command.author:
            return Rejected.invalid("an override needs an author", "use a token with a name")
        if not command.reason.strip():
            return Rejected.invalid("an override needs a reason", "add --reason 'why', others will read it at 3 a.m.")
        if len(command.reason) > MAX_TEXT:
            return Rejected.invalid(f"the reason has {len(command.reason)} characters", f"use at most {MAX_TEXT}")
        if not 0 < command.ttl_s <= MAX_TTL_S:
            return Rejected.invalid(
                f"a ttl of {duration(command.ttl_s)} is not possible", "use --ttl between 1s and 30d, such as 10m"
            )
        nowhere = self._places.problem(scope)
        if nowhere is not None:
            return nowhere
        if scope.kind is ScopeKind.ENDPOINT:
            return self._endpoint_problem(command)
        return _amount_problem(command)

    @staticmethod
    def _endpoint_problem(command: SetOverride) -> Rejected | None:
        """Say what an endpoint cannot be told: the pool spreads requests over endpoints by shares, and refuses none."""
        name = command.scope.name
        if command.rate_per_s is not None:
            return Rejected.invalid(
                f"endpoint:{name} cannot be throttled to a rate: an override takes a part of an endpoint's requests, the "
                "others go to the other endpoints",
                "use throttle=25% for a quarter of its part, isolate for none, or throttle=RATE on service or route:NAME",
            )
        return _amount_problem(command)

    def _clear_override(self, command: ClearOverride, now: Moment) -> Done | Rejected:
        if command.scope not in self._book.overrides:
            return Rejected.not_found(
                f"no override is set on {command.scope}",
                "sidecar override list shows what is set",
            )
        ended = self._book.end_override(command.scope)
        body = {"why": "cleared", "action": action_text(ended)}
        self._book.event("override.ended", now, author=command.author, scope=command.scope, body=body)
        return Done(self._book.override_document(replace(ended, end=now)))

    def _close_breaker(self, command: CloseBreaker, now: Moment) -> Done | Rejected:
        if command.route not in self._history.routes:
            known = ", ".join(self._history.routes)
            return Rejected.not_found(f"there is no route '{command.route}'", f"the routes are {known}")
        self._book.emit(ResetBreaker(command.route))
        self._book.event("breaker.reset", now, author=command.author, scope=Scope.route(command.route))
        return Done({"route": command.route, "breaker": "closed"})


def _amount_problem(command: SetOverride) -> Rejected | None:
    """Say what is wrong with an override's rate or share."""
    if (command.action is Action.THROTTLE) != ((command.rate_per_s is None) != (command.share_ratio is None)):
        return Rejected.invalid(
            "throttle needs one rate or one share, other actions none", "use throttle=20/s or throttle=10%"
        )
    if command.rate_per_s is not None and not command.rate_per_s > 0:
        return Rejected.invalid(f"a rate of {command.rate_per_s:g}/s lets nothing pass", "use isolate for that")
    if command.share_ratio is not None and not 0 < command.share_ratio < 1:
        return Rejected.invalid(f"a share of {command.share_ratio:g} throttles nothing or everything", "use 1% to 99%")
    return None


_SAID: Final = {ReleaseVerdict.FALSE_POSITIVE: Verdict.FALSE_POSITIVE, ReleaseVerdict.BENIGN: Verdict.BENIGN}


def _unknown(number: int) -> Rejected:
    return Rejected.not_found(f"there is no incident {number}", "sidecar incident list shows all")


def _closed(incident: Incident) -> Rejected:
    return Rejected.conflict(
        f"incident {incident.id} is closed", f"sidecar incident note {incident.id} TEXT still adds to it"
    )
