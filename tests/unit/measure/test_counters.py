from __future__ import annotations

from sidecar.facts import OVERFLOW, BreakerState, Outcome, RouteGauges
from sidecar.guard.guard import Guard
from sidecar.link.frames import RouteTick, Tick
from sidecar.link.wire import Decoder, encode
from sidecar.measure import histogram
from sidecar.measure.counters import MAX_CELLS, MAX_NAMES, MAX_TRIALS, Meter, RouteCounters
from sidecar.reasons import Reason, Refusal, Would
from tests.support import cost
from tests.support.playbook import FAILURE, PENDING, Playbook, breaker

BUDGET_S = 1.5e-6  # measured: 0.65 µs


class Still:
    """A guard of which nothing is to be said."""

    def gauges(self, route: str, now: float) -> RouteGauges:
        """Say so."""
        return RouteGauges()


def end(counters: RouteCounters, **given: object) -> None:
    """Count one request that ended well, but for what is *given*."""
    row: dict[str, object] = {
        "client": "k1", "method": "GET", "status": 200, "reason": None, "outcome": Outcome.SUCCESS,
        "duration_s": 0.02, "latency_s": 0.01, "slow": False, "endpoint": "127.0.0.1:9000",
        "path_template": "/api/items/{id}", "directive": None,
    }  # fmt: skip
    counters.arrive("k1", 0.0)
    row |= given
    kind = tuple(row.pop(name) for name in ("method", "status", "reason", "outcome", "endpoint", "path_template"))
    counters.end(kind=kind, **row)  # type: ignore[arg-type]


def ticked(counters: RouteCounters, gauges: RouteGauges | None = None) -> RouteTick:
    """Return the counters' tick, which must have something to say."""
    tick = counters.tick(gauges or RouteGauges(), 0.0)
    assert tick is not None
    return tick


def refused(counters: RouteCounters) -> None:
    """Count one own refusal."""
    end(counters, status=429, reason=Reason.RATE_LIMITED, outcome=Outcome.CANCELLED, latency_s=None, endpoint="")


def test_a_tick_says_what_ended_and_how() -> None:
    """
    Successes, failures and refusals are in their tables, each exactly once.
    """
    counters = RouteCounters()
    for _ in range(3):
        end(counters)
    end(counters, status=503, outcome=Outcome.FAILURE, method="POST", path_template="/pay", slow=True)
    end(counters, status=504, reason=Reason.UPSTREAM_TIMEOUT, outcome=Outcome.FAILURE, latency_s=30.0, client="k2")
    end(counters, status=499, reason=Reason.CLIENT_DISCONNECTED, outcome=Outcome.IGNORED, latency_s=None)
    refused(counters)
    tick = ticked(counters)
    assert tick.arrivals == 7
    assert tick.outcomes == {"success": 3, "failure": 2, "ignored": 1, "cancelled": 1}
    assert tick.refused == {"rate_limited": 1}
    assert tick.ended == {"upstream_timeout": 1, "client_disconnected": 1}
    assert tick.methods == {"GET": [5, 1], "POST": [1, 1]}
    assert tick.statuses == {"200": [3, 0], "503": [1, 1], "timeout": [1, 1], "left": [1, 0]}
    assert tick.endpoints == {"127.0.0.1:9000": [6, 2]}
    assert tick.paths == {"/api/items/{id}": [5, 1], "/pay": [1, 1]}
    assert tick.clients == [["k1", 1, 5, 1, 1, 1], ["k2", 2, 1, 1, 0, 0]]


def test_durations_are_of_all_latencies_of_the_upstream() -> None:
    """
    An own refusal has a duration (by method and status) and no upstream latency.
    """
    counters = RouteCounters()
    end(counters, duration_s=0.5, latency_s=0.25)
    refused(counters)
    tick = ticked(counters)
    assert tick.durations == {
        "GET 200": [0.5, [[histogram.index(0.5), 1]]],
        "GET 429": [0.02, [[histogram.index(0.02), 1]]],
    }
    assert tick.latency == [0.25, [[histogram.index(0.25), 1]]]


def test_what_has_no_name_is_in_no_table() -> None:
    """
    A request that met no endpoint and no template adds no empty row.
    """
    counters = RouteCounters()
    end(counters, endpoint="", path_template="")
    tick = ticked(counters)
    assert (tick.endpoints, tick.paths, tick.methods) == ({}, {}, {"GET": [1, 0]})


def test_durations_outside_the_buckets_are_at_their_edges() -> None:
    """
    Zero is in the first bucket, an hour in the last.
    """
    counters = RouteCounters()
    end(counters, duration_s=0.0, latency_s=0.0)
    end(counters, duration_s=3600.0, latency_s=3600.0)
    tick = ticked(counters)
    assert tick.durations["GET 200"] == [3600.0, [[0, 1], [145, 1]]]
    assert tick.latency == [3600.0, [[0, 1], [145, 1]]]


def test_counters_are_cumulative() -> None:
    """
    A second tick includes the first, so a lost one loses nothing.
    """
    counters = RouteCounters()
    end(counters)
    ticked(counters)
    end(counters)
    tick = ticked(counters)
    assert (tick.arrivals, tick.outcomes, tick.methods) == (2, {"success": 2}, {"GET": [2, 0]})


def test_a_route_that_did_not_change_says_nothing() -> None:
    """
    Only what changed is sent; a waiting request, another gauge or a resend is a change.
    """
    counters = RouteCounters()
    assert counters.tick(RouteGauges(), 0.0) is not None
    assert counters.tick(RouteGauges(), 1.0) is None
    waiting = RouteGauges(in_flight=1, waiting_ages_s=(0.5,))
    assert counters.tick(waiting, 2.0) is not None
    assert counters.tick(waiting, 3.0) is not None
    assert counters.tick(RouteGauges(), 4.0) is not None
    assert counters.tick(RouteGauges(breaker=BreakerState.OPEN), 5.0) is not None
    assert counters.tick(RouteGauges(breaker=BreakerState.OPEN), 6.0) is None
    counters.resend()
    assert counters.tick(RouteGauges(breaker=BreakerState.OPEN), 7.0) is not None


def test_trials_are_counted_by_directive() -> None:
    """
    Only judged requests that an isolation let pass are its trials.
    """
    counters = RouteCounters()
    end(counters, directive="isolation-1")
    end(counters, directive="isolation-1", outcome=Outcome.FAILURE, status=503)
    end(counters, directive="isolation-1", outcome=Outcome.IGNORED, status=404)
    assert ticked(counters).trials == {"isolation-1": [1, 1]}
    for n in range(500):
        end(counters, directive=f"isolation-{n}")
    assert len(ticked(counters).trials) == MAX_TRIALS
    assert "isolation-499" in ticked_again(counters)


def ticked_again(counters: RouteCounters) -> object:
    """Return the trials of one more tick."""
    counters.resend()
    return ticked(counters).trials


def test_would_refuse_is_counted_by_reason() -> None:
    """
    What observing controls would have refused is apart from what was refused.
    """
    counters = RouteCounters()
    counters.would(Would(Refusal(reason)) for reason in (Reason.RATE_LIMITED, Reason.BREAKER_OPEN, Reason.RATE_LIMITED))
    tick = ticked(counters)
    assert (tick.would_refuse, tick.refused) == ({"rate_limited": 2, "breaker_open": 1}, {})


def test_tables_are_bounded_whatever_clients_send() -> None:
    """
    Random methods, paths and clients end in `_other`, and no count is lost.
    """
    counters = RouteCounters()
    for n in range(3 * MAX_CELLS):
        end(counters, method=f"M{n}", path_template=f"/p{n}", endpoint=f"e{n}", client=f"c{n}", status=200 + n % 400)
    tick = ticked(counters)
    for table in (tick.methods, tick.paths, tick.endpoints, tick.statuses):
        assert len(table) <= MAX_NAMES + 1
        assert sum(pair[0] for pair in table.values()) == 3 * MAX_CELLS
    assert OVERFLOW in tick.methods
    assert len(tick.durations) <= MAX_NAMES + 4
    assert sum(count for _, rows in tick.durations.values() for _, count in rows) == 3 * MAX_CELLS
    assert len(tick.clients) == 64
    assert len(counters._cells) <= MAX_CELLS


def test_a_frame_carries_a_whole_tick() -> None:
    """
    What the meter makes goes over the wire and comes back the same.
    """
    meter = Meter()
    meter.overhead(0.0002)
    end(meter.route("checkout"))
    tick = meter.tick(0, "e1", 7, 12.5, Still(), lag_s=0.1, connections=3, config_version=2, dropped=1, draining=True)
    [frame] = Decoder().feed(encode(tick))
    assert isinstance(frame, Tick)
    assert frame.routes["checkout"].arrivals == 1
    assert (frame.sequence, frame.at, frame.lag_s, frame.connections, frame.draining) == (7, 12.5, 0.1, 3, True)
    assert frame.overhead == [0.0002, [[histogram.index(0.0002), 1]]]


def test_the_guards_gauges_are_in_the_tick() -> None:
    """
    In flight, waiting ages, breaker and trips come from the guard itself.
    """
    play, meter = Playbook(breaker()), Meter()
    play.at(0.0).send(2, outcome=PENDING).send(7, outcome=FAILURE)
    meter.route("checkout")
    row = meter.tick(0, "e1", 1, 2.0, play.guard).routes["checkout"]
    assert (row.in_flight, row.breaker, row.trips, row.generation) == (2, "open", 1, 1)
    assert row.waiting == [[histogram.index(2.0), 2]]


def test_a_tick_after_nothing_names_no_route() -> None:
    """
    A quiet worker sends a tick without routes, until it is asked to say everything again.
    """
    meter, guard = Meter(), Guard(Playbook(breaker()).policy, 0.0)
    end(meter.route("checkout"))
    assert list(meter.tick(0, "e", 1, 1.0, guard).routes) == ["checkout"]
    assert meter.tick(0, "e", 2, 2.0, guard).routes == {}
    meter.resend()
    assert meter.tick(0, "e", 3, 3.0, guard).routes["checkout"].arrivals == 1


def test_counting_stays_within_its_budget() -> None:
    """
    arrive + end cost at most 1.5 µs.
    """
    counters, kind = RouteCounters(), ("GET", 200, None, Outcome.SUCCESS, "127.0.0.1:9000", "/api/x")

    def run() -> None:
        for _ in range(cost.ITEMS):
            counters.arrive("10.0.0.1", 1.0)
            counters.end("10.0.0.1", kind, 0.012, 0.011, False, None)

    assert cost.calls(run) <= cost.budget(BUDGET_S)


def test_reprs_are_for_humans() -> None:
    """
    Meter and counters say in one line how much they saw.
    """
    meter = Meter()
    end(meter.route("a"))
    assert repr(meter) == "<Meter {'a': <RouteCounters arrivals=1 {}>}>"
    assert repr(meter.route("a")._latency) == "<Durations n=1 sum=0.010s>"
