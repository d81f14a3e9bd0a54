"""
Incidents with a known culprit, composed request by request: whoever attributes them can be marked right or wrong.

A `Shop` has some routes, clients, paths, methods and endpoints with random weights, and one thing that breaks at
some moment: a client, a path, a method, an endpoint, a route with a status that it never gave before, or a route after a
config version was applied. Each request is drawn with all its properties, so the tables of a `RouteSecond` hang together
as they do on real traffic.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from sidecar.facts import ClientSecond, RouteSecond

START = 1000.0
WARM_S = 65
KINDS = ("client", "path", "method", "endpoint", "status", "version")
NORMAL_STATUS = "500"


@dataclass(slots=True)
class Request:
    """One request with everything that attribution may look at, whether the culprit is in it, and how it is answered."""

    client: str
    path: str
    method: str
    endpoint: str
    guilty: bool = False
    status: str = "200"


class Shop:
    """
    Simulated traffic of several routes with one culprit.

    Attributes:
        kind: Of `KINDS`.
        route: Where it breaks; an endpoint breaks on all.
        name: Of the culprit: a client key, a path, …
    """

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.at = START
        self.kind = KINDS[seed % len(KINDS)]
        self.routes = [f"r{i}" for i in range(rng.randint(2, 4))]
        self.rates = {route: rng.uniform(8.0, 16.0) for route in self.routes}
        self.normal = {route: rng.choice((0.001, 0.003, 0.01)) for route in self.routes}
        self.clients = {f"10.0.0.{i}": rng.uniform(0.5, 2.0) for i in range(rng.randint(4, 9))}
        if rng.random() < 0.3:
            self.clients["gateway"] = 1.5 * sum(self.clients.values())
        self.paths = {(route, client): self._paths(route) for route in self.routes for client in self.clients}
        self.endpoints = [f"10.1.0.{i}:9000" for i in range(rng.randint(2, 4) if self.kind == "endpoint" else 2)]
        self.posts = rng.uniform(0.2, 0.5)
        self.route = rng.choice(self.routes)
        self.name = self._culprit()
        self.ratio = rng.uniform(0.3, 1.0)
        self.status = "504" if self.kind == "status" else "503"

    def __repr__(self) -> str:
        return f"<Shop {self.kind} {self.name} on {self.route}, {self.ratio:.0%}>"

    def _paths(self, route: str) -> tuple[list[str], list[float]]:
        """Return four path templates and what a client asks of them, as cumulative weights."""
        weights = [self.rng.uniform(0.3, 3.0) for _ in range(4)]
        return [f"/{route}/p{i}/{{id}}" for i in range(4)], list(accumulate(weights))

    def _culprit(self) -> str:
        choices: dict[str, Callable[[], str]] = {
            "client": lambda: self.rng.choice(list(self.clients)),
            "path": lambda: f"/{self.route}/p{self.rng.randint(0, 3)}/{{id}}",
            "method": lambda: "POST",
            "endpoint": lambda: self.rng.choice(self.endpoints),
        }
        return choices.get(self.kind, lambda: self.route)()

    def guilty(self, route: str, request: Request) -> bool:
        """Tell whether the culprit is in this request."""
        if self.kind == "endpoint":
            return request.endpoint == self.name
        if route != self.route:
            return False
        return self.name in (request.client, request.path, request.method, route)

    def seconds(self, count: int, *, broken: bool) -> Iterator[list[RouteSecond]]:
        """Yield the next *count* seconds, one row a route."""
        for _ in range(count):
            self.at += 1.0
            yield [self._second(route, broken=broken) for route in self.routes]

    def requests(self, route: str, *, broken: bool) -> Iterator[Request]:
        """Yield the requests of one second on *route*, each with what the API makes of it."""
        rng = self.rng
        count = max(0, round(rng.gauss(self.rates[route], self.rates[route] ** 0.5)))
        for client in rng.choices(list(self.clients), list(self.clients.values()), k=count):
            paths, weights = self.paths[route, client]
            path = rng.choices(paths, cum_weights=weights)[0]
            method = "POST" if rng.random() < self.posts else "GET"
            request = Request(client, path, method, rng.choice(self.endpoints))
            request.guilty = broken and self.guilty(route, request)
            if rng.random() < (self.ratio if request.guilty else self.normal[route]):
                request.status = self.status if request.guilty else NORMAL_STATUS
            yield request

    def _second(self, route: str, *, broken: bool) -> RouteSecond:
        tables: dict[str, dict[str, list[int]]] = {name: {} for name in ("clients", "paths", "methods", "endpoints")}
        statuses: Counter[str] = Counter()
        count = failures = 0
        for request in self.requests(route, broken=broken):
            failed = request.status != "200"
            count, failures = count + 1, failures + failed
            statuses[request.status] += 1
            names = (request.client, request.path, request.method, request.endpoint)
            for table, name in zip(tables.values(), names, strict=True):
                row = table.setdefault(name, [0, 0])
                row[0] += 1
                row[1] += failed
        return self._row(route, count, failures, tables, statuses)

    def _row(
        self, route: str, count: int, failures: int, tables: dict[str, dict[str, list[int]]], statuses: Counter[str]
    ) -> RouteSecond:
        pairs: dict[str, Any] = {
            name: {key: (n, k) for key, (n, k) in table.items()} for name, table in tables.items() if name != "clients"
        }
        return RouteSecond(
            route, self.at, arrivals=count, successes=count - failures, failures=failures, latency={60: count},
            clients={key: ClientSecond(n, k) for key, (n, k) in tables["clients"].items()},
            statuses={status: (n, 0 if status == "200" else n) for status, n in statuses.items()}, **pairs,
        )  # fmt: skip
