"""
The engine's books: incidents, isolations, overrides, verdict marks, config versions, and what is to be told.

Every change of state goes through here, so that nothing is changed without being stored and nothing is in force
without being in the directives. `flush` returns the effects since the last call, the most urgent first.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sidecar.controller.effects import (
    Alert,
    AppendEvent,
    Effect,
    Notify,
    OpenBreaker,
    PutIncident,
    PutIsolation,
    PutMark,
    PutOverride,
    ResetBreaker,
    Rollback,
    SetDirectives,
    SetFaults,
)
from sidecar.decide import lease, overrides, silence, sticky, suspect
from sidecar.decide.lease import AUTOMATION, Isolation
from sidecar.decide.overrides import Override
from sidecar.decide.policies import LadderStep, RespondPolicy, RollbackMode, Rung
from sidecar.decide.silence import Silence
from sidecar.decide.size import Sizes
from sidecar.decide.suspect import Version
from sidecar.facts import Directive, Moment, Scope
from sidecar.incident import documents, telling
from sidecar.incident.account import LEAD_S, Account
from sidecar.incident.lifecycle import Incident, IncidentState, Severity, Verdict
from sidecar.incident.words import rfc3339

MARK_COUNTERS: Final = "engine.counters"
MARK_VERDICTS: Final = "engine.verdicts"
MARK_SIZES: Final = "engine.sizes"
MARK_VERSIONS: Final = "engine.versions"
MARK_SILENCES: Final = "engine.silences"
MAX_VERSIONS: Final = 5  # the suspects of the last minutes; the store has the whole history
REWRITE_S: Final = 10.0  # numbers that move every second are stored this often
MAX_ENDED: Final = 500  # ended incidents that stay in memory; the store has them all


class Book:
    """
    What is so now.

    Args:
        policy: How far automation may go.
        boot: The id of this boot: monotonic moments of another one mean nothing.
    """

    def __init__(self, policy: RespondPolicy, boot: str) -> None:
        self.policy = policy
        self.pages_people = True  # not while detection as a whole only observes
        self.boot = boot
        self.incidents: dict[int, Incident] = {}
        self.accounts: dict[int, Account] = {}
        self.isolations: dict[str, Isolation] = {}
        self.overrides: dict[Scope, Override] = {}
        self.marks: list[sticky.Mark] = []
        self.sizes = Sizes()
        self.trials: dict[str, Mapping[str, Any]] = {}  # isolation id → what its present step has shown
        self.versions: list[Version] = []
        self.pages: Counter[int] = Counter()  # urgent messages, by incident
        self.told: Counter[int] = Counter()  # all messages
        self.silences: list[Silence] = []
        self.hushed: set[int] = set()  # running incidents of which a silence kept a message
        self.next_incident = 1
        self.next_isolation = 1
        self.next_drill = 1
        self.next_silence = 1
        self._out: list[Effect] = []
        self._dirty: set[int] = set()
        self._moved: dict[int, float] = {}
        self._unsettled: set[str] = set()
        self._stored = True
        self._directives: tuple[Directive, ...] = ()

    def __repr__(self) -> str:
        return f"<Book {len(self.running())} incidents, {len(self.live())} isolations, {len(self.overrides)} overrides>"

    # --- what is so

    def running(self) -> list[Incident]:
        """Return the incidents that still ask for something, the oldest first."""
        return [incident for incident in self.incidents.values() if incident.running]

    def asking(self) -> list[Incident]:
        """Return those of them that ask people: not those of detectors that only observe."""
        return [incident for incident in self.running() if not incident.observed]

    def live(self) -> list[Isolation]:
        """Return the isolations in force, the oldest first."""
        return [isolation for isolation in self.isolations.values() if isolation.live]

    def live_of(self, incident: Incident) -> list[Isolation]:
        """Return the isolations of *incident* that are in force."""
        return [i for key in incident.isolations if (i := self.isolations.get(key)) is not None and i.live]

    def durable(self, key: str) -> bool:
        """Tell whether the store has what is known under *key*."""
        return self._stored or key not in self._unsettled

    def settled(self, *, stored: bool) -> None:
        """Take the store's answer: everything so far is stored, or it is down and new things are not."""
        self._stored = stored
        if stored:
            self._unsettled.clear()

    def directives(self) -> tuple[Directive, ...]:
        """Return the full set in force: overrides, then isolations, each in order of scope."""
        given = sorted(self.overrides.values(), key=lambda override: str(override.scope))
        made = sorted(self.live(), key=lambda isolation: (str(isolation.scope), isolation.id))
        return (*(o.directive for o in given), *(i.directive for i in made))

    def account(self, incident: Incident) -> Account:
        """Return what *incident* has cost so far."""
        return self.accounts.setdefault(incident.id, Account(incident.onset.unix - LEAD_S))

    # --- documents

    def isolation_document(self, isolation: Isolation) -> dict[str, Any]:
        """Return one isolation in the contract's shape."""
        return lease.document(isolation, durable=self.durable(isolation.id))

    def override_document(self, override: Override) -> dict[str, Any]:
        """Return one override in the contract's shape."""
        return overrides.document(override, durable=self.durable(override.id))

    def document(self, incident: Incident) -> dict[str, Any]:
        """Return one incident in the contract's shape."""
        rows = [self.isolation_document(self.isolations[key]) for key in incident.isolations if key in self.isolations]
        hush = silence.covering(self.silences, incident.scope) if incident.running else None
        return documents.public(
            incident,
            rows,
            self.next_step(incident),
            propose_rollback=self.may_propose(incident),
            silenced=silence.document(hush) if hush is not None else None,
            account=self.accounts.get(incident.id),
        )

    def next_step(self, incident: Incident) -> dict[str, Any] | None:
        """Return the ladder's next rung for *incident* as {"do", "at_time"}; None when nothing is asked."""
        climb = self.climb(incident)
        if climb is None:
            return None
        _, rung = climb
        return {"do": rung.do.value, "at_time": rfc3339(incident.unanswered.unix + rung.after_s)}

    def climb(self, incident: Incident) -> tuple[int, Rung] | None:
        """Return the next rung for an unanswered incident, with its place; without an isolation only `escalate` counts."""
        if incident.state is not IncidentState.OPEN or incident.verdict is not Verdict.PENDING:
            return None
        isolated = bool(self.live_of(incident))
        rungs = enumerate(self.policy.ladder[incident.rungs :], start=incident.rungs)
        return next(((i, rung) for i, rung in rungs if isolated or rung.do is LadderStep.ESCALATE), None)

    def may_propose(self, incident: Incident) -> bool:
        """Tell whether the incident's suspect may be proposed for rollback; a rollback never is."""
        named = incident.suspect
        if named is None or self.policy.rollback is RollbackMode.NEVER or incident.rolled_back:
            return False
        return named.source != "rollback" and bool(self.versions) and self.versions[-1].number == named.version

    # --- changes

    def put_incident(self, incident: Incident) -> Incident:
        """Keep *incident*; it is stored with the next flush."""
        self.incidents[incident.id] = incident
        self._dirty.add(incident.id)
        return incident

    def move_incident(self, incident: Incident, now: Moment) -> None:
        """Keep new numbers of *incident*; they are stored at most every `REWRITE_S`."""
        if incident == self.incidents.get(incident.id):
            return
        self.incidents[incident.id] = incident
        since = self._moved.setdefault(incident.id, now.at)
        if now.at - since >= REWRITE_S:
            self._dirty.add(incident.id)

    def put_isolation(self, isolation: Isolation) -> Isolation:
        """Keep *isolation* and store it; its incident is stored too, because it shows it."""
        self.isolations[isolation.id] = isolation
        self._unsettled.add(isolation.id)
        if not isolation.live:
            self.trials.pop(isolation.id, None)
        self._store_isolation(isolation)
        self._dirty.add(isolation.incident)
        return isolation

    def keep_trials(self, isolation: Isolation, trials: Mapping[str, Any]) -> None:
        """Store what the present step of *isolation* has shown, so that a restart goes on from there."""
        self.trials[isolation.id] = trials
        self._store_isolation(isolation)

    def _store_isolation(self, isolation: Isolation) -> None:
        document = lease.to_store(isolation, self.boot, self.trials.get(isolation.id))
        self._out.append(PutIsolation(isolation.id, not isolation.live, document))

    def put_override(self, override: Override) -> None:
        """Put *override* in force."""
        self.overrides[override.scope] = override
        self._unsettled.add(override.id)
        self._out.append(PutOverride(override.id, False, overrides.to_store(override, self.boot)))

    def end_override(self, scope: Scope) -> Override:
        """Take the override on *scope* out of force."""
        override = self.overrides.pop(scope)
        self._out.append(PutOverride(override.id, True, overrides.to_store(override, self.boot)))
        return override

    def put_marks(self, marks: Sequence[sticky.Mark]) -> None:
        """Replace the verdict marks."""
        self.marks = list(marks)
        rows = [sticky.to_json(mark) for mark in self.marks]
        self._out.append(PutMark(MARK_VERDICTS, json.dumps(rows, separators=(",", ":"))))

    def put_sizes(self, sizes: Sizes) -> None:
        """Replace what is known of the sizes of judged incidents."""
        self.sizes = sizes
        self._out.append(PutMark(MARK_SIZES, json.dumps(sizes.to_json(), separators=(",", ":"))))

    def put_silences(self, silences: Sequence[Silence]) -> None:
        """Replace the silences in force."""
        self.silences = list(silences)
        rows = [silence.to_store(each, self.boot) for each in self.silences]
        self._out.append(PutMark(MARK_SILENCES, json.dumps(rows, separators=(",", ":"))))

    def put_version(self, version: Version) -> None:
        """Remember *version* as the one in force, and as a possible suspect after a restart too."""
        self.versions = [*self.versions, version][-MAX_VERSIONS:]
        self._put_versions()

    def _put_versions(self) -> None:
        rows = [suspect.to_json(row) for row in self.versions]
        self._out.append(PutMark(MARK_VERSIONS, json.dumps(rows, separators=(",", ":"))))

    def number_incident(self) -> int:
        """Return the next incident's number and count on."""
        self.next_incident += 1
        self._put_counters()
        return self.next_incident - 1

    def number_isolation(self) -> str:
        """Return the next isolation's id and count on."""
        self.next_isolation += 1
        self._put_counters()
        return f"isolation-{self.next_isolation - 1}"

    def number_drill(self) -> int:
        """Return the next drill's number and count on."""
        self.next_drill += 1
        self._put_counters()
        return self.next_drill - 1

    def number_silence(self) -> int:
        """Return the next silence's number and count on."""
        self.next_silence += 1
        self._put_counters()
        return self.next_silence - 1

    def _put_counters(self) -> None:
        counters = {
            "incident": self.next_incident, "isolation": self.next_isolation, "drill": self.next_drill,
            "silence": self.next_silence,
        }  # fmt: skip
        self._out.append(PutMark(MARK_COUNTERS, json.dumps(counters, separators=(",", ":"))))

    # --- what is told

    def event(
        self,
        kind: str,
        now: Moment,
        *,
        author: str = AUTOMATION,
        incident: int | None = None,
        scope: Scope | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        """Append one event to the chain."""
        text = "" if scope is None else str(scope)
        self._out.append(AppendEvent(kind, now.unix, author, incident, text, dict(body or {})))

    def emit(self, effect: Effect) -> None:
        """Want something done."""
        self._out.append(effect)

    def notify(self, kind: str, incident_id: int, now: Moment, *, urgent: bool | None = None) -> None:
        """
        Tell people about an incident as it is now.

        Args:
            kind: `opened`, `updated`, `escalated`, `proposed`, `released` or `resolved`.
            incident_id: Which one.
            now: The moment of telling.
            urgent: Page; by default when it is severe and was just opened or escalated.
        """
        incident = self.incidents[incident_id]
        if incident.observed:
            return
        hush = silence.covering(self.silences, incident.scope)
        ended = kind in ("resolved", "released") and self.told[incident_id] > 0  # who was paged is told that it is over
        if hush is not None and not ended:
            self.hushed.add(incident_id)
            body = {"kind": kind, "by": hush.author, "silence": hush.id}
            self.event("incident.silenced", now, incident=incident.id, scope=incident.scope, body=body)
            return
        document = self.document(incident)
        text = telling.alert(kind, document, incident, now)
        page = kind in ("opened", "escalated") and incident.severity is Severity.SEVERE
        page = (page if urgent is None else urgent) and self.pages_people and not incident.drill
        if self._told_already(kind, incident_id, Alert(kind, document, text, page)):
            return
        self.told[incident_id] += 1
        self.pages[incident_id] += page
        self._out.append(Notify(Alert(kind, document, text, page)))
        self.event("incident.notified", now, incident=incident.id, scope=incident.scope, body={"kind": kind})

    def _told_already(self, kind: str, incident_id: int, alert: Alert) -> bool:
        """Let *alert* take the place of one of the same second that says the same, if there is one."""
        for place, effect in enumerate(self._out):
            if isinstance(effect, Notify) and (effect.alert.kind, effect.alert.incident["id"]) == (kind, incident_id):
                self.pages[incident_id] += alert.urgent and not effect.alert.urgent
                self._out[place] = Notify(replace(alert, urgent=alert.urgent or effect.alert.urgent))
                return True
        return False

    def flush(self) -> list[Effect]:
        """Return the effects since the last flush, the most urgent first."""
        for key in sorted(self._dirty):
            incident = self.incidents[key]
            document = {**self.document(incident), documents.KEPT: documents.kept(incident)}
            if key in self.accounts:
                document[documents.ACCOUNT] = self.accounts[key].document()
            self._out.append(PutIncident(incident.id, incident.state.value, incident.opened.unix, document))
            self._moved.pop(key, None)
        self._dirty.clear()
        in_force = self.directives()
        if in_force != self._directives:
            self._directives = in_force
            self._out.append(SetDirectives(in_force))
        effects = sorted(self._out, key=_urgency)
        self._out.clear()
        return effects

    def restate(self) -> None:
        """Store everything anew: the file that held it is gone."""
        for isolation in list(self.isolations.values()):
            self.put_isolation(isolation)
        for override in list(self.overrides.values()):
            self.put_override(override)
        self._dirty.update(self.incidents)
        self.put_marks(self.marks)
        self.put_sizes(self.sizes)
        self.put_silences(self.silences)
        self._put_versions()
        self._put_counters()

    def forget(self) -> None:
        """Drop the oldest ended incidents, and the ended isolations of dropped ones, from memory."""
        ended = [key for key, incident in self.incidents.items() if not incident.running]
        for key in ended[: max(0, len(ended) - MAX_ENDED)]:
            self.accounts.pop(key, None)
            for isolation in self.incidents.pop(key).isolations:
                self.isolations.pop(isolation, None)

    def answer(self, incident: Incident, now: Moment) -> Incident:
        """Note that a person has just said something about *incident*."""
        return replace(incident, spoke=now) if incident.spoke is not None else incident


def _urgency(effect: Effect) -> int:
    match effect:
        case SetDirectives() | SetFaults():
            return 0
        case OpenBreaker() | ResetBreaker():
            return 1
        case Notify():
            return 3
        case Rollback():
            return 4
        case _:
            return 2
