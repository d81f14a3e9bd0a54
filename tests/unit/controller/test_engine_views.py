"""What people and the store see of a steady engine: status, controls, routes, rollups, baselines, bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.controller import effects as fx
from sidecar.controller.book import MAX_ENDED
from sidecar.controller.commands import SetOverride
from sidecar.controller.history import DECISIONS, KEEP_S, SAMPLES, History
from sidecar.decide.policies import Response, RollbackMode
from sidecar.facts import Action, Mode, Moment, RouteSecond, Scope
from sidecar.guard.policies import (
    BreakerPolicy,
    BucketPolicy,
    ConcurrencyPolicy,
    GuardPolicy,
    LimitMode,
    LimitPolicy,
    RoutePolicy,
)
from sidecar.link.frames import Decided, Hello, RouteTick, Sample, Tick
from tests.support.plays import broken, shop, warm
from tests.support.world import QUICK, Flow, World, compiled

ROUTES = ("checkout", "search")


def status(world: World) -> dict[str, Any]:
    """Return the status as it is now."""
    return world.engine.status(world.now)


def controls(config: Any) -> dict[tuple[str, str], str]:
    """Return (name, scope) → state of every control."""
    world = World(*shop(), config=config)
    return {(row["name"], row["scope"]): row["state"] for row in world.engine.controls(world.now)}


def test_a_well_status_says_so_in_one_line() -> None:
    """
    Health, one sentence with figures, nothing to type.
    """
    now = status(warm())

    assert (now["health"], now["commands"], now["routes"]) == ("ok", [], 2)
    assert now["summary"] == "all well: 40 requests/s, 0 % fail"


def test_without_traffic_the_status_says_that() -> None:
    """
    Silence is not health.
    """
    assert status(World())["summary"] == "no traffic"


def test_an_incident_is_the_first_line_with_what_was_done_and_what_to_type() -> None:
    """
    Ten seconds at 3 a.m.: what happened, what was done, what to type.
    """
    now = status(broken())

    assert now["health"] == "incident"
    assert now["summary"].startswith("incident 1: POST checkout: 100 % of requests fail")
    assert "Route:checkout throttled, 10 % passes (provisional)." in now["summary"]
    assert now["commands"][0] == "sidecar incident confirm 1"


def test_overrides_and_open_breakers_degrade() -> None:
    """
    They are named, so that nobody forgets them.
    """
    world = warm()
    world.engine.observe(0, Tick(0, "e1", 900, world.now.at, {"search": RouteTick(breaker="open")}), world.now)
    assert status(world)["summary"] == "the breaker is open on search"
    world.engine.lost(0, world.now)
    assert status(world)["health"] == "ok"

    world.command(SetOverride(Scope.route("checkout"), Action.ISOLATE, 60.0, "why", "ops"))

    assert (status(world)["health"], status(world)["summary"]) == (
        "degraded",
        "1 override in force: route:checkout isolate by ops",
    )


def test_the_inventory_names_every_control_and_what_it_lacks() -> None:
    """
    Off, observe, enforce, or cannot run and why.
    """
    guard = GuardPolicy(
        routes={
            "checkout": RoutePolicy(
                "checkout",
                LimitPolicy(BucketPolicy(10.0, 20.0), BucketPolicy(1.0, 2.0), mode=LimitMode.SHAPE),
                ConcurrencyPolicy(8),
                BreakerPolicy(),
            ),
            "search": RoutePolicy("search", breaker=BreakerPolicy(mode=Mode.OBSERVE)),
        },
        limit=LimitPolicy(BucketPolicy(100.0, 200.0), mode=LimitMode.OBSERVE),
        concurrency=ConcurrencyPolicy(512),
    )
    config = replace(compiled(ROUTES), guard=guard)
    states = controls(config)

    assert states["limit.service", "service"] == "observe"
    assert states["concurrency.service", "service"] == "enforce"
    assert states["rearrivals", "service"] == "enforce"
    assert states["limit.per_client", "route:checkout"] == "enforce"
    assert states["limit.route", "route:search"] == "off"
    assert states["breaker", "route:search"] == "observe"
    assert states["detect.latency", "route:checkout"] == "cannot run"
    assert states["respond.isolation", "service"] == "enforce"
    assert states["respond.rollback", "service"] == "observe"
    lowered = controls(replace(config, mode=Mode.OBSERVE))
    assert lowered["breaker", "route:checkout"] == lowered["respond.isolation", "service"] == "observe"
    never = replace(config, respond=replace(QUICK, action=Response.OBSERVE, rollback=RollbackMode.NEVER))
    assert controls(never)["respond.isolation", "service"] == "observe"
    assert controls(never)["respond.rollback", "service"] == "off"


def test_what_nobody_measured_is_no_number() -> None:
    """
    Without an answer there is no ratio and no quantile: a latency of 0 would be a claim.
    """
    world = World(Flow("checkout", "c1", 0.0)).run(15)

    shown = world.engine.status(world.now)["traffic"]

    names = ("failure_ratio", "refused_ratio", "latency_p50_s", "latency_p99_s")
    assert [shown[name] for name in names] == [None] * 4


def test_a_route_shows_its_traffic_its_guards_and_what_holds_it() -> None:
    """
    Figures of the last ten seconds, breaker, detectors, isolations.
    """
    world = broken().run(15)

    checkout, search = world.engine.routes(world.now)

    assert (checkout["requests_per_s"], checkout["failure_ratio"]) == (20.0, 1.0)
    assert (checkout["isolations"], search["isolations"]) == (["isolation-1"], [])
    assert checkout["detectors"]["errors"] == "alarm"
    assert search["failure_ratio"] == 0.0
    assert search["latency_p95_s"] == pytest.approx(0.02, rel=0.1)


def test_every_minute_leaves_a_rollup_and_the_detectors_memory() -> None:
    """
    One aggregate a route and minute, which adds up to what was counted.
    """
    world = World(*shop()).run(180)

    rollups = [effect for effect in world.of(fx.PutRollup) if effect.route == "checkout"]

    assert [0.0] * len(rollups) == [effect.minute_unix % 60 for effect in rollups]
    assert {effect.document["arrivals"] for effect in rollups[1:]} == {1200}
    assert {effect.route for effect in world.of(fx.PutBaseline)} >= {"checkout", "search"}


def test_leaving_saves_what_the_next_controller_needs() -> None:
    """
    The detectors' memory is stored once more at the end.
    """
    world = World(*shop()).run(30)

    kinds = {type(effect) for effect in world.engine.leaving(world.now)}

    assert fx.PutBaseline in kinds


def test_metric_views_count() -> None:
    """
    Incidents by state, isolations by kind and state, signals by route and detector.
    """
    world = broken()

    views = world.engine.metric_views(world.now)

    assert views.incidents_current["open"] == 1
    assert views.isolations["route", "provisional"] == 1
    assert views.signals["checkout", "errors"] == 1
    assert (views.config_version, views.overrides_active) == (1, 0)
    assert world.engine.totals().routes["checkout"].arrivals == world._routes["checkout"].arrivals


def test_a_frame_that_is_not_the_engines_changes_nothing() -> None:
    """
    A hello is the link's business.
    """
    assert World().engine.observe(0, Hello(0, "e", 1, 1), Moment(1.0, 1.0)) == []


# --- bounds ------------------------------------------------------------------------------------------------------------


def test_memory_is_bounded() -> None:
    """
    Seconds, samples and decisions have an end; the oldest leave first.
    """
    history = History(["checkout"])
    for i in range(KEEP_S + 50):
        history.extend([RouteSecond("checkout", float(i))], float(i))
    for i in range(SAMPLES + 5):
        history.note_sample(Sample("checkout", float(i), "c", "GET", "/", 200, "", 0.1, []))
    for i in range(DECISIONS + 5):
        history.note_decision(Decided(f"d-{i}", "checkout", 0.0, "c", "GET", "/", "r", "r", "", 1), Moment(0.0, 0.0))

    assert len(history.window(["checkout"], -1.0)) == KEEP_S
    assert len(history.samples(["checkout"])) == SAMPLES
    assert history.decision("d-4") is None
    assert history.decision("d-5") is not None


def test_ended_incidents_leave_memory_the_oldest_first() -> None:
    """
    The store has them all; running ones stay.
    """
    world = broken()
    book = world.engine._book
    one = book.incidents[1]
    for number in range(2, MAX_ENDED + 12):
        book.incidents[number] = replace(one, id=number, state=type(one.state).RESOLVED, isolations=())

    book.forget()

    assert 1 in book.incidents
    assert 2 not in book.incidents
    assert len(book.incidents) == MAX_ENDED + 1
