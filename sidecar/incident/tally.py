"""Sums over seconds: who asked, who failed, and in which order to name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sidecar.facts import RouteSecond, Scope, ScopeKind


def requests_of(rows: Iterable[RouteSecond], scope: Scope) -> tuple[int, int, int]:
    """Return (requests, failures, slow) of *scope* in *rows*; requests are judged ones, for a client and an endpoint ended ones."""
    total, bad, slow = 0, 0, 0
    for row in rows:
        if scope.kind is ScopeKind.CLIENT:
            client = row.clients.get(scope.key)
            if client is not None:
                total, bad, slow = total + client.requests, bad + client.failures, slow + client.slow
        elif scope.kind is ScopeKind.ENDPOINT:
            requests, failures = row.endpoints.get(scope.name, (0, 0))
            total, bad = total + requests, bad + failures
        else:
            total, bad = total + row.judged, bad + row.failures
    return total, bad, slow


def add_pairs(rows: Iterable[Mapping[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    """Sum maps of name → (requests, failures)."""
    total: dict[str, tuple[int, int]] = {}
    for row in rows:
        for name, (requests, failures) in row.items():
            old = total.get(name, (0, 0))
            total[name] = (old[0] + requests, old[1] + failures)
    return total


def add_clients(rows: Iterable[RouteSecond]) -> dict[str, tuple[int, int]]:
    """Sum the heavy clients of *rows*: key → (requests, failures)."""
    return add_pairs({key: (c.requests, c.failures) for key, c in row.clients.items()} for row in rows)


def ranked(pairs: Mapping[str, tuple[int, int]], top: int) -> list[tuple[str, int, int]]:
    """Return the *top* names: most failures first, then most requests, then by name."""
    rows = [(name, requests, failures) for name, (requests, failures) in pairs.items()]
    return sorted(rows, key=lambda row: (-row[2], -row[1], row[0]))[:top]
