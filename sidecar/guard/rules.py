"""
Which directives rule a request: found when directives change, looked up when a request comes.

For every route each client key that a directive names gets its `Ruling`, everybody else the route's. A ruling is at
most one override (the most specific scope, there the newest) and one isolation (see `isolation.ruling`), after the
override silenced what it speaks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sidecar.facts import Action, Directive, Scope, ScopeKind
from sidecar.guard import isolation as isolations
from sidecar.guard import override as overrides
from sidecar.guard.gate import Gate

_FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Ruling:
    """The gates that one request meets, and how the guards behind them must treat it."""

    override: Gate | None = None
    isolation: Gate | None = None
    allow: bool = False
    lenient: bool = False
    trial: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """All rulings of one route, and the moment at which the first directive behind them ends."""

    everyone: Ruling = Ruling()
    clients: dict[str, Ruling] = field(default_factory=dict)
    end_at: float = _FOREVER


def of_route(route: str, directives: Sequence[Directive], gate: Callable[[Directive, bool], Gate]) -> Rules | None:
    """
    Return the rules of *route*, or None when no directive touches it.

    Args:
        route: The route's name.
        directives: Those in force, in the order in which they began; at the same scope the later override rules.
        gate: Finds or makes a directive's gate on this route; its second argument asks for one that only observes.
    """
    mine = [item for item in directives if _touches(item.scope, route)]
    if not mine:
        return None
    keys = {item.scope.key for item in mine if item.scope.kind is ScopeKind.CLIENT}
    wide = [Scope.route(route), Scope.service()]
    return Rules(
        _ruling(mine, wide, gate),
        {key: _ruling(mine, [Scope.client(route, key), *wide], gate) for key in keys},
        min(item.end_at for item in mine),
    )


def _touches(scope: Scope, route: str) -> bool:
    return scope.kind is ScopeKind.SERVICE or (scope.kind is not ScopeKind.ENDPOINT and scope.name == route)


def _ruling(
    directives: Sequence[Directive], scopes: Iterable[Scope], gate: Callable[[Directive, bool], Gate]
) -> Ruling:
    override: Directive | None = None
    isolation: Directive | None = None
    for scope in scopes:
        here = [item for item in directives if item.scope == scope]
        override = override or next((item for item in reversed(here) if overrides.is_override(item)), None)
        isolation = isolation or isolations.ruling(item for item in here if not overrides.is_override(item))
    if override is not None and isolation is not None and overrides.silences(override, isolation):
        isolation = None
    lenient = override is not None and override.action is Action.OBSERVE
    paces = override is not None and override.action in (Action.ISOLATE, Action.THROTTLE)
    return Ruling(
        override=gate(override, False) if override is not None and paces else None,
        isolation=gate(isolation, lenient) if isolation is not None and _acts(isolation) else None,
        allow=override is not None and override.action is Action.ALLOW,
        lenient=lenient,
        trial=isolation is not None and not lenient and _acts(isolation) and isolations.covers_route(isolation),
    )


def _acts(isolation: Directive) -> bool:
    return isolation.action in (Action.ISOLATE, Action.THROTTLE)
