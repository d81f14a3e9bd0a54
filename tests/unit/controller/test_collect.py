"""From cumulative ticks to seconds and totals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest

from sidecar.controller.collect import MAX_EPOCHS, SILENT_S, Collector, EndpointTotals, Timing
from sidecar.controller.counts import MAX_DIRECTIVES, MAX_SERIES
from sidecar.facts import BreakerState, ClientSecond, RouteSecond
from sidecar.link.frames import RouteTick, Tick

START = 100.0


def tick(at: float, routes: dict[str, RouteTick] | None = None, **given: Any) -> Tick:
    """A tick of worker 0's first epoch, which began with the collector, unless said otherwise."""
    return replace(Tick(0, "e1", int(at - START) + 1, at, routes or {}, since_at=START), **given)


def arrived(count: int) -> dict[str, RouteTick]:
    return {"shop": RouteTick(arrivals=count)}


def arrivals(collector: Collector, now: float) -> int:
    return sum(second.arrivals for second in collector.close_second(now))


def test_second_is_the_difference_of_two_ticks() -> None:
    """Every table of a second is what its counters grew by, and gauges are as the last tick says."""
    collector = Collector(START)
    first = RouteTick(
        arrivals=10,
        outcomes={"success": 5, "failure": 2, "ignored": 1, "cancelled": 2},
        refused={"rate_limited": 2},
        latency=[1.5, [[60, 6], [70, 1]]],
        clients=[["k1", 7, 4, 1, 1]],
        methods={"GET": [6, 2]},
        statuses={"200": [5, 0], "reset": [2, 2]},
        endpoints={"h:1": [7, 2]},
        paths={"/a": [7, 2]},
        trips=1,
        trials={"isolation-1": [1, 0]},
        held={"isolation-1": 3},
    )
    second = replace(
        first,
        arrivals=13,
        outcomes={"success": 8, "failure": 2, "ignored": 1, "cancelled": 2},
        latency=[2.5, [[60, 9], [70, 1]]],
        clients=[["k1", 7, 6, 2, 1], ["k2", 8, 1, 0, 0]],
        methods={"GET": [9, 2]},
        statuses={"200": [8, 0], "reset": [2, 2]},
        endpoints={"h:1": [10, 2]},
        paths={"/a": [8, 2], "/b": [2, 0]},
        trials={"isolation-1": [1, 2]},
        held={"isolation-1": 5},
        waiting=[[80, 2]],
        in_flight=4,
    )
    collector.take(tick(101.0, {"shop": first}), 101.0)
    collector.close_second(101.5)

    collector.take(tick(102.0, {"shop": second}), 102.0)

    expected = RouteSecond(
        route="shop", at=102.5, arrivals=3, successes=3, latency={60: 3}, waiting={80: 2}, in_flight=4,
        clients={"k1": ClientSecond(2, 1, 0), "k2": ClientSecond(1, 0, 0)}, methods={"GET": (3, 0)},
        statuses={"200": (3, 0)}, endpoints={"h:1": (3, 0)}, paths={"/a": (1, 0), "/b": (2, 0)},
        passed_trials={"isolation-1": (0, 2)}, held={"isolation-1": 2},
    )  # fmt: skip
    assert collector.close_second(102.5) == [expected]


def test_silent_routes_have_seconds_too() -> None:
    """A configured route has a row before its first request, and a known one goes on having it."""
    collector = Collector(START, ["shop", "cart"])

    assert [RouteSecond("shop", 101.0), RouteSecond("cart", 101.0)] == collector.close_second(101.0)

    collector.take(tick(101.0, {"other": RouteTick(arrivals=1)}), 101.0)
    assert collector.close_second(102.0)[2] == RouteSecond("other", 102.0, arrivals=1)
    assert collector.close_second(103.0)[2] == RouteSecond("other", 103.0)


def test_removed_route_leaves_seconds_and_gauges_but_not_totals() -> None:
    """After a config change a removed route is not watched any more; its counters stay, and late ticks still count."""
    collector = Collector(START, ["shop"])
    collector.take(tick(101.0, {"shop": RouteTick(arrivals=2, in_flight=1)}), 101.0)

    collector.configured(["cart"])
    collector.take(tick(102.0, {"shop": RouteTick(arrivals=3, in_flight=1)}), 102.0)

    assert [second.route for second in collector.close_second(102.0)] == ["cart"]
    assert (collector.totals(102.0).routes["shop"].arrivals, collector.totals(102.0).routes["shop"].in_flight) == (3, 0)

    collector.configured(["shop"])
    collector.take(tick(103.0, arrived(7)), 103.0)
    assert collector.close_second(103.0) == [RouteSecond("shop", 103.0, arrivals=4)]


def test_skipped_ticks_come_whole_with_the_next() -> None:
    """A tick that was dropped on the way costs its moment, not its counts."""
    collector = Collector(START)
    collector.take(tick(101.0, arrived(5)), 101.0)
    collector.close_second(101.0)

    assert arrivals(collector, 102.0) == 0
    collector.take(tick(104.0, arrived(50)), 104.0)
    assert arrivals(collector, 104.0) == 45


def test_workers_are_summed() -> None:
    """Counts and gauges of several workers are one route's, under one client key."""
    collector = Collector(START)
    row = RouteTick(arrivals=2, in_flight=3, clients=[["k", 1, 2, 1, 0]], limits={"route": 4.0}, concurrency_limit=8)
    for worker in (0, 1):
        collector.take(tick(101.0, {"shop": row}, worker=worker, epoch=f"e{worker}"), 101.0)

    [second] = collector.close_second(101.0)
    assert (4, 6, {"k": ClientSecond(4, 2, 0)}) == (second.arrivals, second.in_flight, second.clients)
    totals = collector.totals(101.0).routes["shop"]
    assert (totals.limits, totals.concurrency_limit) == ({"route": 8.0}, 16)


def test_new_epoch_starts_from_zero() -> None:
    """A restarted worker's counters are all new, and totals never fall."""
    collector = Collector(START)
    collector.take(tick(101.0, arrived(100)), 101.0)
    collector.close_second(101.0)

    collector.take(tick(105.0, arrived(3), epoch="e2", since_at=104.0, sequence=1), 105.0)

    assert arrivals(collector, 105.0) == 3
    assert collector.totals(105.0).routes["shop"].arrivals == 103


def test_draining_predecessor_still_counts() -> None:
    """While an old process drains beside its successor, the last counts of both arrive."""
    collector = Collector(START)
    collector.take(tick(101.0, arrived(10)), 101.0)
    collector.take(tick(102.0, arrived(5), epoch="e2", since_at=101.5), 102.0)
    collector.close_second(102.0)

    collector.take(tick(103.0, arrived(12), draining=True), 103.0)
    collector.take(tick(103.0, arrived(6), epoch="e2", since_at=101.5), 103.0)

    assert arrivals(collector, 103.0) == 3
    assert not collector.totals(103.0).workers[0].draining  # the younger one is the worker


def test_link_that_comes_back_goes_on_where_it_was() -> None:
    """A lost link loses no count: the same epoch continues from its baseline."""
    collector = Collector(START)
    collector.take(tick(101.0, arrived(10)), 101.0)
    collector.close_second(101.0)

    collector.lost(0, 101.5)
    collector.take(tick(109.0, arrived(17)), 109.0)

    assert arrivals(collector, 109.0) == 7


@pytest.mark.parametrize("gone", ["lost", "silent"])
def test_gauges_of_a_gone_worker_vanish(gone: str) -> None:
    """What a worker held when its link ended, or when it fell silent, is not in flight any more."""
    collector = Collector(START)
    row = RouteTick(
        arrivals=1, in_flight=3, waiting=[[80, 3]], breaker="open", limits={"route": 1.0}, concurrency_limit=9
    )
    collector.take(tick(101.0, {"shop": row}, lag_s=0.2), 101.0)
    now = 101.0
    assert collector.totals(now).routes["shop"].breaker is BreakerState.OPEN

    if gone == "lost":
        collector.lost(0, now)
    else:
        now += SILENT_S + 0.1

    [second] = collector.close_second(now)
    totals = collector.totals(now)
    assert (second.in_flight, second.waiting) == (0, {})
    assert (totals.routes["shop"].in_flight, totals.routes["shop"].limits, totals.routes["shop"].concurrency_limit) == (
        0,
        {},
        None,
    )
    assert totals.routes["shop"].breaker is BreakerState.CLOSED
    assert totals.workers == {}


def test_worst_breaker_of_the_workers_is_shown() -> None:
    """Open outranks half open, half open outranks closed."""
    collector = Collector(START)
    for worker, state in enumerate(["closed", "half_open"]):
        collector.take(tick(101.0, {"shop": RouteTick(breaker=state)}, worker=worker, epoch=f"e{worker}"), 101.0)

    assert collector.totals(101.0).routes["shop"].breaker is BreakerState.HALF_OPEN


def test_client_that_left_the_table_and_returned_counts_from_its_return() -> None:
    """Counts of a client are compared only within one stay in the worker's bounded table."""
    collector = Collector(START)
    collector.take(tick(101.0, {"shop": RouteTick(clients=[["k", 1, 50, 5, 0]])}), 101.0)
    collector.close_second(101.0)

    collector.take(tick(102.0, {"shop": RouteTick(clients=[["k", 9, 60, 2, 0]])}), 102.0)

    assert collector.close_second(102.0)[0].clients == {"k": ClientSecond(60, 2, 0)}


def test_older_tick_of_an_epoch_is_ignored() -> None:
    """A tick that arrives after a younger one of its epoch changes nothing."""
    collector = Collector(START)
    collector.take(tick(103.0, arrived(9)), 103.0)
    collector.take(tick(102.0, arrived(5)), 103.0)

    assert arrivals(collector, 103.0) == 9


class TestSecondController:
    """A controller that begins while workers have been running does not count what an earlier one had."""

    old: ClassVar[dict[str, Any]] = {"since_at": 5.0, "epoch": "old"}

    def test_first_sight_is_the_baseline(self) -> None:
        """The first tick of an older epoch counts nothing; the next one its difference."""
        collector = Collector(START)
        collector.take(tick(101.0, arrived(1_000_000), sequence=700, **self.old), 101.0)
        assert arrivals(collector, 101.0) == 0

        collector.take(tick(102.0, arrived(1_000_004), sequence=701, **self.old), 102.0)
        assert arrivals(collector, 102.0) == 4

    def test_route_that_was_idle_is_a_baseline_too(self) -> None:
        """Without a full tick, a route that shows up later may have any history."""
        collector = Collector(START)
        collector.take(tick(101.0, arrived(10), sequence=700, **self.old), 101.0)
        collector.take(tick(102.0, {"cart": RouteTick(arrivals=500)}, sequence=701, **self.old), 102.0)

        assert arrivals(collector, 102.0) == 0

    def test_after_a_full_tick_a_new_route_counts_whole(self) -> None:
        """After a full tick, a route that was not in it had counted nothing before."""
        collector = Collector(START)
        collector.take(tick(101.0, arrived(10), sequence=700, full=True, **self.old), 101.0)
        collector.take(tick(102.0, {"cart": RouteTick(arrivals=5)}, sequence=701, **self.old), 102.0)

        assert arrivals(collector, 102.0) == 5

    def test_ticks_measured_before_it_began_only_move_the_baseline(self) -> None:
        """Ticks that waited in the backlog are of seconds that are over."""
        collector = Collector(START)
        for at, count in ((98.0, 10), (99.0, 20), (101.0, 25)):
            collector.take(tick(at, arrived(count), sequence=700, **self.old), 100.5)

        assert arrivals(collector, 101.0) == 5

    def test_very_first_tick_counts_whole(self) -> None:
        """A worker that was born a moment before the controller has told nobody yet."""
        collector = Collector(START)
        collector.take(tick(99.5, arrived(3), sequence=1, since_at=99.0, epoch="e"), 100.5)
        collector.take(tick(100.5, arrived(5), sequence=2, since_at=99.0, epoch="e"), 100.5)

        assert arrivals(collector, 101.0) == 5


def test_totals_hold_everything_since_the_beginning() -> None:
    """Totals are cumulative over workers and epochs, durations by method and status."""
    collector = Collector(START)
    row = RouteTick(
        arrivals=4,
        outcomes={"success": 3, "cancelled": 1},
        refused={"rate_limited": 1},
        would_refuse={"isolated": 2},
        ended={"client_disconnected": 1},
        endings={"cancelled rate_limited": 1, "success client_disconnected": 1},
        durations={"GET 200": [0.9, [[60, 3]]], "GET 429": [0.0, [[0, 1]]]},
        latency=[0.6, [[58, 3]]],
        trials={"isolation-1": [2, 1]},
        held={"isolation-1": 1},
        trips=1,
    )
    collector.take(tick(101.0, {"shop": row}, overhead=[0.25, [[2, 4]]], dropped=3, lag_s=0.1, connections=7), 101.0)
    collector.take(tick(102.0, {"shop": row}, worker=1, epoch="e2", overhead=[0.25, [[2, 4]]]), 102.0)

    totals = collector.totals(102.5)
    shop = totals.routes["shop"]
    assert (shop.arrivals, shop.outcomes, shop.refused) == (8, {"success": 6, "cancelled": 2}, {"rate_limited": 2})
    assert (shop.would_refuse, shop.ended) == ({"isolated": 4}, {"client_disconnected": 2})
    assert shop.endings == {"cancelled rate_limited": 2, "success client_disconnected": 2}
    assert shop.durations == {"GET 200": Timing(1.8, {60: 6}), "GET 429": Timing(0.0, {0: 2})}
    assert (Timing(1.2, {58: 6}), 2) == (shop.latency, shop.trips)
    assert (shop.trials, shop.held) == ({"isolation-1": (4, 2)}, {"isolation-1": 2})
    assert (Timing(0.5, {2: 8}), 3) == (totals.overhead, totals.dropped)
    assert (totals.workers[0].age_s, totals.workers[0].lag_s, totals.workers[0].connections) == (1.5, 0.1, 7)


def test_endpoints_are_seen_over_the_workers() -> None:
    """
    Standings and requests in flight are of the live workers now; ejections and retries never fall when one restarts.
    """
    collector = Collector(START)
    collector.take(tick(101.0, {}, endpoints={"a:1": ["up", 2, 1], "b:2": ["up", 1, 0]}, retries=3), 101.0)
    collector.take(tick(101.0, {}, worker=1, epoch="e2", endpoints={"a:1": ["ejected", 1, 2]}, retries_denied=4), 101.0)
    collector.take(tick(102.0, {}, epoch="e3", since_at=101.5, endpoints={"a:1": ["up", 5, 1]}, retries=1), 102.0)
    collector.lost(1, 102.0)

    totals = collector.totals(102.5)
    assert totals.endpoints["a:1"] == EndpointTotals({"up": 2}, 7, 4)
    assert totals.endpoints["b:2"] == EndpointTotals({"up": 1}, 1, 0)
    assert (totals.retries, totals.retries_denied) == (4, 4)


def test_tunnels_are_counted() -> None:
    """
    Those that stand are a gauge of the live workers; how many there were and what they carried only grows.
    """
    collector = Collector(START)
    collector.take(tick(101.0, {}, tunnels=2, tunnels_opened=3, tunnel_bytes={"up": 10, "down": 20}), 101.0)
    collector.take(
        tick(101.0, {}, worker=1, epoch="e2", tunnels=1, tunnels_opened=1, tunnel_bytes={"up": 1, "down": 2}), 101.0
    )
    collector.lost(1, 102.0)

    totals = collector.totals(102.5)
    assert (totals.tunnels, totals.tunnels_opened, totals.tunnel_bytes) == (2, 4, {"up": 11, "down": 22})


def test_series_are_bounded() -> None:
    """METHOD STATUS pairs beyond the bound are one overflow series, and no count is lost by it."""
    collector = Collector(START)
    for n in range(3):
        pairs = {f"M{i} 200": [1.0 * (n + 1), [[60, n + 1]]] for i in range(MAX_SERIES + 50)}
        collector.take(tick(101.0 + n, {"shop": RouteTick(durations=pairs)}), 101.0 + n)

    durations = collector.totals(103.0).routes["shop"].durations
    assert len(durations) == MAX_SERIES + 1
    assert durations["_other _other"] == Timing(150.0, {60: 150})
    assert sum(timing.buckets[60] for timing in durations.values()) == 3 * (MAX_SERIES + 50)


def test_ended_directives_are_forgotten_in_time() -> None:
    """Totals by directive keep the newest; isolations without end do not fill the memory."""
    collector = Collector(START)
    for n in range(MAX_DIRECTIVES + 50):
        collector.take(tick(101.0 + n, {"shop": RouteTick(held={f"isolation-{n}": 1})}), 101.0 + n)

    held = collector.totals(101.0).routes["shop"].held
    assert len(held) == MAX_DIRECTIVES
    assert f"isolation-{MAX_DIRECTIVES + 49}" in held


def test_crash_looping_worker_does_not_fill_the_memory() -> None:
    """Only the last few epochs of a worker are remembered; a forgotten one that speaks again is not counted twice."""
    collector = Collector(START)
    for n in range(MAX_EPOCHS + 3):
        collector.take(tick(101.0 + n, arrived(2), epoch=f"e{n}", since_at=101.0 + n), 101.0 + n)
    collector.take(tick(120.0, arrived(2), epoch="e0", since_at=101.0), 120.0)

    assert collector.totals(120.0).routes["shop"].arrivals == 2 * (MAX_EPOCHS + 3)
    assert repr(collector) == f"<Collector 1 routes, {MAX_EPOCHS} epochs>"
