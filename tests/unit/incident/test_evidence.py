"""What is frozen at detection, and what never is."""

from __future__ import annotations

import json

from sidecar.facts import ClientSecond, Moment, RouteSecond, Scope
from sidecar.incident import evidence, tally
from sidecar.link.frames import Sample

NOW = Moment(1000.0, 1_800_000_000.0)


def rows(route: str = "checkout", seconds: int = 3) -> list[RouteSecond]:
    """Some seconds with one failing client."""
    return [
        RouteSecond(
            route, 998.0 + i, arrivals=10, successes=8, failures=2, latency={30: 8, 60: 2}, waiting={50: 1},
            clients={"c1": ClientSecond(2, 2), "c2": ClientSecond(8)}, statuses={"200": (8, 0), "503": (2, 2)},
            methods={"POST": (10, 2)}, paths={"/api/{id}": (10, 2)}, endpoints={"h:1": (10, 2)}, refused={"isolated": 1},
        )
        for i in range(seconds)
    ]  # fmt: skip


SAMPLE = Sample("checkout", 999.0, "h-0123456789abcdef", "POST", "/api/{id}", 503, "", 0.02, ["host", "authorization"])


def test_everything_that_a_reader_asks_for_is_in_it() -> None:
    """
    Series, who, where, which statuses, latency, breaker, config version, samples; worst first.
    """
    frozen = evidence.freeze(Scope.route("checkout"), rows(), [SAMPLE], {"checkout": "open"}, 7, NOW)

    (route,) = frozen["routes"]
    assert (frozen["config_version"], route["breaker"], len(route["series"])) == (7, "open", 3)
    assert route["clients"][0] == {"name": "c1", "requests": 6, "failures": 6}
    assert route["statuses"][0] == {"name": "503", "requests": 6, "failures": 6}
    assert route["latency"] == [[30, 24], [60, 6]]
    assert route["waiting"] == [[50, 1]]  # a gauge: of the last second only
    assert route["series"][0]["time"] == "2027-01-15T07:59:58.000Z"
    json.dumps(frozen)


def test_a_sample_holds_names_of_fields_never_values() -> None:
    """
    The frozen sample has exactly the redacted keys.
    """
    frozen = evidence.freeze(Scope.route("checkout"), rows(), [SAMPLE], {}, 7, NOW)

    assert set(frozen["samples"][0]) == {
        "time", "route", "client", "method", "path", "status", "reason", "latency_s", "fields", "trace",
    }  # fmt: skip
    assert frozen["samples"][0]["fields"] == ["host", "authorization"]


def test_every_list_has_an_end() -> None:
    """
    Many routes, samples and clients are cut; the busiest routes stay.
    """
    wide = [RouteSecond(f"r{i}", 1000.0, arrivals=i) for i in range(50)]
    many = {f"c{i}": ClientSecond(1) for i in range(100)}
    crowd = [RouteSecond("r49", 999.0, clients=many)]

    frozen = evidence.freeze(Scope.service(), [*crowd, *wide], [SAMPLE] * 90, {}, 7, NOW)

    assert len(frozen["routes"]) == evidence.MAX_ROUTES
    assert "r49" in {route["route"] for route in frozen["routes"]}
    assert len(frozen["samples"]) == evidence.MAX_SAMPLES
    assert max(len(route["clients"]) for route in frozen["routes"]) == evidence.TOP


def test_silent_seconds_are_in_the_series() -> None:
    """
    Zero is a datum: only its other zeros are left out.
    """
    (point,) = evidence.freeze(Scope.route("x"), [RouteSecond("x", 1000.0)], [], {}, 1, NOW)["routes"][0]["series"]

    assert point == {"time": "2027-01-15T08:00:00.000Z", "arrivals": 0}


def test_requests_are_those_of_the_scope() -> None:
    """
    A client's own requests, or the route's judged ones.
    """
    assert tally.requests_of(rows(), Scope.client("checkout", "c1")) == (6, 6, 0)
    assert tally.requests_of(rows(), Scope.client("checkout", "nobody")) == (0, 0, 0)
    assert tally.requests_of(rows(), Scope.route("checkout")) == (30, 6, 0)


def test_ranks_are_stable() -> None:
    """
    Most failures, then most requests, then the name: the same counts in any order give the same rank.
    """
    assert tally.ranked({"b": (5, 1), "a": (5, 1), "c": (9, 0), "d": (1, 1)}, 3) == [
        ("a", 5, 1),
        ("b", 5, 1),
        ("d", 1, 1),
    ]
