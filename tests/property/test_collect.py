"""Whatever happens to ticks, links and workers: no count is lost but those of a killed worker since its last tick."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.controller.collect import Collector
from sidecar.link.frames import RouteTick, Tick

WORKERS = 3
ROUTES = ("shop", "cart")
OUTCOMES = ("success", "failure", "ignored", "cancelled")


class Worker:
    """A worker that counts, and says only what changed since its last tick that got through."""

    def __init__(self, index: int, epoch: int, born_at: float) -> None:
        self.index, self.epoch, self.born_at = index, f"{index}-{epoch}", born_at
        self.counts: dict[str, Counter[str]] = {}
        self.told: dict[str, Counter[str]] = {}
        self.sequence = 0

    def tick(self, at: float) -> Tick:
        self.sequence += 1
        changed = {route: counts for route, counts in self.counts.items() if counts != self.told.get(route)}
        rows = {
            route: RouteTick(arrivals=counts.total(), outcomes=dict(counts), latency=[0.0, [[60, counts["success"]]]])
            for route, counts in changed.items()
        }
        return Tick(self.index, self.epoch, self.sequence, at, rows, since_at=self.born_at)

    def delivered(self) -> Counter[tuple[str, str]]:
        """Return what is new since the last tick that got through, and note it as told."""
        fresh: Counter[tuple[str, str]] = Counter()
        for route, counts in self.counts.items():
            for outcome, count in (counts - self.told.get(route, Counter())).items():
                fresh[route, outcome] += count
            self.told[route] = counts.copy()
        return fresh


class Fleet(RuleBasedStateMachine):
    """Workers, their links and one collector."""

    @initialize()
    def begin(self) -> None:
        self.now = 10.0
        self.collector = Collector(self.now, ROUTES)
        self.epochs = 0
        self.workers = [self.worker(index) for index in range(WORKERS)]
        self.expected: Counter[tuple[str, str]] = Counter()
        self.closed: Counter[tuple[str, str]] = Counter()
        self.highest: Counter[tuple[str, str]] = Counter()

    def worker(self, index: int) -> Worker:
        self.epochs += 1
        return Worker(index, self.epochs, self.now)

    @rule(
        index=st.integers(0, WORKERS - 1),
        route=st.sampled_from(ROUTES),
        outcome=st.sampled_from(OUTCOMES),
        count=st.integers(1, 50),
    )
    def traffic(self, index: int, route: str, outcome: str, count: int) -> None:
        self.workers[index].counts.setdefault(route, Counter())[outcome] += count

    @rule(index=st.integers(0, WORKERS - 1), arrives=st.booleans())
    def tick(self, index: int, arrives: bool) -> None:
        self.now += 0.3
        worker = self.workers[index]
        frame = worker.tick(self.now)
        if arrives:
            self.expected += worker.delivered()
            self.collector.take(frame, self.now)

    @rule(index=st.integers(0, WORKERS - 1))
    def link_breaks(self, index: int) -> None:
        self.collector.lost(index, self.now)

    @rule(index=st.integers(0, WORKERS - 1))
    def killed_and_replaced(self, index: int) -> None:
        self.collector.lost(index, self.now)
        self.now += 0.1
        self.workers[index] = self.worker(index)

    @rule()
    def second_ends(self) -> None:
        self.now += 1.0
        for second in self.collector.close_second(self.now):
            row = {
                "success": second.successes,
                "failure": second.failures,
                "ignored": second.ignored,
                "cancelled": second.cancelled,
            }
            assert second.arrivals == sum(row.values())
            assert sum(second.latency.values()) == second.successes
            assert min(row.values()) >= 0
            self.closed += Counter({(second.route, outcome): count for outcome, count in row.items()})

    @invariant()
    def nothing_is_lost_or_counted_twice(self) -> None:
        totals = self.collector.totals(self.now).routes
        found = Counter({(route, name): count for route, row in totals.items() for name, count in row.outcomes.items()})
        assert found == self.expected
        assert not self.highest - found  # monotonic
        self.highest = found

    def teardown(self) -> None:
        if hasattr(self, "collector"):
            self.second_ends()
            assert self.closed == self.expected


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
