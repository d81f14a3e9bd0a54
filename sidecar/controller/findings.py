"""What detection found in one second, as incidents take it in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sidecar.decide.policy import Case
from sidecar.detect import fuse
from sidecar.detect.attribute import Attribution
from sidecar.facts import ScopeKind
from sidecar.incident.lifecycle import Affected, Narrowest
from sidecar.measure.parts import EXPLAINS

TOP: Final = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What detection found this second about one scope.

    Attributes:
        affected: Counts who is affected; called only when somebody asks.
        observed: By detectors that only observe.
    """

    case: Case
    affected: Callable[[], Affected]
    observed: bool = False


def finding(found: fuse.Finding) -> Finding:
    """Return *found* as incidents take it in."""
    facts = found.attribution
    case = Case(found.scope, found.signals, found.severe, len(found.agreeing) >= 2, found.sample)
    return Finding(case, partial(_affected, facts))


def would(found: fuse.Finding) -> Finding:
    """Return the same of detectors that only observe."""
    return replace(finding(found), observed=True)


def _affected(facts: Attribution) -> Affected:
    methods = facts.dimensions["method"]
    method = methods[0].name if methods and methods[0].share_ratio >= EXPLAINS else ""
    clients, paths = (
        tuple((share.name, share.requests, share.failures) for share in facts.dimensions[dimension][:TOP])
        for dimension in ("client", "path")
    )
    return Affected(
        facts.traffic_ratio, facts.requests, facts.failures, method, clients, paths, narrowest=_narrowest(facts)
    )


def _narrowest(facts: Attribution) -> Narrowest | None:
    part = facts.narrowest
    if part is None or (part.dimension == "client" and facts.scope.kind is ScopeKind.CLIENT):
        return None
    share = part.share
    return Narrowest(part.dimension, share.name, min(share.share_ratio, 1.0), share.requests, share.failures)
