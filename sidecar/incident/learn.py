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
    real, somebody waited     a shorter response timeout                    ≤ 0.1 % of answers were slower
    a config value            a rule, see `rules.py`                        (nothing is replayed: it is measured)

    A limit that was there and let the incident pass is proposed lower.

What can go wrong
    Little history: rates are quantiles of what was seen before the onset; below `LEAST_S` seconds of it no limit and no
    timeout is proposed. The culprit is the only client: nobody knows what is normal for a client, so none is limited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import Any, Final

from sidecar.facts import Detector, Scope, ScopeKind
from sidecar.incident.rules import LEAST_S, Normal, Rule, rule_of
from sidecar.incident.words import duration, many, percent

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
class Candidate:
    """Something to propose; either settings or a rule."""

    kind: Kind
    why: str
    settings: tuple[Setting, ...] = ()
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What is known of an incident and of the settings around it.

    Attributes:
        route: Its route; empty when it is about the whole service.
        real: Nobody said that it was not.
        sensitivity: Of the route's detectors.
        breaker, limited: The route has such a guard.
        rate_per_s, client_rate_per_s: Its limits for all and for each client, in tokens; None without.
        cost: Tokens that a request takes.
        timeout_s: Its response timeout.
        normal, service: What was normal on the route, in requests, and on all together, in tokens.
        suspect: The changes of the config version under suspicion.
    """

    scope: Scope
    route: str
    detectors: tuple[Detector, ...]
    real: bool
    sensitivity: str
    breaker: bool
    limited: bool
    rate_per_s: float | None
    client_rate_per_s: float | None
    cost: float
    timeout_s: float
    normal: Normal
    service: Normal
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
    normal, key = facts.normal, facts.scope.key
    others = max((rate for name, rate in normal.clients.items() if name != key), default=0.0)
    if facts.scope.kind is not ScopeKind.CLIENT or not others or normal.seconds < LEAST_S:
        return None
    rate, peak = CLIENT_FACTOR * others, normal.peaks.get(key, 0.0)
    why = f"client {key} asked up to {peak:.0f}/s, the others at most {others:.0f}/s"
    return _limit(facts, rate, peak, facts.client_rate_per_s, why, "per_client")


def _route_limit(facts: Facts) -> Candidate | None:
    normal = facts.normal
    if Detector.SURGE not in facts.detectors or not facts.route or normal.seconds < LEAST_S:
        return None
    rate, peak = ROUTE_FACTOR * normal.rate_per_s, normal.peak_per_s
    why = f"{facts.route} got up to {peak:.0f}/s, normally at most {normal.rate_per_s:.0f}/s"
    return _limit(facts, rate, peak, facts.rate_per_s, why)


def _limit(
    facts: Facts, rate_per_s: float, peak_per_s: float, now_per_s: float | None, why: str, *level: str
) -> Candidate | None:
    """Return a limit of *rate_per_s* requests, unless the incident would have met none, or the present one is as low."""
    rate = max(1, ceil(rate_per_s * facts.cost))
    if peak_per_s * facts.cost <= rate or (now_per_s is not None and now_per_s <= rate):
        return None
    whole = f"{{rate: {rate}/s, burst: {2 * rate}}}"
    settings: tuple[Setting, ...]
    if not facts.limited:
        settings = (Setting(_on_route(facts, "limit"), f"{{per_client: {whole}}}" if level else whole),)
    elif level and now_per_s is None:
        settings = (Setting(_on_route(facts, "limit", *level), whole),)
    else:
        values = (("rate", f"{rate}/s"), ("burst", str(2 * rate)))
        settings = tuple(Setting(_on_route(facts, "limit", *level, name), value) for name, value in values)
    said = f"; the limit is {now_per_s:g}/s" if now_per_s is not None else ""
    return Candidate(Kind.LIMIT, why + said, settings)


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
    normal = facts.normal if facts.route else facts.service
    if Detector.LATENCY not in facts.detectors or not normal.p99_s or normal.seconds < LEAST_S:
        return None
    wanted = max(LEAST_TIMEOUT_S, float(ceil(TIMEOUT_FACTOR * normal.p99_s)))
    if wanted > facts.timeout_s / 2 or normal.longest_s <= wanted:
        return None
    whose = f"requests of {facts.route}" if facts.route else "requests"
    why = f"{whose} waited up to {duration(normal.longest_s)} for an answer, which normally takes at most "
    why += f"{duration(normal.p99_s)}; the timeout is {duration(facts.timeout_s)}"
    path = _on_route(facts, "response_timeout") if facts.route else ("upstream", "response_timeout")
    return Candidate(Kind.TIMEOUT, why, (Setting(path, f"{wanted:g}s"),))


def _rule(change: Mapping[str, Any], facts: Facts) -> Candidate | None:
    """Return the rule that keeps the changed value from being set so low again."""
    path = str(change.get("path", ""))
    if path.startswith(f"routes.{facts.route}."):
        normal, cost = facts.normal, facts.cost
    elif path.startswith(("service.", "upstream.")):
        normal, cost = facts.service, 1.0
    else:  # of a route whose traffic nobody measured
        return None
    rule = rule_of(change, frozenset(facts.detectors), normal, cost)
    if rule is None:
        return None
    was = change.get("old")
    why = f"{path} {'was set to' if was is None else f'{was} →'} {change.get('new')}: normal traffic needs {rule}"
    return Candidate(Kind.VALIDATION, why, rule=rule)


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


def predicted(kind: str, effect: Mapping[str, Any]) -> str:
    """
    Return in words what a proposal would have done: `found 3s earlier, no alarm hidden, none added (over 24h)`.

    Args:
        kind: Of the proposal.
        effect: As `Effect.to_json` wrote it, maybe in an older release.
    """
    over = f"over {duration(effect.get('over_s', 0.0))}"
    return f"measured {over}" if kind == Kind.VALIDATION else f"{', '.join(_predicted(kind, effect))} ({over})"


def _predicted(kind: str, effect: Mapping[str, Any]) -> Iterator[str]:
    sooner, hidden, added = effect.get("sooner_s") or 0.0, effect.get("hidden", 0), effect.get("added", 0)
    refused, requests = effect.get("refused", 0), effect.get("requests", 0)
    if sooner:
        yield f"found {duration(abs(sooner))} {'earlier' if sooner > 0 else 'later'}"
    yield f"{many(hidden, 'alarm') if hidden else 'no alarm'} hidden, {added or 'none'} added"
    if kind == Kind.TIMEOUT:
        yield f"{effect.get('slower', 0):,} of {requests:,} answers took longer"
    elif refused or kind in (Kind.LIMIT, Kind.BREAKER):
        innocent = percent(effect.get("innocent_ratio", 0.0))
        yield f"{refused:,} more of {requests:,} requests refused, {innocent} of all others'"


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
