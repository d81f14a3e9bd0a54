"""
What one incident teaches, worked out from its record and the stored history; runs in the replay's child process.

The candidates of `incident/learn.py` become config texts (`config/edit.py`), each text is loaded as it would be at an
apply, replayed beside the one that runs, and kept when its measured effect is worth a person's time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sidecar.config.diff import diff
from sidecar.config.edit import EditError, put
from sidecar.config.errors import ConfigErrors
from sidecar.config.load import load
from sidecar.config.policies import Compiled
from sidecar.detect.tuning import SERVICE, STEPS, TUNED
from sidecar.facts import Detector, Mode, Scope, ScopeKind
from sidecar.incident import learn
from sidecar.incident.learn import Candidate, Facts, Kind
from sidecar.incident.words import unix_of
from sidecar.replay.compare import Outcome, outcome
from sidecar.replay.effect import Judged, effect
from sidecar.replay.learned import Learned
from sidecar.replay.material import Material
from sidecar.replay.normal import measure

AROUND_S: Final = 30.0  # an onset is an estimate, and what was isolated comes back slowly
NOT_REAL: Final = ("false_positive", "benign")


@dataclass(frozen=True, slots=True)
class Work:
    """Replay the material under each of these configs."""

    material: Material
    configs: tuple[Compiled, ...]
    learned: Learned


@dataclass(frozen=True, slots=True)
class Study:
    """
    What to study.

    Attributes:
        incident: Its public document.
        past: All incidents of the history, public documents.
        text: The active config; `environ` and `flags` lie over it.
        learned: What verdicts taught so far.
    """

    material: Material
    incident: Mapping[str, Any]
    past: Sequence[Mapping[str, Any]]
    text: str
    environ: Mapping[str, str]
    flags: Mapping[str, str]
    learned: Learned = field(default_factory=Learned)


@dataclass(frozen=True, slots=True)
class Step:
    """What a false positive's step of one threshold would have hidden on the stored history."""

    route: str
    detector: Detector
    hidden: int
    hides_confirmed: int


@dataclass(frozen=True, slots=True)
class Lesson:
    """
    What an incident teaches.

    Attributes:
        proposals: {kind, why, changes, settings, rule, effect} of what is worth a person's time.
        steps: Of the thresholds, when a person called it a false positive.
    """

    proposals: tuple[dict[str, Any], ...] = ()
    steps: tuple[Step, ...] = ()


def study(asked: Study) -> Lesson:
    """Return what an incident teaches; nothing when there is no history."""
    span = asked.material.span
    if span is None:
        return Lesson()
    compiled = _load(asked, asked.text)
    if compiled is None:
        return Lesson()
    facts, judged = facts_of(asked, compiled), _judged(asked.incident)
    trouble = [_trouble(row) for row in (*asked.past, asked.incident)]
    past = [_judged(row) for row in asked.past]
    before: Outcome | None = None
    found = []
    for candidate in learn.candidates(facts):
        if candidate.rule is not None:
            found.append(_document(candidate, [], learn.Effect(over_s=span[1] - span[0])))
            continue
        text = _edited(asked.text, candidate)
        changed = _load(asked, text) if text else None
        if changed is None or changed == compiled:
            continue
        before = before or outcome(compiled, asked.material, trouble, asked.learned)
        after = outcome(changed, asked.material, trouble, asked.learned)
        timeout_s = _timeout(candidate)
        seen = effect(before, after, judged, past, span[1] - span[0], route=facts.route, timeout_s=timeout_s)
        if learn.worth(candidate, seen, real=facts.real):
            changes = [{"path": c.path, "old": c.old, "new": c.new} for c in diff(asked.text, text)]
            found.append(_document(candidate, changes, seen))
    if judged.verdict != "false_positive":
        return Lesson(tuple(found))
    before = before or outcome(compiled, asked.material, trouble, asked.learned)
    steps = [_step(asked, compiled, key, before, judged, past) for key in _keys(asked.incident)]
    return Lesson(tuple(found), tuple(steps))


def _keys(incident: Mapping[str, Any]) -> list[tuple[str, Detector]]:
    """Return whose thresholds the incident's verdict moves."""
    found: dict[tuple[str, Detector], None] = {}
    for signal in incident["signals"]:
        scope, detector = Scope.parse(signal["scope"]), Detector(signal["detector"])
        if detector in TUNED:
            found[scope.name if scope.kind in (ScopeKind.ROUTE, ScopeKind.CLIENT) else SERVICE, detector] = None
    return list(found)


def _step(
    asked: Study,
    compiled: Compiled,
    key: tuple[str, Detector],
    before: Outcome,
    judged: Judged,
    past: Sequence[Judged],
) -> Step:
    moved = replace(asked.learned, tuning=asked.learned.tuning.moved(*key, STEPS["false_positive"]))
    seen = effect(before, outcome(compiled, asked.material, learned=moved), judged, past, 0.0)
    return Step(*key, seen.hidden, seen.hidden_confirmed)


def answer(work: Work | Study) -> list[Outcome] | Lesson:
    """Do the work of the replay's child process."""
    if isinstance(work, Study):
        return study(work)
    return [outcome(compiled, work.material, learned=work.learned) for compiled in work.configs]


def facts_of(asked: Study, compiled: Compiled) -> Facts:
    """Return what the incident and the config around it say."""
    incident = asked.incident
    scope = Scope.parse(incident["scope"])
    route = scope.name if scope.kind in (ScopeKind.ROUTE, ScopeKind.CLIENT) else _only_route(compiled)
    until = unix_of(incident["resolved_time"]) if incident["resolved_time"] else float("inf")
    guards = compiled.guard.routes.get(route)
    limit = guards.limit if guards is not None else None
    rule = next((rule for rule in compiled.proxy.routes if rule.name == route), None)
    suspect = incident.get("suspect")
    costs = {name: guards.limit.cost for name, guards in compiled.guard.routes.items() if guards.limit is not None}
    normal, service = measure(asked.material, route, unix_of(incident["onset_time"]), until, costs)
    return Facts(
        scope=scope,
        route=route,
        detectors=tuple(Detector(signal["detector"]) for signal in incident["signals"]),
        real=incident["verdict"] not in NOT_REAL,
        sensitivity=compiled.detect.of(route).sensitivity.value,
        breaker=guards is not None and guards.breaker is not None and guards.breaker.mode is not Mode.OFF,
        limited=limit is not None,
        rate_per_s=limit.bucket.rate_per_s if limit is not None and limit.bucket is not None else None,
        client_rate_per_s=limit.per_client.rate_per_s if limit is not None and limit.per_client is not None else None,
        cost=costs.get(route, 1.0),
        timeout_s=(rule.response_timeout_s if rule else None) or compiled.proxy.upstream.response_timeout_s,
        normal=normal,
        service=service,
        suspect=tuple(suspect["diff"]) if suspect else (),
    )


def _only_route(compiled: Compiled) -> str:
    return compiled.proxy.routes[0].name if len(compiled.proxy.routes) == 1 else ""


def _judged(row: Mapping[str, Any]) -> Judged:
    return Judged(Scope.parse(row["scope"]), unix_of(row["opened_time"]), row["verdict"])


def _trouble(row: Mapping[str, Any]) -> tuple[float, float]:
    ended = row["resolved_time"]
    return unix_of(row["onset_time"]) - AROUND_S, (unix_of(ended) + AROUND_S if ended else float("inf"))


def _timeout(candidate: Candidate) -> float | None:
    return float(candidate.settings[0].value.rstrip("s")) if candidate.kind is Kind.TIMEOUT else None


def _edited(text: str, candidate: Candidate) -> str:
    try:
        for setting in candidate.settings:
            text = put(text, setting.path, setting.value)
    except EditError:
        return ""
    return text


def _load(asked: Study, text: str) -> Compiled | None:
    try:
        return load(text, name="proposal", environ=asked.environ, flags=asked.flags)
    except ConfigErrors:
        return None


def _document(candidate: Candidate, changes: list[dict[str, Any]], seen: learn.Effect) -> dict[str, Any]:
    return {
        "kind": candidate.kind.value,
        "why": candidate.why,
        "changes": changes,
        "settings": [[list(setting.path), setting.value] for setting in candidate.settings],
        "rule": candidate.rule.to_json() if candidate.rule is not None else None,
        "effect": seen.to_json(),
    }
