"""The guards over whole seconds: limits, isolations and breakers take what they would take live."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.facts import Action, Directive, RouteSecond, Scope
from sidecar.replay.guards import Guards
from sidecar.replay.tape import Line
from tests.support.tapes import config

PER_CLIENT = "routes: [{name: checkout, match: {path: /**}, limit: {rate: 100/s, burst: 100, per_client: {rate: 5/s, burst: 10}}}]"
SHARED = (
    "service: {limit: {rate: 30/s, burst: 30}}\nroutes: [{name: a, match: {path: /a}}, {name: b, match: {path: /**}}]"
)
BREAKER = "routes: [{name: checkout, match: {path: /**}, breaker: {}}]"
PLAIN = "routes: [{name: checkout, match: {path: /**}}]"


def line(requests: int, failures: int = 0, route: str = "checkout", **more: object) -> Line:
    return Line(1, 0.0, route, requests, failures, **more)  # type: ignore[arg-type]


def run(guards: Guards, lines: Mapping[str, Line], seconds: int, start: int = 1) -> list[list[RouteSecond]]:
    return [guards.take(lines, float(at))[0] for at in range(start, start + seconds)]


def isolation(scope: Scope, share: float) -> Directive:
    return Directive("isolation-1", scope, Action.THROTTLE, 1e9, share_ratio=share, bypass_breaker=True)


def test_without_guards_a_second_is_as_it_was_recorded() -> None:
    """
    Nothing is thinned, nothing is refused.
    """
    ((row,),) = run(Guards(config(PLAIN), 0.0), {"checkout": line(20, 3, ignored=2, latency={50: 18})}, 1)
    assert (row.successes, row.failures, row.ignored, row.cancelled) == (15, 3, 2, 0)
    assert row.latency == {50: 18}


def test_one_abuser_is_limited_and_nobody_else() -> None:
    """
    12/s against a limit of 5/s: the burst of 10 passes, then 5 a second; the other client keeps all of its requests.
    """
    traffic = {"checkout": line(16, clients={"abuser": (12, 0), "other": (4, 0)})}
    rows = [row for (row,) in run(Guards(config(PER_CLIENT), 0.0), traffic, 60)]
    assert sum(row.refused.get("rate_limited", 0) for row in rows) == 60 * 12 - (10 + 60 * 5)
    assert all(row.clients["other"].requests == 4 for row in rows)
    assert sum(row.clients["abuser"].requests for row in rows[10:]) == 50 * 5


def test_the_service_limit_is_shared_by_the_routes() -> None:
    """
    60/s on two routes against 30/s for the service: after the burst half of it passes, on both alike.
    """
    rows = run(Guards(config(SHARED), 0.0), {"a": line(40, route="a"), "b": line(20, route="b")}, 20)
    last = [sum(row.successes for row in second) for second in rows[5:]]
    assert sum(last) == 15 * 30
    assert sum(second[0].successes for second in rows[5:]) == 2 * sum(second[1].successes for second in rows[5:])


def test_refusals_of_unknown_cause_stand_where_no_client_is_named() -> None:
    """
    A tape without clients cannot be judged anew by client; what it says was refused stays refused.
    """
    ((row,),) = run(Guards(config(PER_CLIENT), 0.0), {"checkout": line(20, refused={"": 5})}, 1)
    assert (row.refused, row.successes) == ({"rate_limited": 5}, 15)


def test_a_limit_that_is_gone_refuses_nothing() -> None:
    """
    What a limit refused when it was recorded arrives at this config's limits, here at none: it passes, and as the others
    of its second.
    """
    ((row,),) = run(Guards(config(PLAIN), 0.0), {"checkout": line(20, 5, refused={"rate_limited": 10})}, 1)
    assert (row.refused, row.successes, row.failures) == ({}, 10, 10)


def test_what_nobody_knows_is_neutral() -> None:
    """
    A second of which nothing reached the API says nothing about it.
    """
    ((row,),) = run(Guards(config(PLAIN), 0.0), {"checkout": line(10, refused={"rate_limited": 10})}, 1)
    assert (row.ignored, row.successes, row.failures) == (10, 0, 0)


def test_an_isolated_client_passes_its_share_and_the_others_all() -> None:
    """
    10 % of 5 requests a second is one every other second; its failures are in the same ratio as recorded.
    """
    guards = Guards(config(PLAIN), 0.0)
    guards.direct([isolation(Scope.client("checkout", "k1"), 0.1)])
    traffic = {"checkout": line(15, 5, clients={"k1": (5, 5), "k2": (10, 0)})}
    rows = [row for (row,) in run(guards, traffic, 100)]
    trials = [row.passed_trials["isolation-1"] for row in rows]
    assert sum(good for good, _ in trials) == 0
    assert abs(sum(bad for _, bad in trials) - 50) <= 1
    assert abs(sum(row.held["isolation-1"] for row in rows) - 450) <= 2
    assert all(row.successes == 10 for row in rows)
    assert sum(row.refused.get("client_throttled", 0) for row in rows) == sum(row.held["isolation-1"] for row in rows)


def test_a_sample_always_passes() -> None:
    """
    A share of 1 % of 3 requests a second would be one in 33 s; of ten requests one passes all the same.
    """
    guards = Guards(config(PLAIN), 0.0)
    guards.direct([isolation(Scope.route("checkout"), 0.01)])
    rows = [row for (row,) in run(guards, {"checkout": line(3)}, 100)]
    assert 20 <= sum(row.successes for row in rows) <= 30


def test_an_ended_lease_holds_nothing() -> None:
    """
    The guards honour the end by themselves.
    """
    guards = Guards(config(PLAIN), 0.0)
    guards.direct([Directive("isolation-1", Scope.service(), Action.ISOLATE, 5.0, share_ratio=0.1)])
    held = [row.held.get("isolation-1", 0) for (row,) in run(guards, {"checkout": line(10)}, 8)]
    assert all(held[:4])
    assert not any(held[4:])


def test_a_breaker_trips_within_the_second() -> None:
    """
    Seven failures in a row open it; the rest of the second, and the next, is refused, and it is told once.
    """
    guards = Guards(config(BREAKER), 0.0)
    run(guards, {"checkout": line(20)}, 30)
    (row,), trips = guards.take({"checkout": line(20, 20)}, 31.0)
    assert (row.failures, row.refused, row.trips) == (7, {"breaker_open": 13}, 1)
    assert [trip.rule for trip in trips] == ["consecutive"]
    (row,), trips = guards.take({"checkout": line(20, 20)}, 32.0)
    assert (row.failures, row.refused, trips) == (0, {"breaker_open": 20}, [])


def test_a_breaker_closes_on_good_probes_and_ramps() -> None:
    """
    After its time it probes, closes, and lets traffic come back.
    """
    guards = Guards(config(BREAKER), 0.0)
    run(guards, {"checkout": line(20, 20)}, 2)
    passed = [row.successes for (row,) in run(guards, {"checkout": line(20)}, 40, start=3)]
    assert passed[0] == 0
    assert 0 < passed[6] < 20
    assert passed[-1] == 20


def test_few_failures_leave_the_breaker_alone() -> None:
    """
    5 % failures, spread evenly, are no seven in a row and no half of the window.
    """
    guards = Guards(config(BREAKER), 0.0)
    rows = [row for (row,) in run(guards, {"checkout": line(100, 5)}, 60)]
    assert all(row.failures == 5 and not row.refused for row in rows)


def test_trials_are_the_breakers_probes() -> None:
    """
    Under an isolation of the route its passing requests bypass the open breaker and close it without a second ramp.
    """
    guards = Guards(config(BREAKER), 0.0)
    run(guards, {"checkout": line(20, 20)}, 1)
    guards.direct([isolation(Scope.route("checkout"), 0.5)])
    rows = [row for (row,) in run(guards, {"checkout": line(20)}, 20, start=2)]
    assert all("breaker_open" not in row.refused for row in rows)
    assert sum(row.successes for row in rows) == 201  # the first request is a trial of its own
