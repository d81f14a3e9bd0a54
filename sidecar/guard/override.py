"""
What an operator's override does: it stands first, and its word replaces automation's on its scope.

    action     does
    --------   -----------------------------------------------------------------------------------------------
    isolate    refuses all (a share of 0) until it ends
    throttle   passes a rate, with the next slot as Retry-After, or a share; what passes meets the other guards
    allow      skips isolation and breaker, never limits
    observe    nothing is refused on its scope; what would have been is noted

An override on a client answers 429 (that client's act), on anything wider 503. Under `throttle` and `isolate` the
isolations of the same or a wider scope are silent, so that two shares never multiply; one of a narrower scope stays.
"""

from __future__ import annotations

from sidecar.facts import Action, Directive, ScopeKind
from sidecar.guard.gate import Gate
from sidecar.reasons import Reason, Refusal


def is_override(directive: Directive) -> bool:
    """Tell an override from an isolation."""
    return not (directive.bypass_breaker or directive.id.startswith("isolation-"))


def silences(override: Directive, isolation: Directive) -> bool:
    """Tell whether *override* speaks in place of *isolation*, where both cover the same request."""
    match override.action:
        case Action.ALLOW:
            return True
        case Action.OBSERVE:
            return False
        case Action.ISOLATE | Action.THROTTLE:
            return isolation.scope.contains(override.scope)


def refusal(gate: Gate, now: float, *, again: bool = False) -> Refusal | None:
    """Return the no of an `isolate` or `throttle` override, or None when its gate lets the request pass; *again*: too soon."""
    directive = gate.directive
    wait_s = gate.wait_s(now, again=again)
    if wait_s <= 0.0:
        return None
    client = directive.scope.kind is ScopeKind.CLIENT
    reason = Reason.CLIENT_THROTTLED if client else Reason.OVERRIDDEN
    left_s = max(0.0, directive.end_at - now)
    if directive.action is Action.ISOLATE:
        return Refusal(reason, left_s, directive.id, "isolated by an operator", directive.incident)
    passes = f"{directive.rate_per_s:g}/s" if directive.rate_per_s is not None else f"{directive.share_ratio or 0:.0%}"
    return Refusal(
        reason, min(wait_s, left_s), directive.id, f"throttled to {passes} by an operator", directive.incident
    )
