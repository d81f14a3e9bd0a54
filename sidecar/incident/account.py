"""
What an incident costs, second by second while it runs: its course, its cost by scope, what failed most, and the others.

Theory
    The figures of a post-mortem are counted once, while it happens, and stored with the incident: whoever writes the draft,
    today or after a restart, writes the same. A route's counts are exact. The parts (clients, paths, …) are of the
    judged requests of the whole incident, not only of the second of its detection, when little had failed.

Tables
    course    arrived, failed, refused in each step of time, from `LEAD_S` before the onset on; a step in which the
              incident did not run is empty. At most `STEPS` steps: when they are full, two become one
    scopes    a row for each route that the incident touches, or for the client on it: together they are the whole
    parts     dimension → name → (requests, failures), `NAMES` of those that failed most
    others    judged requests, and failed ones, of everything else

What can go wrong
    A service of many routes, or a flood of names: rows beyond `MAX_SCOPES` are one row, `other routes`. Of the names the
    lightest makes room for one that fails, and the new one inherits its weight (Space-Saving, as in `measure/heavy.py`, by
    failures), so who begins to fail late stays too; what it counts begins at its entry. All judged requests are counted
    beside, so that the rest of a part is exact whatever the table holds.
    The incident widens: rows of the narrow scope stay as they are, new ones begin beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from sidecar.facts import RouteSecond, Scope, ScopeKind
from sidecar.incident import tally

STEPS: Final = 120
LEAD_S: Final = 30.0
MAX_SCOPES: Final = 20
OTHER: Final = "other routes"
NAMES: Final = 20  # of a dimension, while it runs
CURVES: Final = ("arrived", "failed", "refused")
DIMENSIONS: Final = ("client", "path", "method", "status", "endpoint")
Counts = tuple[int, int]


@dataclass(slots=True)
class Cost:
    """
    What the incident cost one scope.

    Attributes:
        failed: Requests that the upstream failed.
        held: Requests that its isolations refused; `judged`, `spared`: as in `lifecycle.Impact`.
        refused: What we refused for any reason, by reason.
        drilled: Requests that met a drill's fault.
        seconds: With at least one failed or refused request.
    """

    failed: int = 0
    held: int = 0
    judged: int = 0
    spared: float = 0.0
    seconds: int = 0
    drilled: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def document(self, scope: str) -> dict[str, Any]:
        """Return its public shape."""
        return {
            "scope": scope,
            "failed": self.failed,
            "refused": sum(self.refused.values()),
            "reasons": dict(sorted(self.refused.items())),
            "isolated": self.held,
            "would_have_succeeded_ratio": self.spared / self.judged if self.judged else None,
            "drilled": self.drilled,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Held:
    """What the incident's isolations refused on one route in a second; the last two as in `lifecycle.Impact`."""

    requests: int = 0
    judged: int = 0
    spared: float = 0.0


@dataclass(slots=True)
class _Part:
    """Judged requests and failures of one name since it entered, and the weight by which it stays."""

    requests: int = 0
    failures: int = 0
    weight: int = 0


class Account:
    """
    The account of one incident.

    Args:
        begin_unix: Where its course begins.
    """

    def __init__(self, begin_unix: float) -> None:
        self._begin_unix = begin_unix
        self._step_s = 1.0
        self._course: dict[str, list[int | None]] = {name: [] for name in CURVES}
        self._costs: dict[str, Cost] = {}
        self._parts: dict[str, dict[str, _Part]] = {name: {} for name in DIMENSIONS}
        self._judged: Counts = (0, 0)
        self._others: Counts = (0, 0)

    def __repr__(self) -> str:
        return f"<Account {len(self._course['arrived'])} steps of {self._step_s:g} s, {len(self._costs)} scopes>"

    # --- counting -----------------------------------------------------------------------------------------------------

    def lead_in(self, rows: Iterable[RouteSecond], scope: Scope, unix: float) -> None:
        """Take a second before the onset: into the course alone."""
        self._draw(unix, *_sums(rows, scope, {}))

    def take(self, rows: Sequence[RouteSecond], scope: Scope, held: Mapping[str, Held], unix: float) -> None:
        """
        Take one second.

        Args:
            rows: Of all routes that *scope* touches.
            scope: Of the incident, in this second.
            held: Route → what its isolations refused there.
            unix: The end of the second.
        """
        self._draw(unix, *_sums(rows, scope, held))
        for row in rows:
            self._charge(row, scope, held.get(row.route, Held()))
            self._judged = self._judged[0] + row.judged, self._judged[1] + row.failures
            for name, table in _tables(row).items():
                _add(self._parts[name], table)

    def bystanders(self, touched: Sequence[RouteSecond], scope: Scope, rest: Iterable[RouteSecond]) -> None:
        """Count one second of everything that the incident is not about."""
        judged, failed = self._others
        for row in rest:
            judged, failed = judged + row.judged, failed + row.failures
        if scope.kind is ScopeKind.CLIENT:
            own, bad, _ = tally.requests_of(touched, scope)
            judged += max(sum(row.judged for row in touched) - own, 0)
            failed += max(sum(row.failures for row in touched) - bad, 0)
        self._others = judged, failed

    def _charge(self, row: RouteSecond, scope: Scope, held: Held) -> None:
        failed = tally.requests_of((row,), scope)[1]
        refused = {k: n for k, n in row.refused.items() if n} if scope.kind in _WHOLE else {}
        if not refused and held.requests:
            refused = {_REASON.get(scope.kind, "isolated"): held.requests}
        drilled = sum(row.drilled.values())
        if not (failed or refused or drilled):
            return
        cost = self._cost(str(scope) if scope.kind is ScopeKind.CLIENT else f"route:{row.route}")
        cost.failed += failed
        cost.held += held.requests
        cost.judged += held.judged
        cost.spared += held.spared
        cost.drilled += drilled
        cost.seconds += bool(failed or refused)
        for reason, count in refused.items():
            cost.refused[reason] = cost.refused.get(reason, 0) + count

    def _cost(self, name: str) -> Cost:
        if name not in self._costs and len(self._costs) >= MAX_SCOPES:
            name = OTHER
        return self._costs.setdefault(name, Cost())

    def _draw(self, unix: float, *counts: int) -> None:
        second = max(round(unix - self._begin_unix), 0)
        while (place := int(second // self._step_s)) >= STEPS:
            self._halve()
        for name, count in zip(CURVES, counts, strict=True):
            curve = self._course[name]
            curve += [None] * (place + 1 - len(curve))
            curve[place] = (curve[place] or 0) + count

    def _halve(self) -> None:
        self._step_s *= 2
        for name, curve in self._course.items():
            pairs = (curve[place : place + 2] for place in range(0, len(curve), 2))
            self._course[name] = [_sum(pair) for pair in pairs]

    # --- documents ----------------------------------------------------------------------------------------------------

    def costs(self) -> list[dict[str, Any]]:
        """Return the cost of each scope, the dearest first."""
        rows = [cost.document(name) for name, cost in self._costs.items()]
        return sorted(rows, key=lambda row: (-row["failed"] - row["refused"], row["scope"]))

    @property
    def others(self) -> dict[str, int]:
        """Return what became of everything else."""
        return {"requests": self._others[0], "failed": self._others[1]}

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON, as the store keeps it and the draft reads it."""
        return {
            "begin_unix": self._begin_unix,
            "step_s": self._step_s,
            "course": {name: list(curve) for name, curve in self._course.items()},
            "costs": {name: asdict(cost) for name, cost in self._costs.items()},
            "parts": {name: _ranked(table) for name, table in self._parts.items()},
            "judged": list(self._judged),
            "others": list(self._others),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read what `document` wrote."""
        made = cls(document["begin_unix"])
        made._step_s = document["step_s"]
        made._course = {name: list(document["course"][name]) for name in CURVES}
        made._costs = {
            name: Cost(**{**row, "refused": dict(row["refused"])}) for name, row in document["costs"].items()
        }
        made._parts = {
            name: {
                key: _Part(requests, failures, failures) for key, requests, failures in document["parts"].get(name, ())
            }
            for name in DIMENSIONS
        }
        judged = document.get("judged", (0, 0))  # an older release kept none
        made._judged = (judged[0], judged[1])
        made._others = (document["others"][0], document["others"][1])
        return made


_WHOLE: Final = (ScopeKind.ROUTE, ScopeKind.SERVICE)  # what a route refuses, it refuses of these
_REASON: Final = {ScopeKind.CLIENT: "client_throttled"}


def _sums(rows: Iterable[RouteSecond], scope: Scope, held: Mapping[str, Held]) -> tuple[int, int, int]:
    """Return what arrived, failed and was refused of *scope*."""
    arrived, failed, refused = 0, 0, 0
    for row in rows:
        requests, bad, _ = tally.requests_of((row,), scope)
        if scope.kind in _WHOLE:
            arrived, refused = arrived + row.arrivals, refused + sum(row.refused.values())
        else:
            stopped = held.get(row.route, Held()).requests
            arrived, refused = arrived + requests + stopped, refused + stopped
        failed += bad
    return arrived, failed, refused


def _tables(row: RouteSecond) -> dict[str, Mapping[str, Counts]]:
    return {
        "client": {key: (client.requests, client.failures) for key, client in row.clients.items()},
        "path": row.paths,
        "method": row.methods,
        "status": row.statuses,
        "endpoint": row.endpoints,
    }


def _sum(pair: Sequence[int | None]) -> int | None:
    known = [count for count in pair if count is not None]
    return sum(known) if known else None


def _add(table: dict[str, _Part], seen: Mapping[str, Counts]) -> None:
    for name, (requests, failures) in sorted(seen.items()):
        part = table.get(name)
        if part is None:
            if len(table) < NAMES:
                part = table[name] = _Part()
            elif failures:
                lightest = min(table, key=lambda name: (table[name].weight, table[name].requests, name))
                part = table[name] = _Part(weight=table.pop(lightest).weight)
            else:
                continue
        part.requests += requests
        part.failures += failures
        part.weight += failures


def _ranked(table: Mapping[str, _Part]) -> list[list[Any]]:
    rows = {name: (part.requests, part.failures) for name, part in table.items()}
    return [[name, requests, failures] for name, requests, failures in tally.ranked(rows, NAMES)]
