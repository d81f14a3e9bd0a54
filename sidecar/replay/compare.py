"""
Two configs over the same history: what each would have refused, which incidents it would have raised, and when.

Theory
    Both are replayed from cold over the same material. Incidents are paired when their scopes contain one another and
    they began within `APART_S` of each other; what is left on one side would not have been raised on the other. So the
    answer is about the difference of the two configs; how far either replay is from what happened live is shown by
    `from`, when that is the config that ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.config.policies import Compiled
from sidecar.facts import Scope
from sidecar.incident.words import rfc3339, unix_of
from sidecar.replay.learned import Learned
from sidecar.replay.material import Material
from sidecar.replay.player import Player

APART_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Raised:
    """One incident of a replay."""

    scope: Scope
    detectors: tuple[str, ...]
    title: str
    severity: str
    onset: float
    opened: float
    isolated: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What one replay came to.

    Attributes:
        requests: By route.
        refused: By route and reason.
        raised: Incidents in order of their detection.
        clients: By (route, client key, in a time of trouble): requests, and of them refused.
        latency: By route, of answers outside of any trouble: bucket → count.
    """

    requests: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    raised: tuple[Raised, ...] = ()
    clients: Mapping[tuple[str, str, bool], tuple[int, int]] = field(default_factory=dict)
    latency: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def refused_of(self, route: str) -> int:
        """Count all refusals of one route."""
        return sum(self.refused.get(route, {}).values())


def outcome(
    compiled: Compiled,
    material: Material,
    trouble: Sequence[tuple[float, float]] = (),
    learned: Learned | None = None,
) -> Outcome:
    """
    Replay *material* under *compiled*.

    Args:
        compiled, material: See there.
        trouble: (from, until) of the incidents that are known.
        learned: What verdicts taught.
    """
    player = Player(compiled, trouble=trouble, learned=learned)
    for second in material.seconds():
        player.second(second)
    return Outcome(
        requests={route: toll.requests for route, toll in player.tolls.items()},
        refused={route: dict(toll.refused) for route, toll in player.tolls.items()},
        raised=tuple(_raised(row) for row in player.incidents() if not row["observed"]),
        clients={
            (route, *key): (count, toll.clients_refused[key])
            for route, toll in player.tolls.items()
            for key, count in toll.clients.items()
        },
        latency={route: dict(toll.latency) for route, toll in player.tolls.items()},
    )


def _raised(row: Mapping[str, Any]) -> Raised:
    isolated = row["isolated_time"]
    return Raised(
        Scope.parse(row["scope"]),
        tuple(dict.fromkeys(signal["detector"] for signal in row["signals"])),
        row["title"],
        row["severity"],
        unix_of(row["onset_time"]),
        unix_of(row["opened_time"]),
        unix_of(isolated) if isolated else None,
    )


def compare(before: Outcome, after: Outcome) -> dict[str, Any]:
    """Return what *after* would have done otherwise, as a document."""
    routes = dict.fromkeys([*before.requests, *after.requests])
    return {
        "requests": sum(before.requests.values()),
        "refused": {"from": _all(before), "to": _all(after)},
        "routes": [_route(name, before, after) for name in routes],
        "incidents": pairs(before.raised, after.raised),
    }


def _all(outcome: Outcome) -> int:
    return sum(outcome.refused_of(route) for route in outcome.refused)


def _route(name: str, before: Outcome, after: Outcome) -> dict[str, Any]:
    return {
        "route": name,
        "requests": before.requests.get(name, after.requests.get(name, 0)),
        "refused": {"from": before.refused_of(name), "to": after.refused_of(name)},
        "reasons": {"from": dict(before.refused.get(name, {})), "to": dict(after.refused.get(name, {}))},
    }


def pairs(before: Sequence[Raised], after: Sequence[Raised]) -> list[dict[str, Any]]:
    """Return one row for each incident of either side: the same, earlier, later, hidden or added."""
    left, rows = list(after), []
    for old in before:
        new = next((one for one in left if _same(old, one)), None)
        if new is not None:
            left.remove(new)
        rows.append(_pair(old, new))
    rows += [_pair(None, new) for new in left]
    return sorted(rows, key=lambda row: row["from_time"] or row["to_time"])


def _same(one: Raised, other: Raised) -> bool:
    related = one.scope.contains(other.scope) or other.scope.contains(one.scope)
    return related and abs(one.opened - other.opened) <= APART_S


def _pair(old: Raised | None, new: Raised | None) -> dict[str, Any]:
    shown = old or new
    assert shown is not None
    sooner_s = old.opened - new.opened if old is not None and new is not None else None
    word = "hidden" if new is None else "added" if old is None else "same"
    if sooner_s:
        word = "earlier" if sooner_s > 0 else "later"
    return {
        "change": word,
        "sooner_s": sooner_s,
        "scope": str(shown.scope),
        "title": shown.title,
        "severity": shown.severity,
        "detectors": list(shown.detectors),
        "from_time": rfc3339(old.opened) if old is not None else None,
        "to_time": rfc3339(new.opened) if new is not None else None,
        "from_isolated": old is not None and old.isolated is not None,
        "to_isolated": new is not None and new.isolated is not None,
    }
