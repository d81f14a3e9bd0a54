"""
What the engine remembers of the traffic: a ring of seconds for each route, samples, decisions, breaker states.

Bounded: `KEEP_S` seconds a route, `SAMPLES` samples a route, `DECISIONS` decisions; whoever is in the ring longest
leaves first. Seconds without traffic are filled in, so that a series has no holes and a silence looks like one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sidecar.decide.budget import Load
from sidecar.decide.lease import Isolation
from sidecar.facts import Moment, RouteSecond, Scope, ScopeKind
from sidecar.link.frames import Decided, Sample, Tick

KEEP_S: Final = 900
SAMPLES: Final = 30
DECISIONS: Final = 5_000


class History:
    """
    The recent past of every route.

    Args:
        routes: The routes of the config in force.
    """

    def __init__(self, routes: Iterable[str]) -> None:
        self._seconds: dict[str, deque[RouteSecond]] = {}
        self._samples: dict[str, deque[Sample]] = {}
        self._decisions: OrderedDict[str, tuple[Decided, float]] = OrderedDict()
        self._breakers: dict[tuple[str, int], str] = {}
        self._load: tuple[tuple[float, frozenset[str]], Load] | None = None  # of this second, asked by every case
        self.keep(routes)

    def __repr__(self) -> str:
        return f"<History {len(self._seconds)} routes, {len(self._decisions)} decisions>"

    @property
    def routes(self) -> tuple[str, ...]:
        """Name the routes that it keeps."""
        return tuple(self._seconds)

    def keep(self, routes: Iterable[str]) -> None:
        """Keep these routes from now on: new ones begin empty, the past of others is dropped."""
        names = list(routes)
        self._load = None
        self._seconds = {name: self._seconds.get(name, deque(maxlen=KEEP_S)) for name in names}
        self._samples = {name: self._samples.get(name, deque(maxlen=SAMPLES)) for name in names}
        self._breakers = {key: state for key, state in self._breakers.items() if key[0] in self._seconds}

    def extend(self, seconds: Sequence[RouteSecond], at: float) -> tuple[RouteSecond, ...]:
        """Append one second; return it with an empty row for every route that had none."""
        self._load = None
        seen = {second.route: second for second in seconds if second.route in self._seconds}
        rows = tuple(seen.get(name) or RouteSecond(name, at) for name in self._seconds)
        for row in rows:
            self._seconds[row.route].append(row)
        return rows

    def window(self, routes: Iterable[str], since: float, until: float = float("inf")) -> list[RouteSecond]:
        """Return the seconds of *routes* with since < at ≤ until, in time order within each route."""
        rows: list[RouteSecond] = []
        for name in routes:
            recent: list[RouteSecond] = []
            for row in reversed(self._seconds.get(name, ())):
                if row.at <= since:
                    break
                if row.at <= until:
                    recent.append(row)
            rows += reversed(recent)
        return rows

    def load(self, since: float, live: Iterable[Isolation]) -> Load:
        """
        Count the arrivals after *since*, by route and by heavy client.

        A client's counts are of requests that reached the upstream; what a live isolation of it held is added.
        """
        held_of = {i.id: (i.scope.name, i.scope.key) for i in live if i.scope.kind is ScopeKind.CLIENT}
        asked = (since, frozenset(held_of))
        if self._load is None or self._load[0] != asked:
            self._load = (asked, self._count_load(since, held_of))
        return self._load[1]

    def _count_load(self, since: float, held_of: Mapping[str, tuple[str, str]]) -> Load:
        routes: dict[str, float] = {}
        clients: dict[tuple[str, str], float] = {}
        for name in self._seconds:
            rows = self.window((name,), since)
            routes[name] = float(sum(row.arrivals for row in rows))
            for row in rows:
                for key, client in row.clients.items():
                    clients[name, key] = clients.get((name, key), 0.0) + client.requests
                for directive, held in row.held.items():
                    if directive in held_of:
                        clients[held_of[directive]] = clients.get(held_of[directive], 0.0) + held
        return Load(routes, clients)

    def routes_of(self, scope: Scope) -> tuple[str, ...]:
        """Name the routes that *scope* touches."""
        if scope.kind in (ScopeKind.ROUTE, ScopeKind.CLIENT):
            return (scope.name,) if scope.name in self._seconds else ()
        return self.routes

    # --- what workers tell beside the counters

    def note_tick(self, tick: Tick) -> None:
        """Remember the breaker states of one worker's tick."""
        for route, row in tick.routes.items():
            if route in self._seconds:
                self._breakers[route, tick.worker] = row.breaker

    def forget_worker(self, worker: int) -> None:
        """Drop the breaker states of a worker that is gone."""
        self._breakers = {key: state for key, state in self._breakers.items() if key[1] != worker}

    def breaker(self, route: str) -> str:
        """Return the worst breaker state of *route* over all workers."""
        states = {state for (name, _), state in self._breakers.items() if name == route}
        return next((state for state in ("open", "half_open") if state in states), "closed")

    def note_sample(self, sample: Sample) -> None:
        """Remember one redacted exchange."""
        if sample.route in self._samples:
            self._samples[sample.route].append(sample)

    def samples(self, routes: Iterable[str]) -> list[Sample]:
        """Return the latest samples of *routes*, the oldest first."""
        return [sample for name in routes for sample in self._samples.get(name, ())]

    def note_decision(self, decided: Decided, now: Moment) -> None:
        """Remember why one request was refused, with its wall time."""
        self._decisions[decided.id] = (decided, now.unix - (now.at - decided.at))
        while len(self._decisions) > DECISIONS:
            self._decisions.popitem(last=False)

    def decision(self, decision_id: str) -> tuple[Decided, float] | None:
        """Return one decision and its Unix seconds, while it is remembered."""
        return self._decisions.get(decision_id)
