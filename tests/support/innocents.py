"""
A whole loop around a `Shop`, request by request and without a clock: guard, counters, engine, and directives back.

What reaches the guard is counted by who sent it, so that a test can say what those kept who had no part in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

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
        acted: The scopes of all directives, in the order in which they began.
        isolations: What became of each isolation, in the order in which they began.
    """

    def __init__(self, shop: Shop, *, breaker: BreakerPolicy | None = None) -> None:
        policy = GuardPolicy({name: RoutePolicy(name, breaker=breaker) for name in shop.routes})
        config = compiled(shop.routes, respond=RespondPolicy(), detect=DetectPolicy())
        self.shop = shop
        self._guard = Guard(policy, START)
        self._meter = Meter()
        self.engine = Engine(config, seed="seed", now=self._moment(START), boot="b")
        self._configured(config)
        self._sequence = 0
        self.came: Counter[tuple[str, str]] = Counter()
        self.kept: Counter[tuple[str, str]] = Counter()
        self.acted: list[Scope] = []
        self.isolations: dict[str, Mapping[str, Any]] = {}

    def __repr__(self) -> str:
        return f"<Loop {self.shop} {self.kept.total()} of {self.came.total()}>"

    @property
    def now(self) -> Moment:
        """The end of the last second."""
        return self._moment(self.shop.at)

    @staticmethod
    def _moment(at: float) -> Moment:
        return Moment(at, 1_800_000_000.0 + at)

    def _configured(self, config: Compiled) -> None:
        row = fx.PutVersion(1, "# 1", "hash1", "ops", "", "file", "active", self._moment(START).unix, [])
        self.take(self.engine.configured(row, config, frozenset(), self._moment(START)))

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
                    let_in = self._request(
                        route, request.client, request.method, request.path, request.endpoint, status, at
                    )
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
        counters.end(
            client, (method, status, None, outcome, endpoint, path), LATENCY_S, LATENCY_S, False, ticket.directive
        )
        return True

    def _end_second(self) -> None:
        at, now = self.shop.at, self._moment(self.shop.at)
        for trip in self._guard.tick(at):
            frame = Trip(0, trip.route, trip.at, trip.generation, trip.rule, trip.detail, trip.open_s)
            self.take(self.engine.observe(0, frame, now))
        self._sequence += 1
        tick = self._meter.tick(0, "e", self._sequence, at, self._guard, config_version=1)
        self.take(self.engine.observe(0, tick, now))
        self.take(self.engine.tick(now))

    def take(self, effects: list[fx.Effect]) -> None:
        """Do what a controller would do with *effects*."""
        for effect in effects:
            if isinstance(effect, fx.SetDirectives):
                self._guard.direct(tuple(effect.items), self.shop.at)
                self.acted += [item.scope for item in effect.items if item.scope not in self.acted]
            elif isinstance(effect, fx.PutIsolation):
                self.isolations[effect.id] = effect.document

    def until(self, wanted: Callable[[], object], at_most: int) -> None:
        """Play the broken shop until *wanted* is true; fail after *at_most* seconds."""
        for _ in range(at_most):
            if wanted():
                return
            self.run(1, broken=True)
        raise AssertionError(f"not within {at_most} s: {self.acted}")

    def forget(self) -> None:
        """Count anew what comes and what is kept."""
        self.came.clear()
        self.kept.clear()

    def kept_of(self, route: str, client: str) -> float:
        """Return the part of one client's requests that was let in."""
        return self._share([(route, client)])

    def share(self, route: str = "", *, but: str = "") -> float:
        """Return the part that was let in of all clients *but* one on *route*, or on all routes but the broken one."""
        return self._share(
            (name, client)
            for name, client in self.came
            if (name == route if route else name != self.shop.route) and client != but
        )

    def _share(self, keys: Iterable[tuple[str, str]]) -> float:
        rows = [(self.came[key], self.kept[key]) for key in keys]
        came = sum(row[0] for row in rows)
        return sum(row[1] for row in rows) / came if came else 1.0
