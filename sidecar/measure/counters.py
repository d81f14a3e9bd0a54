"""
What happened, in cumulative counters: the only thing that a worker tells about its traffic.

Cost is a design goal (arrive + end ≤ 1.5 µs). So the many tables of a `RouteTick` are not kept a request at a time:
requests that look alike (method, status, reason, outcome, endpoint, path template) share one *cell*, and an end adds
to its cell, to two histograms and to its client. Once a tick the cells are folded into the tables.

Bounds
    Every table of names is bounded; names beyond it are counted under `_other`. Cells are dropped at each fold once
    there are too many of them, which costs only their next opening. So memory is flat whatever clients send.

Which requests are in which table
    durations                              all that ended, own refusals included (http.server.request.duration)
    outcomes                               all that ended
    refused, ended                         those with a reason: own refusals, the others
    latency                                those that were given one
    clients, methods, statuses,            those that reached the upstream (not `cancelled`): they exist to attribute
      endpoints, paths                     its failures. A client's refused ones are a count of their own, and its
                                           *weight* in the table counts them too
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log2
from typing import Final, Protocol

from sidecar.facts import OVERFLOW, Outcome, RouteGauges
from sidecar.link.frames import RouteTick, Tick
from sidecar.measure import histogram
from sidecar.measure.heavy import HeavyClients
from sidecar.reasons import TABLE, Party, Reason, Would

MAX_NAMES: Final = 64  # methods × statuses, endpoints, statuses: each table
MAX_PATHS: Final = 64
MAX_CELLS: Final = 1024
MAX_TRIALS: Final = 64

_FLOOR_S, _CEILING_S, _LAST = histogram.FLOOR_S, histogram.CEILING_S, histogram.LAST
_FAILURE, _CANCELLED = Outcome.FAILURE, Outcome.CANCELLED
_ENDINGS: Final = {
    Reason.UPSTREAM_CONNECT_FAILED: "refused",
    Reason.UPSTREAM_TLS_FAILED: "refused",
    Reason.UPSTREAM_RESET: "reset",
    Reason.UPSTREAM_PROTOCOL_ERROR: "protocol",
    Reason.UPSTREAM_CONNECT_TIMEOUT: "timeout",
    Reason.UPSTREAM_TIMEOUT: "timeout",
    Reason.CLIENT_DISCONNECTED: "left",
}

Pair = list[int]
Kind = tuple[str, int, Reason | None, Outcome, str, str]
"""
What requests that look alike have in common: the method as sent, the status that the client got (499 when it left), why it
ended without the upstream's own answer (None otherwise), the outcome as `classify` said, the endpoint as `HOST:PORT` (empty
when it was sent to none), and the path with its ids replaced (empty when unknown).
"""


class GaugeSource(Protocol):
    """The guard, as far as a tick needs it."""

    def gauges(self, route: str, now: float) -> RouteGauges:
        """Return what the guard of *route* says of itself."""


class Durations:
    """A sum and a dense histogram."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.sum_s = 0.0
        self.counts = [0] * histogram.SIZE

    def __repr__(self) -> str:
        return f"<Durations n={sum(self.counts)} sum={self.sum_s:.3f}s>"

    def add(self, seconds: float) -> None:
        """Count one value."""
        self.sum_s += seconds
        self.counts[histogram.index(seconds)] += 1

    def row(self) -> list[object]:
        """Return [sum in s, [[bucket index, count], …]]."""
        return [self.sum_s, histogram.pairs(self.counts)]


class _Cell:
    """How many requests that look alike ended since the last fold."""

    __slots__ = ("count", "durations", "failed", "reached")

    def __init__(self, durations: Durations, outcome: Outcome) -> None:
        self.count = 0
        self.durations = durations
        self.failed = outcome is _FAILURE
        self.reached = outcome is not _CANCELLED


class RouteCounters:
    """The counters of one route in one worker, since the worker's epoch."""

    __slots__ = (
        "_cells",
        "_changed",
        "_drilled",
        "_drilled_latency",
        "_durations",
        "_ended",
        "_endings",
        "_endpoints",
        "_heavy",
        "_latency",
        "_methods",
        "_outcomes",
        "_paths",
        "_refused",
        "_sent",
        "_statuses",
        "_trials",
        "_would",
        "again",
        "arrivals",
    )  # fmt: skip

    def __init__(self) -> None:
        self.again = self.arrivals = 0
        self._cells: dict[Kind, _Cell] = {}
        self._durations: dict[str, Durations] = {}
        self._latency = Durations()
        self._heavy = HeavyClients()
        self._outcomes: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._would: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._endings: dict[str, int] = {}
        self._methods: dict[str, Pair] = {}
        self._statuses: dict[str, Pair] = {}
        self._endpoints: dict[str, Pair] = {}
        self._paths: dict[str, Pair] = {}
        self._trials: dict[str, Pair] = {}
        self._drilled: dict[str, int] = {}
        self._drilled_latency = Durations()
        self._changed = False
        self._sent: RouteGauges | None = None

    def __repr__(self) -> str:
        return f"<RouteCounters arrivals={self.arrivals} {self._outcomes}>"

    # --- one request ---------------------------------------------------------------------------------------------

    def arrive(self, client: str, now: float) -> None:  # noqa: ARG002 - the port's shape; who came counts at the end
        """Count one request whose head was read, refused ones included."""
        self.arrivals += 1
        self._changed = True

    def end(
        self,
        client: str,
        kind: Kind,
        duration_s: float,
        latency_s: float | None,
        slow: bool,  # noqa: FBT001 - hot path: positional
        directive: str | None,
    ) -> None:
        """
        Count one request that ended. The hot path: the two histograms stand here in full.

        Args:
            client: Its key.
            kind: What it has in common with others; methods beyond the bounded table become `_other`.
            duration_s: Head read → last byte of the answer.
            latency_s: Last request byte sent → first response byte, or the age at a timeout or reset.
            slow: It was slower than the route's `slow`.
            directive: The isolation or override whose share let it pass.
        """
        cell = self._cells.get(kind)
        if cell is None:
            cell = self._open_cell(kind)
        cell.count += 1
        durations = cell.durations
        durations.sum_s += duration_s
        if _FLOOR_S <= duration_s < _CEILING_S:
            durations.counts[int(log2(duration_s) * 6.0 + 85.0)] += 1
        else:
            durations.counts[0 if duration_s < 1.0 else _LAST] += 1
        if latency_s is not None:
            latency = self._latency
            latency.sum_s += latency_s
            if _FLOOR_S <= latency_s < _CEILING_S:
                latency.counts[int(log2(latency_s) * 6.0 + 85.0)] += 1
            else:
                latency.counts[0 if latency_s < 1.0 else _LAST] += 1
        entry = self._heavy.entries.get(client)
        if entry is None:
            entry = self._heavy.enter(client)
        entry[4] += 1
        if cell.reached:
            entry[1] += 1
            if cell.failed:
                entry[2] += 1
            if slow:
                entry[3] += 1
        else:
            entry[5] += 1
        if directive is not None:
            self._try(directive, kind[3])
        self._changed = True

    def would(self, observed: Iterable[Would]) -> None:
        """Count what observing controls would have refused (`Ticket.would`)."""
        for each in observed:
            reason = each.refusal.reason
            self._would[reason] = self._would.get(reason, 0) + 1
            self._changed = True

    def rearrived(self) -> None:
        """Count a request that came again within its back-off, and was refused or failed again."""
        self.again += 1

    def drilled(self, outcome: Outcome, latency_s: float | None, directive: str | None) -> None:
        """Count what a drill made of a request; `end` counts the same request as ignored."""
        self._drilled[outcome] = self._drilled.get(outcome, 0) + 1
        if latency_s is not None:
            self._drilled_latency.add(latency_s)
        if directive is not None:
            self._try(directive, outcome)
        self._changed = True

    def _try(self, directive: str, outcome: Outcome) -> None:
        if outcome not in (Outcome.SUCCESS, Outcome.FAILURE):
            return
        pair = self._trials.get(directive)
        if pair is None:
            if len(self._trials) >= MAX_TRIALS:
                del self._trials[next(iter(self._trials))]  # the oldest: it ended long ago
            pair = self._trials[directive] = [0, 0]
        pair[outcome is _FAILURE] += 1

    def _open_cell(self, key: Kind) -> _Cell:
        method, status, _, outcome, _, _ = key
        if len(self._cells) >= MAX_CELLS:
            self._fold()
            self._cells.clear()
        name = f"{method} {status}"
        if name not in self._durations and len(self._durations) >= MAX_NAMES:
            name = f"{OVERFLOW} {status // 100 * 100}"
        durations = self._durations.get(name)
        if durations is None:
            durations = self._durations[name] = Durations()
        cell = self._cells[key] = _Cell(durations, outcome)
        return cell

    # --- one tick ------------------------------------------------------------------------------------------------

    def _fold(self) -> None:
        """Move what the cells counted into the tables."""
        for (method, status, reason, outcome, endpoint, path), cell in self._cells.items():
            count, cell.count = cell.count, 0
            if not count:
                continue
            self._outcomes[outcome] = self._outcomes.get(outcome, 0) + count
            if reason is not None:
                table = self._refused if TABLE[reason].party is Party.GUARD else self._ended
                table[reason] = table.get(reason, 0) + count
                ending = f"{outcome} {reason}"
                self._endings[ending] = self._endings.get(ending, 0) + count
            if not cell.reached:
                continue
            failed = count if cell.failed else 0
            _add(self._methods, method, MAX_NAMES, count, failed)
            _add(
                self._statuses,
                str(status) if reason is None else _ENDINGS.get(reason, reason),
                MAX_NAMES,
                count,
                failed,
            )
            _add(self._endpoints, endpoint, MAX_NAMES, count, failed)
            _add(self._paths, path, MAX_PATHS, count, failed)

    def tick(self, gauges: RouteGauges, now: float) -> RouteTick | None:
        """Return the counters and *gauges* when anything changed since the last tick, else None."""
        if not self._changed and not gauges.waiting_ages_s and gauges == self._sent:
            return None
        self._changed, self._sent = False, gauges
        self._fold()
        self._heavy.age(now)
        return RouteTick(
            arrivals=self.arrivals,
            again=self.again,
            outcomes=dict(self._outcomes),
            refused=dict(self._refused),
            would_refuse=dict(self._would),
            ended=dict(self._ended),
            endings=dict(self._endings),
            durations={name: row.row() for name, row in self._durations.items()},
            latency=self._latency.row(),
            waiting=[[i, n] for i, n in sorted(histogram.of_values(gauges.waiting_ages_s).items())],
            in_flight=gauges.in_flight,
            clients=self._heavy.rows(),
            methods=_copied(self._methods),
            statuses=_copied(self._statuses),
            endpoints=_copied(self._endpoints),
            paths=_copied(self._paths),
            trips=gauges.trips,
            breaker=gauges.breaker.value,
            generation=gauges.generation,
            limits=dict(gauges.limits),
            concurrency_limit=gauges.concurrency_limit,
            trials=_copied(self._trials),
            held=dict(gauges.held),
            drilled=dict(self._drilled),
            drilled_latency=self._drilled_latency.row() if self._drilled else (0.0, ()),
        )

    def resend(self) -> None:
        """Make the next tick say everything again."""
        self._changed = True


class Meter:
    """All counters of one worker."""

    def __init__(self) -> None:
        self._routes: dict[str, RouteCounters] = {}
        self._overhead = Durations()
        self._full = True  # the first tick of a link says everything

    def __repr__(self) -> str:
        return f"<Meter {self._routes}>"

    def route(self, name: str) -> RouteCounters:
        """Return the counters of route *name*; bind them once an exchange."""
        counters = self._routes.get(name)
        if counters is None:
            counters = self._routes[name] = RouteCounters()
        return counters

    def overhead(self, seconds: float) -> None:
        """Count the time that the sidecar itself added to one request."""
        self._overhead.add(seconds)

    def resend(self) -> None:
        """Say everything in the next tick: call it when a tick was dropped or a link is new."""
        for counters in self._routes.values():
            counters.resend()
        self._full = True

    def tick(
        self,
        worker: int,
        epoch: str,
        sequence: int,
        now: float,
        guard: GaugeSource,
        *,
        lag_s: float = 0.0,
        connections: int = 0,
        config_version: int = 0,
        dropped: int = 0,
        draining: bool = False,
        since_at: float = 0.0,
        endpoints: Mapping[str, Sequence[object]] | None = None,
        retries: tuple[int, int] = (0, 0),
    ) -> Tick:
        """Return the frame of this second: the routes that changed since the last one, and the worker's gauges."""
        routes = {name: row.tick(guard.gauges(name, now), now) for name, row in self._routes.items()}
        full, self._full = self._full, False
        return Tick(
            worker=worker,
            epoch=epoch,
            sequence=sequence,
            at=now,
            routes={name: row for name, row in routes.items() if row is not None},
            overhead=self._overhead.row(),
            lag_s=lag_s,
            connections=connections,
            config_version=config_version,
            dropped=dropped,
            draining=draining,
            since_at=since_at,
            full=full,
            endpoints=endpoints or {},
            retries=retries[0],
            retries_denied=retries[1],
        )


def _add(table: dict[str, Pair], name: str, size: int, count: int, failed: int) -> None:
    if not name:
        return
    pair = table.get(name)
    if pair is None:
        if len(table) >= size:
            name = OVERFLOW
        pair = table.setdefault(name, [0, 0])
    pair[0] += count
    pair[1] += failed


def _copied(table: Mapping[str, Pair]) -> dict[str, Pair]:
    return {name: pair[:] for name, pair in table.items()}
