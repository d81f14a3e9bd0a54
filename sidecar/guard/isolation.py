"""
What an isolation does to one request: most are refused, a share and a small sample pass as its trials.

The decision itself (scope, share, ramp, lease) is the controller's. The guard honours the lease's end by itself, also
when no controller lives, and tells apart who is at fault: a client gets 429, everyone on a failing route 503.

Which isolation rules: the most specific scope; on the same scope a confirmed one before a provisional one, then the
newest (directives are pushed in the order in which they began).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sidecar.facts import Directive, ScopeKind
from sidecar.guard.gate import Gate
from sidecar.reasons import Reason, Refusal

_ROUTE_RETRY_AFTER_S: Final = 10.0  # one step of the default ramp: the route may pass more by then


def ruling(isolations: Iterable[Directive]) -> Directive | None:
    """Return the one that rules among *isolations* of the same scope."""
    chosen: Directive | None = None
    for isolation in isolations:
        if chosen is None or isolation.confirmed >= chosen.confirmed:
            chosen = isolation
    return chosen


def covers_route(isolation: Directive) -> bool:
    """Tell whether its passing requests are the whole route's probes, and so bypass the breaker."""
    return isolation.bypass_breaker and isolation.scope.kind in (ScopeKind.ROUTE, ScopeKind.SERVICE)


def refusal(gate: Gate, now: float, *, again: bool = False) -> Refusal | None:
    """Return the isolation's no, or None when its gate lets the request pass as a trial; *again*: it asks too soon."""
    if gate.wait_s(now, again=again) <= 0.0:
        return None
    directive = gate.directive
    left_s = max(0.0, directive.end_at - now)
    share = f"{directive.share_ratio or 0:.0%}" if directive.rate_per_s is None else f"{directive.rate_per_s:g}/s"
    detail = f"{directive.action} of {directive.scope}, {share} pass"
    if directive.scope.kind is ScopeKind.CLIENT:
        return Refusal(Reason.CLIENT_THROTTLED, left_s, directive.id, detail, directive.incident)
    return Refusal(Reason.ISOLATED, min(left_s, _ROUTE_RETRY_AFTER_S), directive.id, detail, directive.incident)
