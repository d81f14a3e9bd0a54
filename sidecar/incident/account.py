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
    parts     dimension → name → (requests, failures), the `TOP` names that failed most
    others    judged requests, and failed ones, of everything else

What can go wrong
    A service of many routes, or a flood of names: rows beyond `MAX_SCOPES` are one row, `other routes`; of the names the one
    that failed least makes room.
    The incident widens: rows of the narrow scope stay as they are, new ones begin beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from sidecar.facts import RouteSecond, Scope, ScopeKind
from sidecar.incident import tally

STEPS: Final = 120
LEAD_S: Final = 30.0
MAX_SCOPES: Final = 20
OTHER: Final = "other routes"
NAMES: Final = 20  # of a dimension, while it runs
TOP: Final = 5
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
        self._parts: dict[str, dict[str, Counts]] = {name: {} for name in DIMENSIONS}
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
            for name, table in _tables(row).items():
                self._add(self._parts[name], table)

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

    def _add(self, table: dict[str, Counts], seen: Mapping[str, Counts]) -> None:
        for name, (requests, failures) in seen.items():
            old = table.get(name, (0, 0))
            table[name] = (old[0] + requests, old[1] + failures)
        while len(table) > NAMES:
            del table[min(table, key=lambda name: (table[name][1], table[name][0], name))]

    def _draw(self, unix: float, *counts: int) -> None:
        place = max(int((unix - self._begin_unix) / self._step_s + 0.5), 0)
        while place >= STEPS:
            self._halve()
            place = int((unix - self._begin_unix) / self._step_s + 0.5)
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
            "costs": {name: _kept(cost) for name, cost in self._costs.items()},
            "parts": {name: _ranked(table) for name, table in self._parts.items()},
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
            name: {key: (requests, failures) for key, requests, failures in document["parts"].get(name, ())}
            for name in DIMENSIONS
        }
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


def _kept(cost: Cost) -> dict[str, Any]:
    return {
        "failed": cost.failed, "held": cost.held, "judged": cost.judged, "spared": cost.spared, "seconds": cost.seconds,
        "drilled": cost.drilled, "refused": dict(cost.refused),
    }  # fmt: skip


def _ranked(table: Mapping[str, Counts]) -> list[list[Any]]:
    return [[name, requests, failures] for name, requests, failures in tally.ranked(table, NAMES)]
