"""
Sums over some seconds of all routes, counted once however often they are asked for.

In an outage of fifty routes a hundred claims ask for the same sums within one second. A `Census` is of one span of time;
what it has added up it remembers, and it lives for that second only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from sidecar.facts import OVERFLOW, RouteSecond, Scope, ScopeKind

DIMENSIONS: Final = ("client", "method", "status", "endpoint", "path")
CONNECTION_STATUSES: Final = ("refused", "reset", "timeout")

Counts = tuple[int, int]  # (requests, bad)
Table = Mapping[str, Counts]


class Census:
    """
    The rows of one span, by route.

    Args:
        rows: In any order.
    """

    __slots__ = ("_judged", "_routes", "_suspects", "_tables")

    def __init__(self, rows: Iterable[RouteSecond]) -> None:
        self._routes: dict[str, list[RouteSecond]] = {}
        for row in rows:
            self._routes.setdefault(row.route, []).append(row)
        self._judged: dict[str, Counts] | None = None
        self._tables: dict[tuple[str, str, bool], Table] = {}
        self._suspects: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Census of {len(self._routes)} routes>"

    @property
    def routes(self) -> Table:
        """Return route → (judged requests, failures)."""
        if self._judged is None:
            self._judged = {
                name: (sum([row.successes + row.failures for row in rows]), sum([row.failures for row in rows]))
                for name, rows in self._routes.items()
            }
        return self._judged

    def of(self, scope: Scope) -> Counts:
        """Return (judged requests, failures) of a route or of the service."""
        if scope.kind is ScopeKind.SERVICE:
            return sum(n for n, _ in self.routes.values()), sum(k for _, k in self.routes.values())
        return self.routes.get(scope.name, (0, 0))

    def table(self, scope: Scope, dimension: str, *, slow: bool = False) -> Table:
        """
        Return one dimension's values with their (requests, bad), of a route or of the service.

        Args:
            scope: Which rows.
            dimension: One of `DIMENSIONS`.
            slow: Bad are slow requests, not failures; these are known by client only.
        """
        key = ("" if scope.kind is ScopeKind.SERVICE else scope.name, dimension, slow)
        found = self._tables.get(key)
        if found is None:
            found = self._tables[key] = _added(self._rows(key[0]), dimension, slow=slow)
        return found

    def heaviest_sinner(self, route: str) -> str:
        """Return the client with the most failures on *route*; empty without any. Cheaper than its table."""
        found = self._suspects.get(route)
        if found is None:
            failures: dict[str, int] = {}
            for row in self._rows(route):
                for key, client in row.clients.items():
                    if client.failures:
                        failures[key] = failures.get(key, 0) + client.failures
            failures.pop(OVERFLOW, None)
            worst = max(failures, key=lambda key: (failures[key], key), default="")
            share = failures.get(worst, 0) / max(self.routes.get(route, (0, 0))[1], 1)
            found = self._suspects[route] = worst if share >= 0.5 else ""
        return found

    def unanswered_ratio(self, scope: Scope) -> float:
        """Return the part of the judged requests that got no answer at all: refused, reset, timeout."""
        rows, judged = self._rows("" if scope.kind is ScopeKind.SERVICE else scope.name), self.of(scope)[0]
        lost = sum(row.statuses.get(status, (0, 0))[0] for row in rows for status in CONNECTION_STATUSES)
        return lost / judged if judged else 0.0

    def held_ratio(self, scope: Scope) -> float:
        """Return the part of all arrivals that directives held back."""
        held = arrivals = 0
        for row in self._rows("" if scope.kind is ScopeKind.SERVICE else scope.name):
            arrivals += row.arrivals
            held += sum(row.held.values())
        return held / arrivals if arrivals else 0.0

    def _rows(self, route: str) -> Iterator[RouteSecond]:
        """Yield the rows of one route, or of all when it is empty."""
        for rows in self._routes.values() if not route else (self._routes.get(route, ()),):
            yield from rows


def _added(rows: Iterable[RouteSecond], dimension: str, *, slow: bool) -> Table:
    sums: dict[str, list[int]] = {}
    for row in rows:
        for name, (requests, bad) in _counts(row, dimension, slow=slow):
            known = sums.get(name)
            if known is None:
                sums[name] = [requests, bad]
            else:
                known[0] += requests
                known[1] += bad
    return {name: (n, k) for name, (n, k) in sums.items()}


def _counts(row: RouteSecond, dimension: str, *, slow: bool) -> Collection[tuple[str, Counts]]:
    match dimension:
        case "client":
            return [(key, (c.requests, c.slow if slow else c.failures)) for key, c in row.clients.items()]
        case "method":
            return row.methods.items()
        case "status":
            return row.statuses.items()
        case "endpoint":
            return row.endpoints.items()
        case _:
            return row.paths.items()
