"""
The blast-radius budget: how much of all traffic automation may refuse.

Theory
    Let a_i be the arrivals of isolated scope i in the last seconds, s_i the share that passes there, A all arrivals.
    What is refused is Σ a_i (1 − s_i), nested scopes counted as if their shares multiplied (which is never less than
    what the guards refuse). When that exceeds B·A, every share is raised alike: s_i' = 1 − (1 − s_i)·λ with the largest
    λ ≤ 1 that meets the budget, found by bisection because nesting makes it a polynomial in λ, always rising.

What can go wrong
    Arrivals fluctuate and the shares would move every second: they are rounded up to whole percents and sink only when
    they can sink by `SINK_RATIO`; they rise at once.
    No arrival at all: nothing is refused, nothing is raised.
    A client that the bounded table of heavy clients does not know counts 0; it is small by construction.
    Breakers refuse on their own account, and overrides on a person's: neither is charged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sidecar.facts import Scope, ScopeKind

WINDOW_S: Final = 10
SINK_RATIO: Final = 0.05
_HALVINGS: Final = 40


@dataclass(frozen=True, slots=True)
class Load:
    """Arrivals in the last `WINDOW_S` seconds: by route, and by (route, client key)."""

    routes: Mapping[str, float] = field(default_factory=dict)
    clients: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Count all arrivals."""
        return float(sum(self.routes.values()))

    def of(self, scope: Scope) -> float:
        """Count the arrivals of one scope."""
        match scope.kind:
            case ScopeKind.SERVICE | ScopeKind.ENDPOINT:
                return self.total
            case ScopeKind.ROUTE:
                return self.routes.get(scope.name, 0.0)
            case ScopeKind.CLIENT:
                return min(self.clients.get((scope.name, scope.key), 0.0), self.routes.get(scope.name, 0.0))


def refused(shares: Mapping[Scope, float], load: Load) -> float:
    """Return how many of the arrivals in *load* the isolations with these passing *shares* refuse at most."""
    everywhere = math.prod(share for scope, share in shares.items() if scope.kind in _WIDE)
    total = 0.0
    for route, arrivals in load.routes.items():
        passing = everywhere * shares.get(Scope.route(route), 1.0)
        clients = [s for s in shares if s.kind is ScopeKind.CLIENT and s.name == route]
        charged = [(min(load.of(scope), arrivals), shares[scope]) for scope in clients]
        known = min(sum(count for count, _ in charged), arrivals)
        total += sum(count * (1.0 - passing * share) for count, share in charged)
        total += (arrivals - known) * (1.0 - passing)
    return total


_WIDE: Final = frozenset({ScopeKind.SERVICE, ScopeKind.ENDPOINT})


def raised(shares: Mapping[Scope, float], load: Load, max_refused_ratio: float) -> dict[Scope, float]:
    """
    Return the shares that meet the budget: the given ones, or all raised alike.

    Args:
        shares: Scope → the share that should pass, 0..1.
        load: Recent arrivals.
        max_refused_ratio: The budget, of all arrivals.
    """
    allowed = max_refused_ratio * load.total
    if refused(shares, load) <= allowed + 1e-9:
        return dict(shares)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if refused(_scaled(shares, middle), load) <= allowed:
            low = middle
        else:
            high = middle
    return {scope: max(shares[scope], _whole(share)) for scope, share in _scaled(shares, low).items()}


def _scaled(shares: Mapping[Scope, float], factor: float) -> dict[Scope, float]:
    return {scope: 1.0 - (1.0 - share) * factor for scope, share in shares.items()}


def _whole(share: float) -> float:
    return min(1.0, math.ceil(share * 100 - 1e-6) / 100)


def settle(old: float, new: float) -> float:
    """Return the floor to use: a higher one at once, a lower one only when the difference is worth a change."""
    return new if new > old or round(old - new, 9) >= SINK_RATIO or new == 0.0 else old
