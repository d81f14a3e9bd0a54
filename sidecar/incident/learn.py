"""
What an incident teaches: which settings would have found it earlier, kept it out, or not called it at all.

Theory
    An incident that was real asks two questions, one that was not asks a third. Each answer is a *candidate*: a few
    settings and a reason. Whether it is worth a person's time is not decided here but measured: the stored history is
    replayed with it, and what that says decides (`worth`).

Tables
    the incident              candidate                                     is proposed when the replay says
    real                      sensitivity one step up on its route          earlier by ≥ 1 s, and no alarm added
    not real                  sensitivity one step down on its route        a false alarm hidden, no confirmed one
    real, one client          a limit for each client                       others lose ≤ 0.1 % of their requests
    real, a surge             a limit for the route                         it refuses in the incident, else ≤ 0.1 %
    real, errors, no breaker  a breaker                                     nothing else is refused than in incidents
    real, slow                a shorter response timeout                    ≤ 0.1 % of answers were slower
    a config value            a rule: this value is never set lower again   (nothing is replayed: it is measured)

What can go wrong
    Little history: rates are quantiles of what was seen before the onset; below `LEAST_S` seconds of it no limit and no
    timeout is proposed. The culprit is the only client: nobody knows what is normal for a client, so none is limited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil
from typing import Any, Final

from sidecar.facts import Detector, Scope, ScopeKind
from sidecar.incident.words import duration

LEAST_S: Final = 60
CLIENT_FACTOR: Final = 1.5
ROUTE_FACTOR: Final = 2.0
TIMEOUT_FACTOR: Final = 5.0
LEAST_TIMEOUT_S: Final = 1.0
INNOCENT_RATIO: Final = 0.001
LEAST_SOONER_S: Final = 1.0
STEPS: Final = ("low", "normal", "high")  # of sensitivity


class Kind(StrEnum):
    """What a proposal changes."""

    THRESHOLD = "threshold"
    LIMIT = "limit"
    BREAKER = "breaker"
    TIMEOUT = "timeout"
    VALIDATION = "validation"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of the config, routes by name, and its value as YAML writes it."""

    path: tuple[str, ...]
    value: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A config value that must not be set below *at_least* again (in the value's own unit, a second where it is a rate)."""

    path: str
    at_least: float

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"path": self.path, "at_least": self.at_least}


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something to propose; either settings or a rule."""

    kind: Kind
    why: str
    settings: tuple[Setting, ...] = ()
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Normal:
    """
    What was normal on a route before the onset, and what was not after it.

    Attributes:
        seconds: How many were seen before.
        rate_per_s, peak_per_s: 99th percentile of arrivals a second before; the most after.
        clients, peaks: The same by client.
        p99_s: 99th percentile of the upstream latency before; 0 without any.
    """

    seconds: int = 0
    rate_per_s: float = 0.0
    peak_per_s: float = 0.0
    clients: Mapping[str, float] = field(default_factory=dict)
    peaks: Mapping[str, float] = field(default_factory=dict)
    p99_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What is known of an incident and of the settings around it.

    Attributes:
        route: Its route; empty when it is about the whole service.
        real: Nobody said that it was not.
        sensitivity: Of the route's detectors.
        breaker, limited, client_limited: The route has such a guard.
        timeout_s: Its response timeout.
        suspect: The changes of the config version under suspicion.
    """

    scope: Scope
    route: str
    detectors: tuple[Detector, ...]
    real: bool
    sensitivity: str
    breaker: bool
    limited: bool
    client_limited: bool
    timeout_s: float
    normal: Normal
    suspect: tuple[Mapping[str, Any], ...] = ()


def candidates(facts: Facts) -> list[Candidate]:
    """Return what may be worth proposing after the incident, the most telling first."""
    found = [_sensitivity(facts)]
    if facts.real:
        found += [_client_limit(facts), _route_limit(facts), _breaker(facts), _timeout(facts)]
        found += [_rule(change, facts) for change in facts.suspect]
    return [candidate for candidate in found if candidate is not None]


def _on_route(facts: Facts, *steps: str) -> tuple[str, ...]:
    return ("routes", facts.route, *steps)


def _sensitivity(facts: Facts) -> Candidate | None:
    place = STEPS.index(facts.sensitivity) + (1 if facts.real else -1)
    judged = {Detector.ERRORS, Detector.LATENCY, Detector.SURGE, Detector.SILENCE, Detector.DRIFT} & set(
        facts.detectors
    )
    if not 0 <= place < len(STEPS) or not facts.route or not judged:
        return None
    why = "it would have been found earlier" if facts.real else "it was a false alarm"
    setting = Setting(_on_route(facts, "detect", "sensitivity"), STEPS[place])
    return Candidate(Kind.THRESHOLD, f"{why} with sensitivity {STEPS[place]} on {facts.route}", (setting,))


def _client_limit(facts: Facts) -> Candidate | None:
    normal = facts.normal
    others = {key: rate for key, rate in normal.clients.items() if key != facts.scope.key}
    if facts.scope.kind is not ScopeKind.CLIENT or facts.client_limited or not others or normal.seconds < LEAST_S:
        return None
    rate = max(1, ceil(CLIENT_FACTOR * max(others.values())))
    peak = normal.peaks.get(facts.scope.key, 0.0)
    if peak <= rate:
        return None
    why = f"client {facts.scope.key} asked up to {peak:.0f}/s, the others at most {max(others.values()):.0f}/s"
    value = f"{{rate: {rate}/s, burst: {2 * rate}}}"
    path = _on_route(facts, "limit", "per_client") if facts.limited else _on_route(facts, "limit")
    return Candidate(Kind.LIMIT, why, (Setting(path, value if facts.limited else f"{{per_client: {value}}}"),))


def _route_limit(facts: Facts) -> Candidate | None:
    normal = facts.normal
    if Detector.SURGE not in facts.detectors or facts.limited or not facts.route or normal.seconds < LEAST_S:
        return None
    rate = max(1, ceil(ROUTE_FACTOR * normal.rate_per_s))
    if normal.peak_per_s <= rate:
        return None
    why = f"{facts.route} got up to {normal.peak_per_s:.0f}/s, normally at most {normal.rate_per_s:.0f}/s"
    return Candidate(Kind.LIMIT, why, (Setting(_on_route(facts, "limit"), f"{{rate: {rate}/s, burst: {2 * rate}}}"),))


def _breaker(facts: Facts) -> Candidate | None:
    if (
        facts.breaker
        or not facts.route
        or facts.scope.kind is ScopeKind.CLIENT
        or Detector.ERRORS not in facts.detectors
    ):
        return None
    why = f"{facts.route} has no breaker: it would have acted on the first failures in a row"
    return Candidate(Kind.BREAKER, why, (Setting(_on_route(facts, "breaker"), "{}"),))


def _timeout(facts: Facts) -> Candidate | None:
    normal = facts.normal
    if Detector.LATENCY not in facts.detectors or not facts.route or not normal.p99_s or normal.seconds < LEAST_S:
        return None
    wanted = max(LEAST_TIMEOUT_S, float(ceil(TIMEOUT_FACTOR * normal.p99_s)))
    if wanted > facts.timeout_s / 2:
        return None
    why = f"answers of {facts.route} take up to {duration(normal.p99_s)}, the timeout is {duration(facts.timeout_s)}"
    return Candidate(Kind.TIMEOUT, why, (Setting(_on_route(facts, "response_timeout"), f"{wanted:g}s"),))


def _rule(change: Mapping[str, Any], facts: Facts) -> Candidate | None:
    """Return the rule that keeps the changed value from being set so low again."""
    path, normal = str(change.get("path", "")), facts.normal
    if Detector.REFUSALS not in facts.detectors or normal.seconds < LEAST_S:
        return None
    if path.endswith("per_client.rate"):
        least = float(ceil(max(normal.clients.values(), default=0.0)))
    elif path.endswith("limit.rate"):
        least = float(ceil(normal.rate_per_s))
    else:
        return None
    if not least:
        return None
    why = f"{path} {change.get('old')} → {change.get('new')} refused normal traffic, which needs {least:g}/s"
    return Candidate(Kind.VALIDATION, why, rule=Rule(path, least))


# --- is it worth it? ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Effect:
    """
    What the replay of the stored history says of one candidate.

    Attributes:
        sooner_s: How much earlier the incident is found; None when it is not found on one side.
        hidden, added: Incidents that would not have been raised; that would have been raised besides.
        hidden_confirmed, hidden_false: Of the hidden ones, those that a person confirmed, and called false.
        requests: Played.
        refused: More than before; in the incident itself, `refused_then`.
        innocent_ratio: Of the requests of clients without part in it, the part that would be refused besides.
        over_s: Length of the history.
    """

    sooner_s: float | None = None
    hidden: int = 0
    added: int = 0
    hidden_confirmed: int = 0
    hidden_false: int = 0
    requests: int = 0
    refused: int = 0
    innocent_ratio: float = 0.0
    slower: int = 0
    over_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "sooner_s": self.sooner_s, "hidden": self.hidden, "added": self.added, "requests": self.requests,
            "refused": self.refused, "innocent_ratio": self.innocent_ratio, "slower": self.slower, "over_s": self.over_s,
        }  # fmt: skip


def worth(candidate: Candidate, effect: Effect, *, real: bool) -> bool:
    """Tell whether a person should be asked; nothing that hides a confirmed incident ever is."""
    if effect.hidden_confirmed:
        return False
    innocent = effect.innocent_ratio <= INNOCENT_RATIO
    match candidate.kind:
        case Kind.THRESHOLD if real:
            return (effect.sooner_s or 0.0) >= LEAST_SOONER_S and not effect.added
        case Kind.THRESHOLD:
            return effect.hidden_false > 0
        case Kind.LIMIT:
            return effect.refused > 0 and innocent
        case Kind.BREAKER:
            return innocent
        case Kind.TIMEOUT:
            return effect.slower <= INNOCENT_RATIO * effect.requests
        case Kind.VALIDATION:
            return True
