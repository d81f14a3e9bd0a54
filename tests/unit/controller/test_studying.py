"""What an incident teaches, worked out on recorded history."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from sidecar.controller.studying import Lesson, Study, study
from sidecar.facts import Detector
from sidecar.incident.words import rfc3339
from sidecar.replay.compare import outcome
from sidecar.replay.material import Material
from sidecar.replay.player import Player
from sidecar.replay.reel import Minute
from tests.support.tapes import config, steady, texts

START = 1_700_000_040
BARE = "detect: {warmup: 10s, clear_after: 5s}\nroutes:\n  - name: checkout\n    match: {path: /**}\n"


def reel(rows: Iterable[Mapping[str, Any]]) -> tuple[Minute, ...]:
    minutes: dict[int, list[str]] = {}
    for row in rows:
        at = START + int(row["t"])
        minutes.setdefault(at - at % 60, []).append(texts([row | {"t": float(at)}])[0].strip())
    return tuple(Minute(unix, zlib.compress("\n".join(lines).encode())) for unix, lines in minutes.items())


def studied(
    rows: Iterable[Mapping[str, Any]], text: str = BARE, verdict: str = "confirmed", **more: Any
) -> list[dict[str, Any]]:
    """Study the first incident that *text* raises on *rows*, judged as *verdict*."""
    material = Material({}, reel(rows))
    player = Player(config(text))
    for second in material.seconds():
        player.second(second)
    past = [row | {"verdict": verdict} for row in player.incidents()]
    incident = past[0] | {"resolved_time": past[0]["resolved_time"] or rfc3339(START + 600)} | more
    return list(study(Study(material, incident, past, text, {}, {"--upstream": "http://127.0.0.1:9"})).proposals)


def test_a_slow_burn_asks_for_more_sensitivity() -> None:
    """
    It was real and would have been found seconds earlier, at no further alarm: a setting of that route alone.
    """
    rows = steady(500, bad={range(200, 400): 0.04})
    (made,) = [row for row in studied(rows) if row["kind"] == "threshold"]
    assert made["changes"] == [{"path": "routes.checkout.detect.sensitivity", "old": None, "new": "high"}]
    assert made["effect"]["sooner_s"] >= 1
    assert made["effect"]["added"] == 0


def test_a_false_alarm_asks_for_less() -> None:
    """
    A weak alarm that a person called false would be hidden by the lower sensitivity.
    """
    rows = list(steady(500, per_s=17))
    for t, failures in ((200, 2), (201, 2), (202, 2)):
        rows[t] |= {"failures": failures}
    made = [row for row in studied(rows, verdict="false_positive") if row["kind"] == "threshold"]
    assert made[0]["changes"][0]["new"] == "low"
    assert made[0]["effect"]["hidden"] >= 1


def test_a_confirmed_incident_is_never_hidden() -> None:
    """
    The same change is not proposed when it would have hidden an incident that was real.
    """
    rows = list(steady(500, per_s=17))
    for t, failures in ((200, 2), (201, 2), (202, 2)):
        rows[t] |= {"failures": failures}
    material = Material({}, reel(rows))
    before = outcome(config(BARE), material).raised
    assert before
    player = Player(config(BARE))
    for second in material.seconds():
        player.second(second)
    incident = player.incidents()[0] | {"verdict": "false_positive", "resolved_time": rfc3339(START + 600)}
    confirmed = incident | {"verdict": "confirmed"}
    made = study(Study(material, incident, [confirmed], BARE, {}, {"--upstream": "http://127.0.0.1:9"}))
    assert [row for row in made.proposals if row["kind"] == "threshold"] == []
    (step,) = made.steps
    assert (step.route, step.detector, step.hidden, step.hides_confirmed) == ("checkout", Detector.ERRORS, 1, 1)


def test_one_client_that_asks_too_much_asks_for_a_limit() -> None:
    """
    It came with ten times the others' requests, and they failed: a limit that the others never meet.
    """
    rows = list(steady(400, per_s=16, clients=4))
    for row in rows[200:300]:
        row |= {"requests": 56, "failures": 40, "latency": [[0.012, 56]]}
        row["clients"] = {"k0": [44, 40], "k1": [4, 0], "k2": [4, 0], "k3": [4, 0]}
    (made,) = [row for row in studied(rows) if row["kind"] == "limit"]
    assert made["settings"] == [[["routes", "checkout", "limit"], "{per_client: {rate: 6/s, burst: 12}}"]]
    assert made["effect"]["refused"] > 50  # an isolation took the rest
    assert made["effect"]["innocent_ratio"] == 0.0


def test_an_outage_without_a_breaker_asks_for_one() -> None:
    """
    The breaker would have acted sooner, and refuses nothing of those who had no part in it.
    """
    made = studied(steady(400, bad={range(200, 260): 1.0}))
    assert "breaker" in [row["kind"] for row in made]


def test_a_hang_asks_for_a_shorter_timeout() -> None:
    """
    Answers take 20 ms and the timeout is 30 s: nobody would have missed an answer after one second.
    """
    rows = list(steady(400, in_flight=1))
    for i, row in enumerate(rows[200:230]):
        row |= {"in_flight": 20 * (i + 1), "latency": []}
    (made,) = [row for row in studied(rows) if row["kind"] == "timeout"]
    assert made["settings"] == [[["routes", "checkout", "response_timeout"], "1s"]]


def test_a_limit_that_was_too_low_becomes_a_rule() -> None:
    """
    The suspected value is not set below what normal traffic needs again.
    """
    diff = [{"path": "routes.checkout.limit.rate", "old": "100/s", "new": "1/s"}]
    signals = [{"detector": "refusals", "scope": "route:checkout"}]
    rows = steady(400, bad={range(200, 260): 1.0})
    made = studied(rows, suspect={"version": 2, "diff": diff}, signals=signals)
    assert [row["rule"] for row in made if row["kind"] == "validation"] == [
        {"path": "routes.checkout.limit.rate", "at_least": 20.0, "unit": "/s"}
    ]


def test_a_rule_is_measured_with_the_traffic_of_its_setting() -> None:
    """
    The service's limit counts the tokens of every route; the limit of a route beside the incident teaches nothing.
    """
    text = BARE.replace("/**", "/c/**") + "  - name: search\n    match: {path: /search}\n    limit: {cost: 10}\n"
    rows = [*steady(400, per_s=20), *steady(400, per_s=5, route="search", bad={range(200, 260): 1.0})]
    rows.sort(key=lambda row: row["t"])
    diff = [
        {"path": "service.limit.rate", "old": "1000/s", "new": "10/s"},
        {"path": "routes.checkout.limit.rate", "old": "100/s", "new": "1/s"},
        {"path": "routes.search.limit.rate", "old": "100/s", "new": "1/s"},
    ]
    signals = [{"detector": "refusals", "scope": "route:search"}]
    made = studied(rows, text, suspect={"version": 2, "diff": diff}, signals=signals)
    rules = {row["rule"]["path"]: row["rule"]["at_least"] for row in made if row["kind"] == "validation"}
    assert rules == {"service.limit.rate": 70.0, "routes.search.limit.rate": 50.0}


def test_a_hang_of_the_whole_service_asks_for_a_shorter_timeout_of_the_upstream() -> None:
    """
    Where no one route is to blame, the setting is the one of all.
    """
    routes = ("checkout", "search")
    text = BARE.replace("/**", "/c/**") + "  - name: search\n    match: {path: /search}\n"
    rows = [row | {"in_flight": 1} for route in routes for row in steady(400, route=route)]
    for row in rows:
        if 200 <= row["t"] < 230:
            row |= {"in_flight": 20 * int(row["t"] - 199), "latency": []}
    rows.sort(key=lambda row: row["t"])
    (made,) = [row for row in studied(rows, text, scope="service") if row["kind"] == "timeout"]
    assert made["settings"] == [[["upstream", "response_timeout"], "1s"]]


def test_answers_that_the_hang_held_up_do_not_speak_for_waiting_so_long() -> None:
    """
    All that hung are answered at its end, after half a minute: they are the incident, not what is normal.
    """
    rows = list(steady(400, in_flight=1))
    for i, row in enumerate(rows[200:230]):
        row |= {"in_flight": 20 * (i + 1), "latency": []}
    rows[230] |= {"latency": [[0.012, 20], [15.0, 600]]}
    (made,) = [row for row in studied(rows) if row["kind"] == "timeout"]
    assert made["effect"]["slower"] == 0


def test_slow_answers_that_end_in_time_ask_for_no_timeout() -> None:
    """
    Nobody waited longer than the shorter timeout would allow, so it would have prevented nothing.
    """
    rows = list(steady(400, in_flight=1))
    for row in rows[200:260]:
        row |= {"latency": [[0.5, 20]], "in_flight": 10}
    assert [row["kind"] for row in studied(rows)].count("timeout") == 0


@pytest.mark.parametrize(
    ("limit", "lower"),
    [
        ("{rate: 500/s}", True),
        ("{rate: 30/s}", False),
        ("{per_client: {rate: 50/s}}", True),
    ],
)
def test_a_limit_that_let_a_surge_pass_is_proposed_lower(limit: str, lower: bool) -> None:
    """
    Twice what is normal, unless the limit was as low already; a level that is missing is added beside the other.
    """
    rows = list(steady(900, per_s=20))
    for row in rows[500:700]:
        row |= {"requests": 60, "latency": [[0.012, 60]]}
    made = [row for row in studied(rows, f"{BARE}    limit: {limit}\n") if row["kind"] == "limit"]
    settings = {tuple(path): value for path, value in made[0]["settings"]} if made else {}
    wants = {("routes", "checkout", "limit", "rate"): "40/s", ("routes", "checkout", "limit", "burst"): "80"}
    assert settings == (wants if lower else {})


@pytest.mark.parametrize("text", ["nonsense: 1\n", BARE + "  - {name: gone}\n"])
def test_without_history_or_config_nothing_is_proposed(text: str) -> None:
    """
    An empty history and a text that no longer loads teach nothing.
    """
    assert study(Study(Material(), {}, [], text, {}, {})) == Lesson()
