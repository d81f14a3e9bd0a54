"""
A world for the engine: steady clients before an API that can be broken by script, and one worker that obeys directives.

Everything is arithmetic on the second: no clock, no random number, no I/O. `World.run(seconds)` plays seconds; what the
engine wanted is in `World.effects`, one line each in `World.script`, so that a test can be read as a play.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sidecar.config.policies import (
    AdminPolicy,
    Compiled,
    DrainPolicy,
    Endpoint,
    Match,
    ProxyPolicy,
    ReceiverPolicy,
    RouteRule,
    StaticConfig,
    UpstreamPolicy,
)
from sidecar.controller import effects as fx
from sidecar.controller.commands import Command, Done, Rejected
from sidecar.controller.engine import Engine, Restored
from sidecar.decide.policies import RespondPolicy
from sidecar.detect.policies import DetectPolicy
from sidecar.facts import Action, Directive, Mode, Moment, Scope, ScopeKind
from sidecar.guard.policies import GuardPolicy
from sidecar.link.frames import RouteTick, Sample, Tick, Trip
from sidecar.measure import histogram

UNIX = 1_800_000_000.0
QUICK = RespondPolicy(
    lease_s=60.0, ramp=(0.01, 0.05, 0.25, 0.5, 1.0), ramp_hold_s=3.0, clear_after_s=5.0, suspect_window_s=60.0
)


def compiled(
    routes: Iterable[str] = ("checkout",),
    *,
    respond: RespondPolicy = QUICK,
    detect: DetectPolicy | None = None,
    mode: Mode = Mode.ENFORCE,
) -> Compiled:
    """A config with these routes; detection warms up in 10 s and clears in 5 s unless told otherwise."""
    return Compiled(
        static=StaticConfig(),
        admin=AdminPolicy(),
        mode=mode,
        proxy=ProxyPolicy(
            tuple(RouteRule(name, Match(f"/api/{name}/**")) for name in routes),
            UpstreamPolicy((Endpoint("127.0.0.1", 9000),)),
        ),
        guard=GuardPolicy(),
        detect=detect or DetectPolicy(warmup_s=10.0, clear_after_s=5.0),
        respond=respond,
        drain=DrainPolicy(),
        receivers=(ReceiverPolicy("log", "log"),),
    )


@dataclass
class Flow:
    """One client on one route: so many requests a second, of which a part fails, at a latency."""

    route: str
    client: str
    per_s: float
    fail: float = 0.0
    latency_s: float = 0.02
    method: str = "POST"
    endpoint: str = ""


@dataclass
class _Route:
    """Cumulative counters, as a worker keeps them."""

    arrivals: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    latency: dict[int, int] = field(default_factory=dict)
    clients: dict[str, list[int]] = field(default_factory=dict)
    methods: dict[str, list[int]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    paths: dict[str, list[int]] = field(default_factory=dict)
    endpoints: dict[str, list[int]] = field(default_factory=dict)
    trials: dict[str, list[int]] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    trips: int = 0
    drilled: dict[str, int] = field(default_factory=dict)
    drilled_latency: dict[int, int] = field(default_factory=dict)


class World:
    """Clients, an API, one worker and the engine."""

    def __init__(
        self,
        *flows: Flow,
        config: Compiled | None = None,
        restored: Restored | None = None,
        at: float = 1000.0,
        boot: str = "boot-1",
    ) -> None:
        self.flows = list(flows) or [Flow("checkout", f"c{i}", 5.0) for i in range(4)]
        self.config = config or compiled(dict.fromkeys(flow.route for flow in self.flows))
        self.now = Moment(at, UNIX + at)
        self.boot = boot
        self.engine = Engine(self.config, seed="seed", now=self.now, restored=restored, boot=boot)
        self.effects: list[fx.Effect] = []
        self.directives: tuple[Directive, ...] = ()
        self.faults: set[str] = set()
        self.delays: dict[str, float] = {}
        self.breakers: dict[str, str] = {}
        self.deaf: set[str] = set()
        self.refuse: Callable[[Flow], float] = lambda flow: 0.0
        self.durable = True
        self.arrivals: list[tuple[float, int, int]] = []
        self._routes: dict[str, _Route] = {}
        self._debt: dict[tuple[str, ...], float] = {}
        self._sequence = itertools.count(1)
        self.epoch = "e1"
        self.version = 1
        self.apply(version=1)
        self.effects.clear()

    # --- time

    def run(self, seconds: int) -> World:
        """Play so many seconds."""
        for _ in range(seconds):
            self.second()
        return self

    def second(self) -> list[fx.Effect]:
        """Play one second and return what the engine wanted at its end."""
        self.now = Moment(self.now.at + 1.0, self.now.unix + 1.0)
        self.directives = tuple(d for d in self.directives if d.end_at > self.now.at)
        came, held = 0, 0
        for flow in self.flows:
            arrived, refused = self._flow(flow)
            came, held = came + arrived, held + refused
        self.arrivals.append((self.now.at, came, held))
        self.take(self.engine.observe(0, self._tick(), self.now))
        return self.take(self.engine.tick(self.now, durable=self.durable))

    def until(self, wanted: Callable[[], object], at_most: int) -> int:
        """Play until *wanted* is true and return the seconds that it took; fail after *at_most*."""
        for second in range(at_most + 1):
            if wanted():
                return second
            self.second()
        raise AssertionError(f"not within {at_most} s; the script so far:\n" + "\n".join(self.script()))

    def take(self, effects: list[fx.Effect]) -> list[fx.Effect]:
        """Do what a controller would do with *effects*."""
        self.effects += effects
        for effect in effects:
            if isinstance(effect, fx.SetDirectives):
                self.directives = tuple(effect.items)
            elif isinstance(effect, fx.SetFaults):
                self.faults = {fault.route for fault in effect.items if fault.kind == "errors"}
                self.delays = {fault.route: fault.delay_s for fault in effect.items if fault.kind == "latency"}
            elif isinstance(effect, fx.Notify):
                for policy in (each for each in self.config.receivers if each.name not in self.deaf):
                    self.engine.drilling.arrived(policy.name, effect.alert.incident["id"], self.now)
            elif isinstance(effect, fx.ResetBreaker):
                self.breakers.pop(effect.route, None)
        return effects

    # --- people and configs

    def command(self, command: Command) -> Done | Rejected:
        """Give a command."""
        answer, effects = self.engine.command(command, self.now)
        self.take(effects)
        return answer

    def apply(
        self,
        version: int,
        *,
        touched: Iterable[str] = (),
        source: str = "api",
        config: Compiled | None = None,
        changes: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Make a config version active."""
        self.config = config or self.config
        self.version = version
        row = fx.PutVersion(
            version, f"# {version}", f"hash{version}", "ops", "why", source, "active", self.now.unix, list(changes)
        )
        scopes = frozenset(Scope.parse(text) for text in touched)
        self.take(self.engine.configured(row, self.config, scopes, self.now))

    def trip(self, route: str, open_s: float = 5.0) -> None:
        """A breaker opens."""
        self._route(route).trips += 1
        frame = Trip(0, route, self.now.at, 1, "error_ratio", "90% of 40", open_s)
        self.take(self.engine.observe(0, frame, self.now))

    def sample(self, route: str, client: str = "c0") -> None:
        """A worker sends one redacted exchange."""
        frame = Sample(route, self.now.at, client, "POST", "/api/{id}", 503, "", 0.02, ["host"])
        self.take(self.engine.observe(0, frame, self.now))

    def restart(self, *, boot: str | None = None, away_s: float = 2.0) -> World:
        """Let the controller die, and after *away_s* another one take over from what was stored; *boot*: a reboot."""
        restored = Restored.of(Stored(self.effects))
        at = self.now.at if boot in (None, self.boot) else 50.0
        self.boot = boot or self.boot
        self.now = Moment(at + away_s, self.now.unix + away_s)
        self.engine = Engine(self.config, seed="seed", now=self.now, restored=restored, boot=self.boot)
        self.take([fx.SetDirectives(())])  # what a loop holds before its engine says more
        self.apply(self.version)
        return self

    # --- what was wanted

    def script(self) -> list[str]:
        """Return one line for each event: its kind, scope and the most telling facts."""
        return [_line(effect) for effect in self.effects if isinstance(effect, fx.AppendEvent)]

    def kinds(self) -> list[str]:
        """Return the kinds of the events, in order."""
        return [effect.kind for effect in self.effects if isinstance(effect, fx.AppendEvent)]

    def alerts(self) -> list[fx.Alert]:
        """Return the alerts, in order."""
        return [effect.alert for effect in self.effects if isinstance(effect, fx.Notify)]

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the effects of one kind, in order."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def incident(self, number: int = 1) -> dict[str, Any]:
        """Return an incident's document as it is now."""
        found = self.engine.incident(number, self.now)
        assert found is not None
        return found

    def live(self) -> list[dict[str, Any]]:
        """Return the isolations in force."""
        return self.engine.isolations(self.now)

    def refused_ratio(self, seconds: int) -> float:
        """Return the part of the last seconds' arrivals that was refused."""
        rows = self.arrivals[-seconds:]
        return sum(row[2] for row in rows) / max(sum(row[1] for row in rows), 1)

    # --- the worker

    def _route(self, name: str) -> _Route:
        return self._routes.setdefault(name, _Route())

    def _share(self, key: tuple[str, ...], per: float) -> int:
        """Return how many whole ones *per* adds up to, carrying the rest."""
        owed = self._debt.get(key, 0.0) + per
        whole = int(owed + 1e-9)
        self._debt[key] = owed - whole
        return whole

    def _flow(self, flow: Flow) -> tuple[int, int]:
        row = self._route(flow.route)
        arrived = self._share(("arrive", flow.route, flow.client, flow.endpoint), flow.per_s)
        row.arrivals += arrived
        limited = self._share(("limit", flow.route, flow.client), arrived * self.refuse(flow))
        _add(row.refused, "rate_limited", limited)
        directive = self._directive(flow)
        rest = arrived - limited
        passed = rest
        if directive is not None:
            share = directive.share_ratio if directive.share_ratio is not None else 1.0
            passed = self._share(("pass", flow.route, flow.client), rest * share)
            held = rest - passed
            _add(row.held, directive.id, held)
            _add(row.refused, "client_throttled" if directive.scope.kind is ScopeKind.CLIENT else "isolated", held)
        failed = self._share(("fail", flow.route, flow.client, flow.endpoint), passed * flow.fail)
        good = passed - failed
        if flow.route in self.faults:
            _add(row.drilled, "failure", passed)
            _add(row.outcomes, "ignored", passed)
            if directive is not None:
                _pair(row.trials, directive.id, 0, passed)
            _add(row.outcomes, "cancelled", arrived - passed)
            return arrived, arrived - passed - limited
        if flow.route in self.delays:
            _add(row.drilled, "success", passed)
            _add(row.drilled_latency, histogram.index(self.delays[flow.route]), passed)
            _add(row.outcomes, "ignored", passed)
            if directive is not None:
                _pair(row.trials, directive.id, passed, 0)
            _add(row.outcomes, "cancelled", arrived - passed)
            return arrived, arrived - passed - limited
        _add(row.outcomes, "success", good)
        _add(row.outcomes, "failure", failed)
        _add(row.outcomes, "cancelled", arrived - passed)
        if passed:
            _add(row.latency, histogram.index(flow.latency_s), passed)
        slow = passed if flow.latency_s > 0.2 else 0
        _pair(row.clients, flow.client, passed, failed, slow)
        _pair(row.methods, flow.method, passed, failed)
        _pair(row.paths, f"/api/{flow.route}/{{id}}", passed, failed)
        if flow.endpoint:
            _pair(row.endpoints, flow.endpoint, passed, failed)
        _pair(row.statuses, "200", good, 0)
        _pair(row.statuses, "503", failed, failed)
        if directive is not None and directive.id.startswith("isolation"):
            _pair(row.trials, directive.id, good, failed)
        return arrived, arrived - passed - limited

    def _directive(self, flow: Flow) -> Directive | None:
        scopes = (Scope.client(flow.route, flow.client), Scope.route(flow.route), Scope.service())
        overrides = [d for d in self.directives if d.id.startswith("override")]
        for group in (overrides, [d for d in self.directives if d.id.startswith("isolation")]):
            for scope in scopes:
                for directive in group:
                    if directive.scope == scope:
                        return None if directive.action in (Action.ALLOW, Action.OBSERVE) else directive
        return None

    def _tick(self) -> Tick:
        rows = {
            name: RouteTick(
                arrivals=row.arrivals,
                outcomes=dict(row.outcomes),
                refused=dict(row.refused),
                latency=(0.0, sorted(row.latency.items())),
                clients=[[key, "b", *counts] for key, counts in row.clients.items()],
                methods=dict(row.methods),
                statuses=dict(row.statuses),
                paths=dict(row.paths),
                endpoints=dict(row.endpoints),
                trials=dict(row.trials),
                held=dict(row.held),
                trips=row.trips,
                breaker=self.breakers.get(name, "closed"),
                drilled=dict(row.drilled),
                drilled_latency=(0.0, sorted(row.drilled_latency.items())),
            )
            for name, row in self._routes.items()
        }
        number = next(self._sequence)
        return Tick(0, self.epoch, number, self.now.at, rows, since_at=0.0, full=number == 1)


def _add(counts: dict[Any, int], key: Any, count: int) -> None:
    if count:
        counts[key] = counts.get(key, 0) + count


def _pair(pairs: dict[str, list[int]], key: str, *counts: int) -> None:
    old = pairs.get(key, [0] * len(counts))
    if any(counts):
        pairs[key] = [a + b for a, b in zip(old, counts, strict=True)]


def _line(event: fx.AppendEvent) -> str:
    facts = " ".join(f"{key}={value}" for key, value in sorted(event.body.items()))
    number = f"#{event.incident} " if event.incident is not None else ""
    return f"{event.kind} {number}{event.scope} by {event.author} {facts}".strip()


class Stored:
    """What a store would have after these effects: the least that `Restored.of` asks for, as plain dictionaries."""

    def __init__(self, effects: Iterable[fx.Effect]) -> None:
        self._incidents: dict[int, fx.PutIncident] = {}
        self._isolations: dict[str, fx.PutIsolation] = {}
        self._overrides: dict[str, fx.PutOverride] = {}
        self._baselines: dict[str, Any] = {}
        self._marks: dict[str, str] = {}
        for effect in effects:
            match effect:
                case fx.PutIncident():
                    self._incidents[effect.id] = effect
                case fx.PutIsolation():
                    self._isolations[effect.id] = effect
                case fx.PutOverride():
                    self._overrides[effect.id] = effect
                case fx.PutBaseline(route, document):
                    self._baselines[route] = document
                case fx.PutMark(key, text):
                    self._marks[key] = text

    def incidents(self, *, states: Iterable[str] = (), limit: int = 100) -> list[Any]:
        """Return incidents' documents, the newest first."""
        rows = sorted(self._incidents.values(), key=lambda row: -row.id)
        return [row.document for row in rows if not states or row.state in states][:limit]

    def last_incident_id(self) -> int:
        """Return the highest number."""
        return max(self._incidents, default=0)

    def isolations(self, *, ended: bool = False) -> list[Any]:
        """Return isolations' documents."""
        return [row.document for row in self._isolations.values() if row.ended is ended]

    def overrides(self, *, ended: bool = False) -> list[Any]:
        """Return overrides' documents."""
        return [row.document for row in self._overrides.values() if row.ended is ended]

    def baselines(self) -> dict[str, Any]:
        """Return the detectors' memory by route."""
        return self._baselines

    def marks(self) -> dict[str, str]:
        """Return the marks."""
        return self._marks


__all__ = ["QUICK", "UNIX", "Flow", "Stored", "World", "compiled", "replace"]
