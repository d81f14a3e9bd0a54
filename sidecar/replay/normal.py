"""What was normal on a route before an incident, and how far the incident went: measured on the stored history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Final

from sidecar.incident.rules import Normal
from sidecar.measure import histogram
from sidecar.replay.material import Material
from sidecar.replay.seconds import InFlight
from sidecar.replay.tape import Line

QUANTILE: Final = 0.99
MAX_CLIENTS: Final = 256


class _Rates:
    """How often each number of requests a second was seen."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.most = 0

    def add(self, per_s: float, seconds: int) -> None:
        self.counts[ceil(per_s)] += seconds
        self.most = max(self.most, ceil(per_s))

    def quantile(self) -> float:
        rank = QUANTILE * self.counts.total()
        for value in sorted(self.counts):
            rank -= self.counts[value]
            if rank <= 0:
                return float(value)
        return 0.0


class _Seen:
    """
    What came on one route, or on all together, before the onset and after it.

    Args:
        costs: What a request of each route counts; 1 where nothing is said.
    """

    def __init__(self, costs: Mapping[str, float]) -> None:
        self._costs = costs
        self.seconds = 0
        self.before, self.after = _Rates(), _Rates()
        self.clients: dict[str, _Rates] = {}
        self.peaks: dict[str, float] = {}
        self.latency: dict[int, int] = {}
        self.in_flight = 0
        self.longest = -1  # a bucket

    def take_before(self, lines: Sequence[Line], step: int) -> None:
        self.seconds += step
        self.before.add(self._arrivals(lines) / step, step)
        self.in_flight = max(self.in_flight, sum(line.in_flight or 0 for line in lines))
        for line in lines:
            for i, count in line.latency.items():
                self.latency[i] = self.latency.get(i, 0) + count
        for key, asked in self._by_client(lines).items():
            if key in self.clients or len(self.clients) < MAX_CLIENTS:
                self.clients.setdefault(key, _Rates()).add(asked / step, step)

    def take_after(self, lines: Sequence[Line], waiting: Iterable[int], step: int) -> None:
        self.after.add(self._arrivals(lines) / step, step)
        self.longest = max((self.longest, *waiting, *(i for line in lines for i in line.latency)))
        for key, asked in self._by_client(lines).items():
            self.peaks[key] = max(self.peaks.get(key, 0.0), asked / step)

    def _arrivals(self, lines: Sequence[Line]) -> float:
        return sum(line.requests * self._costs.get(line.route, 1.0) for line in lines)

    def _by_client(self, lines: Sequence[Line]) -> Mapping[str, float]:
        asked: dict[str, float] = {}
        for line in lines:
            cost = self._costs.get(line.route, 1.0)
            for key, (count, _) in (line.clients or {}).items():
                asked[key] = asked.get(key, 0.0) + count * cost
        return asked

    def normal(self) -> Normal:
        return Normal(
            self.seconds,
            self.before.quantile(),
            float(self.after.most),
            {key: rates.quantile() for key, rates in self.clients.items()},
            self.peaks,
            histogram.quantile(self.latency, QUANTILE) if self.latency else 0.0,
            self.in_flight,
            histogram.MIDDLE_S[self.longest] if self.longest >= 0 else 0.0,
        )


def measure(
    material: Material, route: str, onset: float, until: float, costs: Mapping[str, float]
) -> tuple[Normal, Normal]:
    """
    Return what was normal on *route* before *onset*, and what was not between it and *until*; and, in tokens, of all routes.

    Args:
        material: The stored history.
        route: Its name.
        onset, until: Unix seconds.
        costs: Tokens that a request of each route takes; 1 where nothing is said.
    """
    mine, whole, flights = _Seen({}), _Seen(costs), dict[str, InFlight]()
    for second in material.seconds():
        if second.t > until:
            break
        step, lines = round(second.step_s), list(second.lines.values())
        ages = {line.route: _ages(line, flights.setdefault(line.route, InFlight())) for line in lines}
        own = [second.lines[route]] if route in second.lines else []
        for seen, rows in ((mine, own), (whole, lines)):
            if second.t < onset:
                seen.take_before(rows, step)
            else:
                seen.take_after(rows, (i for row in rows for i in ages[row.route]), step)
    return mine.normal(), whole.normal()


def _ages(line: Line, flight: InFlight) -> Mapping[int, int]:
    flight.ended(line, max(line.requests - sum(line.refused.values()), 0))
    return flight.waiting(line)
