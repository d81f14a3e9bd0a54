"""
A whole loop around a `Shop`, request by request and without a clock: guard, counters, engine, and directives back.

What reaches the guard is counted by who sent it, so that a test can say what those kept who had no part in it.
"""

from __future__ import annotations

from collections import Counter

from sidecar.config.policies import Compiled
from sidecar.controller import effects as fx
from sidecar.controller.engine import Engine
from sidecar.decide.policies import RespondPolicy
from sidecar.detect.policies import DetectPolicy
from sidecar.facts import Moment, Outcome, Scope
from sidecar.guard.guard import Guard
from sidecar.guard.policies import BreakerPolicy, GuardPolicy, RoutePolicy
from sidecar.link.frames import Trip
from sidecar.measure.classify import classify
from sidecar.measure.counters import Meter
from sidecar.reasons import TABLE, Refusal
from tests.support.culprits import START, Shop
from tests.support.world import compiled

LATENCY_S = 0.02


class Loop:
    """
    One worker and the engine before a shop, under the product's defaults.

    Attributes:
        came, kept: Requests since the shop broke, and those that were let in: by (route, client).
        acted: The scopes of all isolations, in order.
    """

    def __init__(self, shop: Shop, *, breaker: BreakerPolicy | None = None) -> None:
        policy = GuardPolicy({name: RoutePolicy(name, breaker=breaker) for name in shop.routes})
        config = compiled(shop.routes, respond=RespondPolicy(), detect=DetectPolicy())
        self.shop = shop
        self._guard = Guard(policy, START)
        self._meter = Meter()
        self._engine = Engine(config, seed="seed", now=self._moment(START), boot="b")
        self._configured(config)
        self._sequence = 0
        self.came: Counter[tuple[str, str]] = Counter()
        self.kept: Counter[tuple[str, str]] = Counter()
        self.acted: list[Scope] = []

    def __repr__(self) -> str:
        return f"<Loop {self.shop} {self.kept.total()} of {self.came.total()}>"

    @staticmethod
    def _moment(at: float) -> Moment:
        return Moment(at, 1_800_000_000.0 + at)

    def _configured(self, config: Compiled) -> None:
        row = fx.PutVersion(1, "# 1", "hash1", "ops", "", "file", "active", self._moment(START).unix, [])
        self._take(self._engine.configured(row, config, frozenset(), self._moment(START)))

    def run(self, seconds: int, *, broken: bool) -> Loop:
        """Play so many seconds."""
        for _ in range(seconds):
            begun = self.shop.at
            self.shop.at += 1.0
            for route in self.shop.routes:
                requests = list(self.shop.requests(route, broken=broken))
                for number, request in enumerate(requests):
                    status = int(request.status)
                    at = begun + (number + 0.5) / len(requests)
                    let_in = self._request(route, request.client, request.method, request.path, request.endpoint, status, at)
                    if broken:
                        self.came[route, request.client] += 1
                        self.kept[route, request.client] += let_in
            self._end_second()
        return self

    def _request(self, route: str, client: str, method: str, path: str, endpoint: str, status: int, at: float) -> bool:
        guard, counters = self._guard.route(route), self._meter.route(route)
        counters.arrive(client, at)
        ticket = guard.admit(client, at)
        if isinstance(ticket, Refusal):
            seen = TABLE[ticket.reason].status
            kind = method, seen, ticket.reason, classify(ticket.reason, None, frozenset()), "", path
            counters.end(client, kind, 0.0, None, False, None)
            return False
        guard.sent(ticket, at)
        outcome = Outcome.SUCCESS if status < 500 else Outcome.FAILURE
        guard.settle(ticket, outcome, at, LATENCY_S)
        counters.end(client, (method, status, None, outcome, endpoint, path), LATENCY_S, LATENCY_S, False, ticket.directive)
        return True

    def _end_second(self) -> None:
        at, now = self.shop.at, self._moment(self.shop.at)
        for trip in self._guard.tick(at):
            frame = Trip(0, trip.route, trip.at, trip.generation, trip.rule, trip.detail, trip.open_s)
            self._take(self._engine.observe(0, frame, now))
        self._sequence += 1
        tick = self._meter.tick(0, "e", self._sequence, at, self._guard, config_version=1)
        self._take(self._engine.observe(0, tick, now))
        self._take(self._engine.tick(now))

    def _take(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, fx.SetDirectives):
                self._guard.direct(tuple(effect.items), self.shop.at)
                self.acted += [item.scope for item in effect.items if item.scope not in self.acted]

    def share(self, route: str | None = None, *, but: str = "") -> float:
        """Return the part of the requests that was let in; of *route* or all others than the shop's, of clients *but* one."""
        keys = [key for key in self.came if (key[0] != self.shop.route if route is None else key[0] == route) and key[1] != but]
        came = sum(self.came[key] for key in keys)
        return sum(self.kept[key] for key in keys) / came if came else 1.0
