"""Two configs over one history: what each refuses, raises, and when."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.controller.upkeep import rollup
from sidecar.facts import ClientSecond, RouteSecond
from sidecar.replay.compare import Raised, compare, outcome, pairs
from sidecar.replay.material import Material
from sidecar.replay.reel import Minute
from tests.support.tapes import QUICK, config, steady, texts

START = 1_700_000_040  # a whole minute
LIMITED = QUICK + "routes: [{name: checkout, match: {path: /**}, limit: {rate: 10/s, burst: 10}}]\n"
FREE = QUICK + "routes: [{name: checkout, match: {path: /**}}]\n"


def reel(rows: Iterable[Mapping[str, Any]]) -> tuple[Minute, ...]:
    """Record rows that begin at 0, minute by minute."""
    minutes: dict[int, list[str]] = {}
    for row in rows:
        at = START + int(row["t"])
        minutes.setdefault(at - at % 60, []).append(texts([row | {"t": float(at)}])[0].strip())
    return tuple(Minute(unix, zlib.compress("\n".join(lines).encode())) for unix, lines in minutes.items())


def minute(at: int, requests: int, failures: int = 0) -> dict[str, Any]:
    clients = {"k1": ClientSecond(requests // 120, 0)}
    seconds = [
        RouteSecond(
            "checkout", float(i), arrivals=requests // 60, successes=(requests - failures) // 60, failures=failures // 60,
            latency={50: requests // 60}, clients=clients,
        )
        for i in range(60)
    ]  # fmt: skip
    return rollup(seconds) | {"minute_unix": at}


def test_what_a_limit_would_have_refused() -> None:
    """
    Half of 20/s, and the other config nothing.
    """
    material = Material({}, reel(steady(300)))
    found = compare(outcome(config(FREE), material), outcome(config(LIMITED), material))
    assert found["requests"] == 6000
    assert found["refused"]["from"] == 0
    assert abs(found["refused"]["to"] - 3000) < 30
    assert found["routes"][0]["reasons"]["to"] == {"rate_limited": found["refused"]["to"]}


def test_an_incident_that_one_config_raises_earlier() -> None:
    """
    A slow burn of 4 % is found by both, by the more sensitive one sooner.
    """
    material = Material({}, reel(steady(500, bad={range(200, 500): 0.04})))
    low, high = (
        config(f"{FREE}detect: {{sensitivity: {word}, warmup: 10s}}\n".replace(QUICK, "")) for word in ("low", "high")
    )
    (row,) = compare(outcome(low, material), outcome(high, material))["incidents"]
    assert row["change"] == "earlier"
    assert row["sooner_s"] > 0


def test_incidents_are_paired_by_scope_and_time() -> None:
    """
    The same, a hidden one and an added one are told apart.
    """

    def raised(at: float, route: str = "a") -> Raised:
        from sidecar.facts import Scope

        return Raised(Scope.route(route), ("errors",), "title", "severe", at, at, None)

    rows = pairs([raised(100.0), raised(5000.0)], [raised(90.0), raised(100.0, "b")])
    assert [(row["change"], row["sooner_s"]) for row in rows] == [("earlier", 10.0), ("added", None), ("hidden", None)]


def test_stored_minutes_are_played_in_steps() -> None:
    """
    No request of a minute is lost or doubled, whole minutes come before the seconds, and what both have comes once.
    """
    minutes = {"checkout": [minute(START - 60 * i, 1200 + 60 * i, 60) for i in range(10, -1, -1)]}
    material = Material(minutes, reel(steady(120)))
    played = list(material.seconds())
    assert [second.t for second in played] == sorted(second.t for second in played)
    lines = [second.lines["checkout"] for second in played]
    assert sum(line.requests for line in lines) == sum(1200 + 60 * i for i in range(10, 0, -1)) + 2400
    assert sum(line.failures for line in lines) == 600
    assert {second.step_s for second in played} == {1.0, 10.0}
    assert material.span == (START - 600, START + 120)


def test_an_outage_in_stored_minutes_is_found() -> None:
    """
    Minutes are enough to raise what was gross.
    """
    rows = [minute(START + 60 * i, 1200, 1200 if 8 <= i < 11 else 0) for i in range(20)]
    found = outcome(config(FREE), Material({"checkout": rows}))
    assert [str(one.scope) for one in found.raised] == ["route:checkout"]
    assert 0 <= found.raised[0].opened - (START + 480) <= 30


def test_nothing_recorded_is_nothing_to_say() -> None:
    """
    Without any history there is no span and no outcome.
    """
    assert Material().span is None
    assert outcome(config(FREE), Material()).raised == ()


def test_what_only_observes_hides_its_incidents() -> None:
    """
    A detector that is set to observe would raise none: the incident is hidden by the change.
    """
    material = Material({}, reel(steady(300, bad={range(150, 200): 1.0})))
    quiet = FREE.replace("clear_after: 5s}", "clear_after: 5s, detectors: {errors: observe}}")
    (row,) = compare(outcome(config(FREE), material), outcome(config(quiet), material))["incidents"]
    assert row["change"] == "hidden"
