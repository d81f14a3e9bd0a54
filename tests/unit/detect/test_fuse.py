"""From claims to findings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.detect.fuse import CONNECTION_FAILURES, IN_FLIGHT, Finding, fuse
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.series import Series
from sidecar.facts import ClientSecond, Detector, RouteSecond, Scope, Signal
from sidecar.measure.histogram import of_values

POLICY = DetectPolicy()
ERRORS = Signal(Detector.ERRORS, Scope.route("checkout"), 0.25, 0.001, 120, 25.0, 19.0, 160.0)
LATENCY = replace(ERRORS, detector=Detector.LATENCY, value=0.5, baseline=0.05, unit="s", material=True)
TRIP = replace(ERRORS, detector=Detector.TRIP, value=1.0, score=1.0, threshold=1.0, material=True, severe=True)


def series(*, bad: int, client_bad: int = 0, status: str = "503", routes: tuple[str, ...] = ("checkout",)) -> Series:
    """Return a good minute and then ten seconds of 12 requests, of which some fail."""
    kept = Series()
    for i in range(70):
        k = (bad + client_bad) if i >= 60 else 0
        at = 101.0 + i
        for route in routes:
            row = RouteSecond(
                route, at, arrivals=12, successes=12 - k, failures=k, statuses={status: (k, k)} if k else {},
                clients={"a": ClientSecond(9, bad * 2 // 3 if k else 0), "d": ClientSecond(3, client_bad + bad // 3 if k else 0)},
                latency={60: 12},
            )  # fmt: skip
            kept.add([row], at)
    return kept


def only(*signals: Signal, kept: Series) -> Finding:
    (finding,) = fuse(signals, kept, POLICY, 170.0)
    return finding


def test_one_client_is_severe_on_itself() -> None:
    """
    A quarter of the route fails, all of it one client: severe and material for the client, fit to act upon alone.
    """
    finding = only(ERRORS, kept=series(bad=0, client_bad=3))

    assert finding.scope == Scope.client("checkout", "d")
    assert (finding.severe, finding.material, finding.actionable) == (True, True, True)
    assert (finding.signals[0].value, finding.signals[0].sample) == (1.0, 30)


def test_a_material_claim_alone_is_not_enough() -> None:
    """
    A quarter of all requests failing is material and waits for a second witness.
    """
    finding = only(ERRORS, kept=series(bad=3))

    assert (finding.material, finding.severe, finding.agreeing, finding.actionable) == (True, False, ("errors",), False)


def test_errors_and_latency_agree() -> None:
    """
    Two different detectors on the same scope make it fit to act upon.
    """
    finding = only(ERRORS, LATENCY, kept=series(bad=3))

    assert (finding.agreeing, finding.actionable) == (("errors", "latency"), True)


@pytest.mark.parametrize(("status", "agreeing"), [("refused", 2), ("reset", 2), ("timeout", 2), ("503", 1)])
def test_connection_failures_are_a_second_witness(status: str, agreeing: int) -> None:
    """
    Failures that are refusals, resets or timeouts of the connection count as a signal of their own.
    """
    finding = only(ERRORS, kept=series(bad=3, status=status))

    assert len(finding.agreeing) == agreeing
    assert (CONNECTION_FAILURES in finding.agreeing) is (agreeing == 2)


def test_below_h_plus_three_nothing_is_material() -> None:
    """
    Raising and acting are two levels.
    """
    assert not only(replace(ERRORS, score=21.9), kept=series(bad=3)).material


def test_a_small_effect_is_not_material() -> None:
    """
    Where 4 % are normal a quarter of the requests failing is below ten times that.
    """
    assert not only(replace(ERRORS, baseline=0.04), kept=series(bad=3)).material


def test_a_small_sample_is_never_acted_upon() -> None:
    """
    Fewer than `min_requests` of the scope: neither severe nor material, whatever the ratio.
    """
    (finding,) = fuse([ERRORS], series(bad=12), DetectPolicy(min_requests=1000), 170.0)

    assert (finding.severe, finding.material) == (False, False)


def test_a_trip_is_enough() -> None:
    """
    A breaker trip is severe and material by itself.
    """
    assert only(TRIP, kept=Series()).actionable


@pytest.mark.parametrize("detector", [Detector.SURGE, Detector.SILENCE, Detector.REFUSALS])
def test_advisory_claims_never_act(detector: Detector) -> None:
    """
    Surge, silence and refusals raise only, even if they came with flags, and are no second witness.
    """
    advice = replace(ERRORS, detector=detector, severe=True, material=True)
    alone, beside = only(advice, kept=series(bad=0)), only(ERRORS, advice, kept=series(bad=3))

    assert (alone.severe, alone.material, alone.agreeing) == (False, False, ())
    assert beside.agreeing == ("errors",)


def test_all_routes_failing_are_one_finding() -> None:
    """
    Claims of two routes that both fail join at the service.
    """
    routes = ("checkout", "search")
    claims = [replace(ERRORS, scope=Scope.route(route)) for route in routes]
    finding = only(*claims, kept=series(bad=9, routes=routes))

    assert (finding.scope, len(finding.signals), finding.severe) == (Scope.service(), 2, True)


def test_all_routes_slow_are_one_finding() -> None:
    """
    Latency claimed by every route with traffic is the service's.
    """
    routes = ("checkout", "search")
    claims = [replace(LATENCY, scope=Scope.route(route)) for route in routes]

    assert only(*claims, kept=series(bad=0, routes=routes)).scope == Scope.service()


def test_findings_come_narrow_first_in_a_fixed_order() -> None:
    """
    Client before route, whatever the order of the claims.
    """
    kept = series(bad=0, client_bad=3)
    for second in range(60, 70):
        kept.add([RouteSecond("other", 101.0 + second, successes=5, failures=5)], 101.0 + second)
    claims = [replace(ERRORS, scope=Scope.route("other")), ERRORS]

    scopes = [str(finding.scope) for finding in fuse(claims, kept, POLICY, 170.0)]
    assert scopes == ["client:checkout:d", "route:other"]
    assert scopes == [str(finding.scope) for finding in fuse(claims[::-1], kept, POLICY, 170.0)]


def test_a_series_forgets_and_cuts_by_time() -> None:
    """
    Rows older than the ring are gone; `between` excludes its begin and includes its end.
    """
    kept = Series(keep_s=10.0)
    for at in range(1, 31):
        kept.add([RouteSecond("checkout", float(at)), RouteSecond("search", float(at))], float(at))

    assert [row.at for row in kept.between(0.0, 100.0, "search")] == [float(at) for at in range(21, 31)]
    assert [row.at for row in kept.between(22.0, 23.0)] == [23.0, 23.0]


def hanging(seconds: int, *, routes: tuple[str, ...], all_hang: bool = True) -> Series:
    """Return a good minute and then some seconds in which the routes, or all but the last one, answer nothing."""
    kept = series(bad=0, routes=routes)
    for second in range(1, seconds + 1):
        waiting = of_values([age + 0.5 for age in range(second) for _ in range(12)])
        for route in routes:
            hangs = all_hang or route != routes[-1]
            ended = {} if hangs else {"successes": 12, "latency": {80: 12}}
            row = RouteSecond(route, 170.0 + second, arrivals=12, waiting=waiting if hangs else {}, **ended)  # type: ignore[arg-type]
            kept.add([row], 170.0 + second)
    return kept


def test_a_hang_is_a_second_witness_of_latency() -> None:
    """
    Slow alone waits for another; slow because most requests do not come out may be acted upon, a pause of 4 s may not.
    """
    hang = replace(LATENCY, since_at=170.0)
    for seconds, agreeing in ((4, ("latency",)), (8, ("latency", IN_FLIGHT))):
        (finding,) = fuse([hang], hanging(seconds, routes=("checkout",)), POLICY, 170.0 + seconds)
        assert (finding.agreeing, finding.actionable) == (agreeing, len(agreeing) == 2)
        assert (finding.attribution.requests, finding.sample) == (0, 36 if seconds == 8 else 0)
    (slow,) = fuse([replace(hang, since_at=160.0)], series(bad=0), POLICY, 170.0)
    assert (slow.agreeing, slow.actionable) == (("latency",), False)


@pytest.mark.parametrize(("all_hang", "agreeing"), [(True, ("latency", IN_FLIGHT)), (False, ("latency",))])
def test_a_service_hangs_when_most_of_its_routes_do(all_hang: bool, agreeing: tuple[str, ...]) -> None:
    """
    Latency of most routes is the service's: it hangs when they do, and not when one of three is merely slow.
    """
    routes = ("checkout", "search", "cart")
    claims = [replace(LATENCY, scope=Scope.route(route), since_at=170.0) for route in routes]
    (finding,) = fuse(claims, hanging(8, routes=routes, all_hang=all_hang), POLICY, 178.0)
    assert (finding.scope, finding.agreeing) == (Scope.service(), agreeing)
