"""Who is it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from sidecar.detect import attribute as attributing
from sidecar.detect.attribute import Attribution, Scene
from sidecar.detect.census import Census
from sidecar.facts import ClientSecond, Detector, RouteSecond, Scope, Signal


def claim(route: str = "checkout", detector: Detector = Detector.ERRORS, baseline: float = 0.001) -> Signal:
    return Signal(
        detector,
        Scope.route(route),
        0.25,
        baseline,
        40,
        25.0,
        19.0,
        100.0,
        unit="s" if detector is Detector.LATENCY else "ratio",
    )


def attribute(window: Sequence[RouteSecond], before: Sequence[RouteSecond], signal: Signal) -> Attribution:
    return attributing.attribute(Scene(Census(window), Census(before)), signal)


def rows(
    clients: Mapping[str, tuple[int, int]],
    *,
    route: str = "checkout",
    seconds: int = 10,
    start: float = 100.0,
    slow: bool = False,
) -> list[RouteSecond]:
    """Return seconds with these (requests, bad) by client in each."""
    requests, bad = sum(n for n, _ in clients.values()), sum(k for _, k in clients.values())
    failures = 0 if slow else bad
    return [
        RouteSecond(
            route,
            start + i + 1,
            arrivals=requests,
            successes=requests - failures,
            failures=failures,
            clients={key: ClientSecond(n, 0 if slow else k, k if slow else 0) for key, (n, k) in clients.items()},
            methods={"POST": (requests, failures)},
            statuses={"200": (requests - failures, 0), "503": (failures, failures)},
        )
        for i in range(seconds)
    ]


FOUR = {"a": (3, 0), "b": (3, 0), "c": (3, 0), "d": (3, 0)}


def test_one_client_of_four_that_always_fails_is_that_client() -> None:
    """
    A quarter of the route and all of the client: the scope is the client, judged on itself.
    """
    found = attribute(rows({**FOUR, "d": (3, 3)}), rows(FOUR, start=40.0), claim())

    assert found.scope == Scope.client("checkout", "d")
    assert (found.requests, found.failures, found.ratio, found.share_ratio) == (30, 30, 1.0, 1.0)
    assert found.traffic_ratio == 0.25
    assert found.baseline_ratio < 0.01
    assert found.dimensions["status"][0].name == "503"


def test_failures_of_all_clients_are_the_route() -> None:
    """
    When every client fails the route does.
    """
    found = attribute(rows(dict.fromkeys("abcd", (3, 1))), rows(FOUR, start=40.0), claim())

    assert found.scope == Scope.route("checkout")
    assert found.share_ratio == 1.0


def test_a_client_that_merely_carries_most_traffic_is_not_blamed() -> None:
    """
    Ninety per cent of the failures of a client with ninety per cent of the traffic say nothing about it.
    """
    found = attribute(rows({"big": (90, 45), "small": (10, 5)}), [], claim())

    assert found.scope == Scope.route("checkout")


def test_an_only_client_is_not_blamed() -> None:
    """
    With nobody to compare with the answer is the route.
    """
    assert attribute(rows({"a": (10, 10)}), [], claim()).scope == Scope.route("checkout")


def test_a_client_that_always_failed_is_not_the_change() -> None:
    """
    What counts is the excess over before: the old sinner stays out of it.
    """
    before = rows({**FOUR, "d": (3, 3)}, start=40.0, seconds=60)
    found = attribute(rows({"a": (3, 2), "b": (3, 2), "c": (3, 2), "d": (3, 3)}), before, claim(baseline=0.25))

    assert found.scope == Scope.route("checkout")
    assert found.dimensions["client"][-1].name == "d"


def test_the_overflow_entry_is_no_client() -> None:
    """
    Everything beyond the table is many clients, and cannot be throttled as one.
    """
    assert attribute(rows({**FOUR, "_other": (3, 3)}), [], claim()).scope == Scope.route("checkout")


def test_failures_outside_the_table_count_against_a_client() -> None:
    """
    A client with all failures of the table but a tenth of the route's is not the cause.
    """
    window = [
        RouteSecond("checkout", 101.0 + i, successes=50, failures=50, clients={"a": ClientSecond(5, 5)})
        for i in range(5)
    ]

    assert attribute(window, [], claim()).scope == Scope.route("checkout")


def test_most_routes_failing_together_are_the_service() -> None:
    """
    Four of five routes failing at once is one cause, not four.
    """
    window = [row for name in "wxyz" for row in rows({"a": (3, 3), "b": (3, 2)}, route=name)]
    window += rows(FOUR, route="fine")
    found = attribute(window, [], claim("w"))

    assert found.scope == Scope.service()
    assert found.traffic_ratio == 1.0


def test_one_of_two_failing_routes_is_that_route() -> None:
    """
    Half of the routes are no service.
    """
    window = rows({"a": (3, 3), "b": (3, 2)}, route="bad") + rows(FOUR, route="fine")

    assert attribute(window, [], claim("bad")).scope == Scope.route("bad")


def test_a_pooled_claim_is_narrowed_to_its_route() -> None:
    """
    A claim about the pool of quiet routes that one route explains is that route's.
    """
    window = rows({"a": (2, 2)}, route="bad") + rows(FOUR, route="fine")
    pooled = Signal(Detector.ERRORS, Scope.service(), 0.3, 0.001, 40, 25.0, 19.0, 100.0)

    assert attribute(window, [], pooled).scope == Scope.route("bad")


@pytest.mark.parametrize(("slow", "scope"), [({**FOUR, "d": (3, 3)}, "client:checkout:d"), (FOUR, "route:checkout")])
def test_slowness_of_one_client_is_that_client(slow: Mapping[str, tuple[int, int]], scope: str) -> None:
    """
    Latency is attributed by the clients' slow requests; without any it stays with the route.
    """
    assert str(attribute(rows(slow, slow=True), [], claim(detector=Detector.LATENCY)).scope) == scope


def test_nothing_at_all_is_the_claim_itself() -> None:
    """
    Without a single row the answer is what was claimed.
    """
    found = attribute([], [], claim())

    assert (found.scope, found.requests, found.ratio, found.share_ratio) == (Scope.route("checkout"), 0, 0.0, 0.0)


def by_endpoint(route: str, counts: Mapping[str, tuple[int, int]]) -> list[RouteSecond]:
    """Return ten seconds of a route with these (requests, failures) by endpoint in each."""
    requests, failures = sum(n for n, _ in counts.values()), sum(k for _, k in counts.values())
    return [
        RouteSecond(route, 101.0 + i, successes=requests - failures, failures=failures, endpoints=counts)
        for i in range(10)
    ]


def test_one_endpoint_that_fails_on_every_route_is_that_endpoint() -> None:
    """
    Half of both routes and all of one endpoint, judged on itself.
    """
    window = [*by_endpoint("one", {"a:1": (3, 3), "b:1": (3, 0)}), *by_endpoint("two", {"a:1": (4, 4), "b:1": (4, 0)})]
    found = attribute(window, [], claim("one"))

    assert str(found.scope) == "endpoint:a:1"
    assert (found.requests, found.failures, found.ratio, found.traffic_ratio) == (70, 70, 1.0, 0.5)


def test_an_endpoint_that_fails_on_one_route_alone_is_that_route_and_the_endpoint_is_told() -> None:
    """
    What an endpoint does well for other routes speaks for it: the narrowest scope is the route.
    """
    window = [*by_endpoint("one", {"a:1": (3, 3), "b:1": (3, 0)}), *by_endpoint("two", {"a:1": (4, 0), "b:1": (4, 0)})]
    found = attribute(window, [], claim("one"))

    assert found.scope == Scope.route("one")
    assert found.narrowest is not None
    assert (found.narrowest.dimension, found.narrowest.share.name) == ("endpoint", "a:1")


def test_an_only_endpoint_is_no_answer() -> None:
    """
    With one endpoint the service is what fails.
    """
    window = [*by_endpoint("one", {"a:1": (6, 6)}), *by_endpoint("two", {"a:1": (8, 8)})]

    assert attribute(window, [], claim("one")).scope == Scope.service()


def test_the_client_that_asks_most_for_a_broken_path_is_not_blamed() -> None:
    """
    It has nine tenths of the failures, and fails at one path only; the path has all of them, and fails for everyone.
    """
    window = [
        RouteSecond(
            "checkout", 101.0 + i, successes=30, failures=10,
            clients={"big": ClientSecond(18, 9), "small": ClientSecond(22, 1)},
            paths={"/broken": (10, 10), "/fine": (30, 0)},
        )
        for i in range(10)
    ]  # fmt: skip
    found = attribute(window, [], claim())

    assert found.scope == Scope.route("checkout")
    assert found.narrowest is not None
    assert (found.narrowest.dimension, found.narrowest.share.name) == ("path", "/broken")


def test_a_client_that_asks_for_one_path_only_is_blamed_when_others_get_it() -> None:
    """
    The path fails as often as the client asks for it and works for everyone else.
    """
    window = [
        RouteSecond(
            "checkout", 101.0 + i, successes=30, failures=10,
            clients={"bad": ClientSecond(10, 10), "good": ClientSecond(30, 0)},
            paths={"/asked": (20, 10), "/fine": (20, 0)},
        )
        for i in range(10)
    ]  # fmt: skip

    assert attribute(window, [], claim()).scope == Scope.client("checkout", "bad")


def test_dimensions_are_a_mapping_of_six() -> None:
    """
    Each is added up when asked for; what is none raises as a dictionary does.
    """
    found = attribute(rows({**FOUR, "d": (3, 3)}), [], claim()).dimensions

    assert (len(found), list(found)) == (6, ["client", "method", "status", "endpoint", "path", "route"])
    assert found["route"][0].name == "checkout"
    assert found.get("nothing", ()) == ()
    assert found["endpoint"] == ()
