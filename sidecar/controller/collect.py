"""
From the workers' cumulative ticks to one second a route, and to totals for /metrics.

Theory. A worker's counters only grow within one epoch (one life of its process), so the counts of a second are the
difference of two ticks, and a tick that was skipped costs nothing: its counts come whole with the next one. Each
(worker, epoch) has its own baseline; a new epoch starts from zero. Totals are the running sum of all differences since
this controller began, so they never fall when a worker restarts.

Tables. What the first sight of a route in an epoch means:

    the epoch began under this controller              all of its counts are new
    the epoch's very first tick came                   the same: nobody else can have them
    it began before, and a full tick was seen          the route is new since then: all of its counts are new
    it began before, no full tick yet                  the counts are the baseline: an earlier controller had them
    the tick was measured before this controller       the same: it only moves the baseline

What can go wrong: a worker is killed (its counts since its last tick are lost, and nothing else); its link ends (its
gauges vanish, its baseline stays, because the same epoch may come back); it is silent (its gauges vanish after
`SILENT_S`); two epochs of one index overlap while the older one drains (both count); a counter falls (a bounded table
of the worker dropped a name and took it up again: its count is new); names without end (totals keep `counts.MAX_SERIES`
a route and fold the rest into `_other`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sidecar.controller import counts as counting
from sidecar.controller.counts import Counts
from sidecar.facts import BreakerState, ClientSecond, Outcome, RouteSecond
from sidecar.link.frames import RouteTick, Tick

SILENT_S: Final = 5.0  # as long as the supervisor waits for a heartbeat
MAX_EPOCHS: Final = 4  # of one worker: the one that serves, and those that drain
UP: Final = "up"  # the standing of an endpoint that is in service
_WORST_FIRST: Final = (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED)


@dataclass(frozen=True, slots=True)
class Timing:
    """A histogram as it came from the workers: bucket index (`measure/histogram.py`) → count, and the sum in seconds."""

    sum_s: float = 0.0
    buckets: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteTotals:
    """
    One route since this controller began, over all workers; gauges are of now.

    Attributes:
        arrivals, again, outcomes, refused, would_refuse, ended, endings, trips: As in `RouteTick`.
        durations: `METHOD STATUS` → the whole exchange.
        latency: Upstream latency.
        in_flight, limits, concurrency_limit: Sums over the live workers; None when none has such a limit.
        breaker: The worst of the live workers.
        trials, held: By directive id.
    """

    arrivals: int = 0
    again: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    would_refuse: Mapping[str, int] = field(default_factory=dict)
    ended: Mapping[str, int] = field(default_factory=dict)
    endings: Mapping[str, int] = field(default_factory=dict)
    trips: int = 0
    durations: Mapping[str, Timing] = field(default_factory=dict)
    latency: Timing = field(default_factory=Timing)
    in_flight: int = 0
    breaker: BreakerState = BreakerState.CLOSED
    limits: Mapping[str, float] = field(default_factory=dict)
    concurrency_limit: int | None = None
    trials: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerTotals:
    """One worker's own gauges, from its last tick; `age_s` is how long ago that came."""

    age_s: float
    lag_s: float
    connections: int
    config_version: int
    draining: bool


@dataclass(frozen=True, slots=True)
class EndpointTotals:
    """
    One endpoint of the API behind, over the live workers.

    Attributes:
        standings: What it is in how many of them; see `proxy/standing.py`.
        in_flight: Requests that it works on.
        ejections: Since this controller began.
    """

    standings: Mapping[str, int] = field(default_factory=dict)
    in_flight: int = 0
    ejections: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """
    Everything since this controller began; `workers` are the live ones.

    Attributes:
        retries, retries_denied: Requests sent again, and those that were not for the budget.
        handshakes_failed: TLS handshakes of clients that came to nothing.
        tunnels: Connections that have left HTTP and stand now. tunnels_opened: So far.
        tunnel_bytes: What they carried, `up` and `down`.
    """

    routes: Mapping[str, RouteTotals] = field(default_factory=dict)
    overhead: Timing = field(default_factory=Timing)
    dropped: int = 0
    untold: int = 0
    log_dropped: int = 0
    handshakes_failed: int = 0
    endpoints: Mapping[str, EndpointTotals] = field(default_factory=dict)
    retries: int = 0
    retries_denied: int = 0
    tunnels: int = 0
    tunnels_opened: int = 0
    tunnel_bytes: Mapping[str, int] = field(default_factory=dict)
    workers: Mapping[int, WorkerTotals] = field(default_factory=dict)


class _Peer:
    """One epoch of one worker: where its counters stood, and its latest gauges."""

    def __init__(self, tick: Tick, began_at: float) -> None:
        self.worker = tick.worker
        self.from_zero = tick.since_at >= began_at or tick.sequence <= 1
        self.complete = False
        self.lost = False
        self.taken_at = 0.0
        self.tick = tick
        self.counts: dict[str, Counts] = {}
        self.own: Counts = {}
        self.latest: dict[str, RouteTick] = {}

    def live(self, now: float) -> bool:
        return not self.lost and now - self.taken_at <= SILENT_S

    def begins_at_zero(self) -> bool:
        """Tell whether a route that is seen for the first time counts from zero."""
        return self.from_zero or self.complete


class Collector:
    """
    All workers' counters, summed.

    Args:
        now: Monotonic seconds; counts from before are not this controller's.
        routes: The configured routes: they have a second, and totals, before they have traffic.
    """

    def __init__(self, now: float, routes: Sequence[str] = ()) -> None:
        self._began_at = now
        self._configured: frozenset[str] = frozenset()
        self._retired: frozenset[str] = frozenset()
        self._peers: dict[tuple[int, str], _Peer] = {}
        self._forgotten: deque[tuple[int, str]] = deque(maxlen=64)
        self._second: dict[str, Counts] = {}
        self._totals: dict[str, Counts] = {}
        self._own: Counts = {}
        self.configured(routes)

    def __repr__(self) -> str:
        return f"<Collector {len(self._second)} routes, {len(self._peers)} epochs>"

    def configured(self, routes: Iterable[str]) -> None:
        """Take the routes of a new config: gauges of removed ones vanish, and so do their seconds; totals stay."""
        named = dict.fromkeys(routes)
        self._retired = (self._retired | self._configured).difference(named)
        self._configured = frozenset(named)
        for route in self._retired:
            self._second.pop(route, None)
            for peer in self._peers.values():
                peer.latest.pop(route, None)
        for route in named:
            self._second.setdefault(route, {})
            self._totals.setdefault(route, {})

    def take(self, tick: Tick, now: float) -> None:
        """Count what is new in *tick*; one that is older than the last of its epoch is ignored."""
        peer = self._peer(tick)
        if peer is None or tick.at < peer.tick.at:
            return
        counted = peer.from_zero or tick.at >= self._began_at
        for route, row in tick.routes.items():
            new = counting.of_route(row)
            old = peer.counts.get(route, {} if peer.begins_at_zero() else new)
            peer.counts[route] = new
            self._add(route, counting.difference(new, old) if counted else {})
            if route not in self._retired:
                peer.latest[route] = row
        own = counting.of_worker(tick)
        before = peer.own or ({} if peer.from_zero else own)
        counting.merge(self._own, counting.difference(own, before) if counted else {})
        peer.own, peer.tick, peer.taken_at, peer.lost = own, tick, now, False
        peer.complete = peer.complete or tick.full

    def lost(self, worker: int, now: float) -> None:  # noqa: ARG002  every event carries its moment
        """Drop the gauges of a worker whose link ended; its counters go on if the same epoch comes back."""
        for peer in self._peers.values():
            if peer.worker == worker:
                peer.lost = True

    def close_second(self, now: float) -> list[RouteSecond]:
        """Return what was counted since the last call: one row for each known route, silent ones too."""
        live = [peer for peer in self._peers.values() if peer.live(now)]
        seconds = [_second_of(route, now, counts, _gauges(live, route)) for route, counts in self._second.items()]
        self._second = {route: {} for route in self._second}
        return seconds

    def totals(self, now: float) -> Totals:
        """Return everything counted since the beginning, with the live workers' gauges."""
        live = [peer for peer in self._peers.values() if peer.live(now)]
        return Totals(
            routes={route: _totals_of(counts, _gauges(live, route)) for route, counts in self._totals.items()},
            overhead=_timing(self._own, "overhead"),
            dropped=int(counting.only(self._own, "dropped")),
            untold=int(counting.only(self._own, "untold")),
            log_dropped=int(counting.only(self._own, "log_dropped")),
            handshakes_failed=int(counting.only(self._own, "handshakes_failed")),
            # Of two epochs of one worker the younger one is the worker.
            workers={peer.worker: _worker_of(peer, now) for peer in sorted(live, key=lambda peer: peer.tick.since_at)},
            endpoints=_endpoints(live, counting.by_name(self._own, "ejections")),
            retries=int(counting.only(self._own, "retries")),
            retries_denied=int(counting.only(self._own, "retries_denied")),
            tunnels=sum(peer.tick.tunnels for peer in live),
            tunnels_opened=int(counting.only(self._own, "tunnels_opened")),
            tunnel_bytes=counting.by_name(self._own, "tunnel_bytes"),
        )

    def _peer(self, tick: Tick) -> _Peer | None:
        name = (tick.worker, tick.epoch)
        peer = self._peers.get(name)
        if peer is None and name not in self._forgotten:
            peer = self._peers[name] = _Peer(tick, self._began_at)
            epochs = [known for known in self._peers if known[0] == tick.worker]
            for oldest in epochs[:-MAX_EPOCHS]:
                del self._peers[oldest]
                self._forgotten.append(oldest)
        return peer

    def _add(self, route: str, difference: Counts) -> None:
        if route not in self._retired:
            counting.merge(self._second.setdefault(route, {}), difference)
        counting.merge_bounded(self._totals.setdefault(route, {}), difference)


# --- from families to documents ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Gauges:
    in_flight: int = 0
    waiting: dict[int, int] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    concurrency_limit: int | None = None
    breakers: set[str] = field(default_factory=set)


def _gauges(live: Iterable[_Peer], route: str) -> _Gauges:
    sums = _Gauges()
    for peer in live:
        row = peer.latest.get(route)
        if row is None:
            continue
        sums.in_flight += row.in_flight
        sums.breakers.add(row.breaker)
        for index, count in row.waiting:
            sums.waiting[index] = sums.waiting.get(index, 0) + count
        for level, tokens in row.limits.items():
            sums.limits[level] = sums.limits.get(level, 0.0) + tokens
        if row.concurrency_limit is not None:
            sums.concurrency_limit = (sums.concurrency_limit or 0) + row.concurrency_limit
    return sums


def _timing(counts: Counts, name: str) -> Timing:
    return Timing(counting.only(counts, f"{name}.sum"), counting.by_index(counts, name))


def _clients(counts: Counts) -> dict[str, ClientSecond]:
    return {key: ClientSecond(*row) for key, row in counting.rows(counts, "clients", 4).items()}


def _second_of(route: str, at: float, counts: Counts, gauges: _Gauges) -> RouteSecond:
    outcomes = counting.by_name(counts, "outcomes")
    return RouteSecond(
        route=route,
        at=at,
        arrivals=int(counting.only(counts, "arrivals")),
        again=int(counting.only(counts, "again")),
        successes=outcomes.get(Outcome.SUCCESS, 0),
        failures=outcomes.get(Outcome.FAILURE, 0),
        ignored=outcomes.get(Outcome.IGNORED, 0),
        cancelled=outcomes.get(Outcome.CANCELLED, 0),
        refused=counting.by_name(counts, "refused"),
        latency=counting.by_index(counts, "latency"),
        waiting=gauges.waiting,
        in_flight=gauges.in_flight,
        clients=_clients(counts),
        methods=counting.pairs(counts, "methods"),
        statuses=counting.pairs(counts, "statuses"),
        endpoints=counting.pairs(counts, "endpoints"),
        paths=counting.pairs(counts, "paths"),
        trips=int(counting.only(counts, "trips")),
        passed_trials=counting.pairs(counts, "trials"),
        held=counting.by_name(counts, "held"),
        drilled=counting.by_name(counts, "drilled"),
        drilled_latency=counting.by_index(counts, "drilled_latency"),
    )


def _durations(counts: Counts) -> dict[str, Timing]:
    buckets: dict[str, dict[int, int]] = {}
    for (pair, _, index), number in counts.get("durations", {}).items():
        buckets.setdefault(pair, {})[index] = int(number)
    sums = counts.get("durations.sum", {})
    return {pair: Timing(sums.get((pair, "", 0), 0.0), found) for pair, found in buckets.items()}


def _totals_of(counts: Counts, gauges: _Gauges) -> RouteTotals:
    return RouteTotals(
        arrivals=int(counting.only(counts, "arrivals")),
        again=int(counting.only(counts, "again")),
        outcomes=counting.by_name(counts, "outcomes"),
        refused=counting.by_name(counts, "refused"),
        would_refuse=counting.by_name(counts, "would_refuse"),
        ended=counting.by_name(counts, "ended"),
        endings=counting.by_name(counts, "endings"),
        trips=int(counting.only(counts, "trips")),
        durations=_durations(counts),
        latency=_timing(counts, "latency"),
        in_flight=gauges.in_flight,
        breaker=next((state for state in _WORST_FIRST if state in gauges.breakers), BreakerState.CLOSED),
        limits=gauges.limits,
        concurrency_limit=gauges.concurrency_limit,
        trials=counting.pairs(counts, "trials"),
        held=counting.by_name(counts, "held"),
    )


def _worker_of(peer: _Peer, now: float) -> WorkerTotals:
    tick = peer.tick
    return WorkerTotals(now - peer.taken_at, tick.lag_s, tick.connections, tick.config_version, tick.draining)


def _endpoints(live: Iterable[_Peer], ejections: Mapping[str, int]) -> dict[str, EndpointTotals]:
    standings: dict[str, Counter[str]] = {}
    in_flight: Counter[str] = Counter()
    for peer in live:
        for label, (standing, count, _) in peer.tick.endpoints.items():
            standings.setdefault(label, Counter())[standing] += 1
            in_flight[label] += count
    return {
        label: EndpointTotals(found, in_flight[label], ejections.get(label, 0)) for label, found in standings.items()
    }
