"""
Plays a tape: the product's own engine over recorded seconds, with simulated time.

Theory
    Each second of the tape goes through the guards (`guards.py`), then to `Engine.second`, which detects, decides and
    recovers exactly as live. The isolations that it puts in force take from the seconds that follow. Nobody answers: the
    unattended ladder runs. Both clocks are the tape's `t`, nothing is drawn at random and no order depends on a hash, so
    the same tape and config give the same bytes.

Tables
    event      when
    alarm      a detector begins to sound about a route; `scope` is the narrowest that explains it
    clear      it ended
    isolate    an isolation is put in force
    ramp       its share changed, on evidence or by the ladder
    release    it ended: recovered, released, expired or superseded
    propose    automation would isolate and may not (observe mode, an empty budget): a person is asked

What can go wrong
    A route that the config does not know is played as one without guards of its own, and told. Detection begins cold:
    what happens before its warm-up is only found when it is gross.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sidecar.config.policies import Compiled, Match, RouteRule
from sidecar.controller.effects import AppendEvent, Effect, PutVersion, SetDirectives
from sidecar.controller.engine import Engine
from sidecar.facts import Directive, Moment, RouteSecond, Scope, ScopeKind, Signal
from sidecar.guard.breaker import TripEvent
from sidecar.link.frames import Trip
from sidecar.replay.guards import Guards
from sidecar.replay.learned import Learned
from sidecar.replay.seconds import Second

SERVICE: Final = "service"
NAMED: Final = 6  # of the routes that a config does not know
KINDS: Final = {
    "isolation.started": "isolate",
    "isolation.ramped": "ramp",
    "isolation.ended": "release",
    "isolation.withheld": "propose",
}
_Heard = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Event:
    """One line that a replay writes; see the table above."""

    t: float
    route: str
    event: str
    detector: str
    score: float
    scope: str
    detail: Mapping[str, Any]

    def to_json(self) -> str:
        """Return it as one line of JSON, without a line feed."""
        row = {
            "t": self.t, "route": self.route, "event": self.event, "detector": self.detector, "score": self.score,
            "scope": self.scope, "detail": dict(self.detail),
        }  # fmt: skip
        return json.dumps(row, separators=(", ", ": "))


@dataclass(slots=True)
class Toll:
    """
    What one route's traffic came to over the whole tape.

    Attributes:
        clients, clients_refused: By (key, whether it was in a time of trouble).
        latency: Of the answers outside of any trouble: bucket → count.
    """

    requests: int = 0
    failures: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    clients: Counter[tuple[str, bool]] = field(default_factory=Counter)
    clients_refused: Counter[tuple[str, bool]] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)

    def add(self, row: RouteSecond, *, trouble: bool) -> None:
        """Add one second; *trouble*: an incident is known for it."""
        self.requests += row.arrivals
        self.failures += row.failures
        self.refused.update(row.refused)
        if not trouble:  # an answer that an incident held up is no reason to wait so long for it
            self.latency.update(row.latency)
        for key, client in row.clients.items():
            self.clients[key, trouble] += client.requests + client.refused
            if client.refused:
                self.clients_refused[key, trouble] += client.refused


class Player:
    """
    One replay.

    Args:
        compiled: The config to replay under.
        tell: Told of routes that the config does not know.
        trouble: (from, until) of incidents that are known, in Unix seconds.
        learned: What verdicts taught; nothing by default.

    Attributes:
        tolls: By route, what it came to so far.
        seconds: Seconds that were played.
    """

    def __init__(
        self,
        compiled: Compiled,
        tell: Callable[[str], None] = lambda _: None,
        trouble: Sequence[tuple[float, float]] = (),
        learned: Learned | None = None,
    ) -> None:
        self._learned = learned or Learned()
        self._trouble = tuple(trouble)
        self._compiled = compiled
        self._tell = tell
        self._engine: Engine | None = None
        self._guards: Guards | None = None
        self._sounding: dict[_Heard, tuple[Signal, str, float]] = {}
        self._directives: tuple[Directive, ...] = ()
        self.tolls: dict[str, Toll] = {}
        self.seconds = 0

    def __repr__(self) -> str:
        return f"<Player {self.seconds} s, {len(self._sounding)} alarms>"

    def play(self, seconds: Iterable[Second]) -> Iterator[Event]:
        """Yield what happens, second by second."""
        for second in seconds:
            yield from self.second(second)

    def second(self, second: Second) -> list[Event]:
        """Play one second and return what happened in it."""
        engine, guards = self._ready(second)
        now = Moment(second.t, second.t)
        rows, trips = guards.take(second.lines, now.at, second.step_s)
        trouble = any(since <= now.at <= until for since, until in self._trouble)
        for row in rows:
            self.tolls.setdefault(row.route, Toll()).add(row, trouble=trouble)
        effects = [effect for trip in trips for effect in engine.observe(0, _frame(trip), now)]
        effects += engine.second(rows, now)
        self.seconds += 1
        happened = [*self._alarms(engine, now.at), *self._decisions(engine, effects, now.at)]
        for effect in effects:
            if isinstance(effect, SetDirectives):
                guards.direct(effect.items)
        return happened

    def incidents(self) -> list[dict[str, Any]]:
        """Return the incidents, the oldest first, in the contract's shape."""
        if self._engine is None:
            return []
        return self._engine.incidents(None, Moment(0.0, 0.0))[::-1]

    def _ready(self, second: Second) -> tuple[Engine, Guards]:
        known = {rule.name for rule in self._compiled.proxy.routes}
        new = [route for route in second.lines if route not in known]
        if new:
            names = ", ".join(new[:NAMED]) + (f" and {len(new) - NAMED} more" if len(new) > NAMED else "")
            self._tell(f"no route in the config, so played without a limit and breaker of its own: {names}")
            rules = (*self._compiled.proxy.routes, *(RouteRule(route, Match()) for route in new))
            self._compiled = replace(self._compiled, proxy=replace(self._compiled.proxy, routes=rules))
        if self._engine is None or self._guards is None:
            start = Moment(second.t - 1.0, second.t - 1.0)
            self._engine = Engine(self._compiled, seed="", now=start)
            learned = self._learned
            self._engine.tutor.start(learned.tuning, learned.demoted, learned.sizes, start.unix)
            self._guards = Guards(self._compiled, start.at)
            self._engine.configured(_VERSION, self._compiled, (), start)
        elif new:
            self._engine.configured(_VERSION, self._compiled, (), Moment(second.t - 1.0, second.t - 1.0))
        return self._engine, self._guards

    # --- what is told ------------------------------------------------------------------------------------------------

    def _alarms(self, engine: Engine, t: float) -> Iterator[Event]:
        heard = {(signal.scope.name or SERVICE, signal.detector.value): signal for signal in engine.heard}
        for key in [key for key in self._sounding if key not in heard]:
            signal, scope, since = self._sounding.pop(key)
            yield Event(t, key[0], "clear", key[1], _round(signal.score), scope, {"lasted_s": _round(t - since)})
        for key, signal in heard.items():
            if key in self._sounding:
                _, scope, since = self._sounding[key]
                self._sounding[key] = (signal, scope, since)
                continue
            claim = _claim(signal, engine.claims)
            self._sounding[key] = (signal, str(claim.scope), t)
            yield Event(t, key[0], "alarm", key[1], _round(claim.score), str(claim.scope), _measured(claim))

    def _decisions(self, engine: Engine, effects: Sequence[Effect], t: float) -> Iterator[Event]:
        for effect in effects:
            if not isinstance(effect, AppendEvent) or effect.kind not in KINDS:
                continue
            scope = Scope.parse(effect.scope)
            lead = _lead(engine, effect.incident, effect.scope)
            route = SERVICE if scope.kind is ScopeKind.SERVICE else scope.name
            detail = {"incident": effect.incident, **effect.body}
            yield Event(t, route, KINDS[effect.kind], lead[0], lead[1], effect.scope, detail)


_VERSION: Final = PutVersion(1, "", "", "tape", "", "file", "active", 0.0)


def _frame(trip: TripEvent) -> Trip:
    return Trip(0, trip.route, trip.at, trip.generation, trip.rule, trip.detail, trip.open_s)


def _claim(signal: Signal, claims: Sequence[Signal]) -> Signal:
    """Return *signal* on its attributed scope."""
    same = [claim for claim in claims if claim.detector is signal.detector]
    near = [claim for claim in same if claim.scope.name == signal.scope.name]
    return next(iter([*near, *same]), signal)


def _measured(claim: Signal) -> dict[str, Any]:
    return {
        "value": _round(claim.value), "baseline": _round(claim.baseline), "unit": claim.unit, "sample": claim.sample,
        "threshold": _round(claim.threshold), "since": _round(claim.since_at), "severe": claim.severe,
        "material": claim.material,
    }  # fmt: skip


def _lead(engine: Engine, incident: int | None, scope: str) -> tuple[str, float]:
    """Return the detector and score that say most about *scope*."""
    document = engine.incident(incident, Moment(0.0, 0.0)) if incident is not None else None
    signals = document["signals"] if document is not None else ()
    best = max(
        signals, key=lambda row: (row["scope"] == scope, row["score"] / max(row["threshold"], 1e-9)), default=None
    )
    return (best["detector"], _round(best["score"])) if best is not None else ("", 0.0)


def _round(value: float) -> float:
    return round(value, 4)
