"""Causes: configs as suspects, trips, several routes and clients at once, latency and traffic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.controller import effects as fx
from sidecar.controller.commands import Confirm, SetOverride
from sidecar.decide.policies import RollbackMode
from sidecar.detect.policies import DetectPolicy, Objective
from sidecar.facts import Action, Mode, Scope
from sidecar.link.frames import Decided
from tests.support import cost
from tests.support.plays import break_route, broken, shop, warm
from tests.support.world import QUICK, Flow, World, compiled

ROUTES = ("checkout", "search")
CHANGES = [{"path": "routes.checkout.limit.rate", "old": "100/s", "new": "1/s"}]


def misconfigured(
    mode: RollbackMode = RollbackMode.PROPOSE, *, source: str = "api", touched: str = "route:checkout"
) -> World:
    """A world in which version 2 has just set a limit far too low, so that most requests of checkout are refused."""
    world = warm(config=compiled(ROUTES, respond=replace(QUICK, rollback=mode)))
    world.apply(2, touched=[touched], source=source, changes=CHANGES)
    world.refuse = lambda flow: 0.9 if flow.route == "checkout" else 0.0
    return world


# --- the first suspect -------------------------------------------------------------------------------------------------


def test_a_limit_far_too_low_is_found_and_its_rollback_proposed() -> None:
    """
    Own refusals feed no other detector: the refused share names the version, its diff, and the command comes first.
    """
    world = misconfigured()

    world.until(lambda: world.engine.incidents(None, world.now), 20)

    incident = world.incident()
    assert [(s["detector"], s["scope"]) for s in incident["signals"]] == [("refusals", "route:checkout")]
    assert tuple(incident["suspect"][key] for key in ("version", "diff", "back_to")) == (2, CHANGES, 1)
    assert incident["commands"][0] == "sidecar config rollback 1"
    assert "type     sidecar config rollback 1" in world.alerts()[0].text
    assert "routes.checkout.limit.rate: 100/s → 1/s" in world.alerts()[0].text
    world.run(30)
    assert world.live() == []
    assert world.of(fx.Rollback) == []


def test_auto_rolls_back_once() -> None:
    """
    With `rollback: auto` the version before is asked for once per incident; after it the incident ends by itself.
    """
    world = misconfigured(RollbackMode.AUTO)

    world.until(lambda: world.of(fx.Rollback), 20)
    world.apply(3, touched=["route:checkout"], source="rollback", changes=CHANGES)
    world.refuse = lambda flow: 0.0
    world.until(lambda: world.incident()["state"] == "resolved", 120)

    assert [(effect.to_version, effect.incident) for effect in world.of(fx.Rollback)] == [(1, 1)]


def test_a_rollback_is_never_rolled_back() -> None:
    """
    A version that came from a rollback is named as suspect, and neither proposed nor rolled back.
    """
    world = misconfigured(RollbackMode.AUTO, source="rollback")

    world.until(lambda: world.engine.incidents(None, world.now), 20)
    world.run(20)

    assert world.incident()["suspect"]["version"] == 2
    assert world.of(fx.Rollback) == []
    assert "sidecar config rollback 1" not in world.incident()["commands"]


def test_never_means_never() -> None:
    """
    With `rollback: never` the suspect is named and nothing is proposed.
    """
    world = misconfigured(RollbackMode.NEVER)

    world.until(lambda: world.engine.incidents(None, world.now), 20)

    assert world.incident()["suspect"]["version"] == 2
    assert not [line for line in world.incident()["commands"] if "rollback" in line]


def test_a_change_of_another_scope_is_no_suspect() -> None:
    """
    A version that touches another route has an alibi.
    """
    world = warm()
    world.apply(2, touched=["route:search"], changes=CHANGES)
    break_route(world)
    world.until(world.live, 5)

    assert world.incident()["suspect"] is None


def test_an_old_change_is_no_suspect() -> None:
    """
    A version older than the suspect window is not named.
    """
    world = warm()
    world.apply(2, touched=["route:checkout"], changes=CHANGES)
    world.run(70)
    break_route(world)
    world.until(world.live, 5)

    assert world.incident()["suspect"] is None


def test_a_suspect_is_remembered_through_a_restart() -> None:
    """
    The controller dies right after the apply; its successor still names the version.
    """
    world = warm()
    world.apply(2, touched=["route:checkout"], changes=CHANGES)
    world.run(3)
    world.restart().run(5)
    break_route(world)
    world.until(world.live, 6)

    assert world.incident()["suspect"]["version"] == 2


# --- newer configs win -------------------------------------------------------------------------------------------------


def test_a_newer_config_supersedes_what_it_touches_and_nothing_else() -> None:
    """
    Overrides and isolations on the same scope end with an event that names the version; others stay.
    """
    world = broken()
    for scope in ("route:checkout", "route:search"):
        world.command(SetOverride(Scope.parse(scope), Action.THROTTLE, 600.0, "why", "ops", share_ratio=0.5))

    world.apply(2, touched=["route:checkout"], changes=CHANGES)

    assert [row["scope"] for row in world.engine.overrides(world.now)] == ["route:search"]
    assert [row["state"] for row in world.incident()["isolations"]] == ["superseded"]
    ended = [e.body["why"] for e in world.of(fx.AppendEvent) if e.kind in ("override.ended", "isolation.ended")]
    assert ended == ["config version 2 changes the same scope"] * 2


def test_the_same_version_again_supersedes_nothing() -> None:
    """
    A restart configures the version that runs already: overrides survive.
    """
    world = World()
    world.command(SetOverride(Scope.route("checkout"), Action.ISOLATE, 600.0, "why", "ops"))

    world.apply(1)

    assert len(world.engine.overrides(world.now)) == 1


def test_a_superseded_isolation_returns_only_on_new_harm() -> None:
    """
    The new config mends it: the fading alarm isolates nothing. It does not mend it: isolated again.
    """
    world = broken()
    world.apply(2, touched=["route:checkout"])
    break_route(world, fail=0.0)
    world.run(60)
    assert world.live() == []

    world = broken()
    world.apply(2, touched=["route:checkout"])
    world.until(world.live, 5)
    assert world.live()[0]["id"] == "isolation-2"


def test_a_route_that_is_gone_takes_its_second_with_it() -> None:
    """
    A config without the route: nothing breaks, the other route goes on.
    """
    world = broken()
    world.flows = [flow for flow in world.flows if flow.route == "search"]

    world.apply(2, touched=["route:checkout"], config=compiled(("search",)))
    world.run(30)

    assert [row["name"] for row in world.engine.routes(world.now)] == ["search"]
    assert world.live() == []


# --- trips -------------------------------------------------------------------------------------------------------------


def test_a_trip_is_told_to_the_other_workers_at_once() -> None:
    """
    Not with the next second: the effect of the frame itself opens the others' breakers.
    """
    world = warm()

    world.trip("checkout")

    opened = world.of(fx.OpenBreaker)
    assert [("checkout", world.now.at + 5.0, 0)] == [(o.route, o.until_at, o.except_worker) for o in opened]


def test_a_trip_is_severe_and_needs_no_sample() -> None:
    """
    A breaker opened after seven failures: isolated in the next second, with the breaker in the title's claim.
    """
    world = warm()
    for flow in world.flows:
        if flow.route == "checkout":
            flow.per_s, flow.fail = 0.5, 1.0
    world.trip("checkout")

    world.until(world.live, 2)

    assert (world.incident()["severity"], world.incident()["scope"]) == ("severe", "route:checkout")


def test_repeated_trips_are_one_incident_with_a_flap_count() -> None:
    """
    The breaker opens again and again: one incident, one page, and how often.
    """
    world = warm()
    break_route(world)
    for _ in range(4):
        world.trip("checkout")
        world.run(6)

    assert len(world.engine.incidents(None, world.now)) == 1
    assert world.incident()["flaps"] == 3
    assert [alert.kind for alert in world.alerts()].count("opened") == 1


# --- several at once ---------------------------------------------------------------------------------------------------


def test_two_clients_are_two_causes() -> None:
    """
    Two clients on two routes fail: each is cut off alone, with its own incident.
    """
    world = warm()
    for flow in world.flows:
        if (flow.route, flow.client) in (("checkout", "c1"), ("search", "c3")):
            flow.fail = 1.0

    world.until(lambda: len(world.live()) == 2, 15)

    assert {"client:checkout:c1", "client:search:c3"} == {row["scope"] for row in world.live()}


def test_the_route_takes_its_clients_incident_in() -> None:
    """
    First one client fails, then all: one incident, which widens; the client's isolation is superseded.
    """
    world = warm()
    world.flows[1].fail = 1.0
    world.until(world.live, 10)
    break_route(world)

    world.until(lambda: world.live() and world.live()[0]["scope"] == "route:checkout", 30)

    assert len(world.engine.incidents(None, world.now)) == 1
    assert [row["state"] for row in world.incident()["isolations"]] == ["superseded", "provisional"]
    assert "incident.widened" in world.kinds()


def test_a_confirmed_client_is_not_widened_away() -> None:
    """
    A person stands behind the client's isolation: the route's outage is another incident, and both are in force.
    """
    world = warm()
    world.flows[1].fail = 1.0
    world.until(world.live, 10)
    world.command(Confirm(1, "ops"))
    break_route(world)

    world.until(lambda: len(world.live()) == 2, 30)

    assert sorted(row["scope"] for row in world.live()) == ["client:checkout:c1", "route:checkout"]
    assert len(world.engine.incidents(None, world.now)) == 2


def test_an_outage_of_everything_is_one_incident() -> None:
    """
    All routes fail at once: one cause, one number, one scope.
    """
    world = warm()
    break_route(world, "checkout")
    break_route(world, "search")
    world.until(world.live, 4)
    world.run(10)

    assert [row["scope"] for row in world.engine.incidents("open", world.now)] == ["service"]
    assert len(world.live()) == 1


def test_a_quiet_hour_raises_nothing() -> None:
    """
    Steady traffic with a few failures: no incident, no directive.
    """
    world = World(*[replace_fail(flow, 0.002) for flow in shop()])

    world.run(1800)

    assert world.of(fx.PutIncident) == []
    assert world.of(fx.SetDirectives) == []


def replace_fail(flow: Flow, fail: float) -> Flow:
    """Return *flow* with a failing part."""
    return Flow(flow.route, flow.client, flow.per_s, fail, flow.latency_s, flow.method)


# --- latency -----------------------------------------------------------------------------------------------------------


def test_slow_answers_are_an_incident_of_latency() -> None:
    """
    Answers take ten times as long: raised with the times in the title.
    """
    world = warm().run(60)
    for flow in world.flows:
        if flow.route == "checkout":
            flow.latency_s = 0.5

    world.until(lambda: world.engine.incidents(None, world.now), 20)

    assert "checkout: answers take " in world.incident()["title"]


# --- decisions ---------------------------------------------------------------------------------------------------------


def test_a_decision_is_explained_by_its_id() -> None:
    """
    What a worker told about a refusal is found again, with its wall time.
    """
    world = World()
    frame = Decided(
        "d-1", "checkout", world.now.at - 2.0, "c0", "POST", "/x", "rate_limited", "limit.per_client", "10/s", 1
    )

    world.engine.observe(0, frame, world.now)

    found = world.engine.decision("d-1")
    assert found is not None
    assert tuple(found[key] for key in ("reason", "rule", "detail")) == ("rate_limited", "limit.per_client", "10/s")
    assert found["time"].endswith("Z")
    assert world.engine.decision("d-2") is None


@pytest.mark.parametrize("step", [1.0, 5.0])
def test_series_have_no_holes(step: float) -> None:
    """
    A window of 60 s has 60 / step points, silent seconds included; an unknown route has none.
    """
    world = World().run(90)
    world.flows.clear()
    world.run(5)

    series = world.engine.series("checkout", 60.0, step, world.now)

    assert series is not None
    assert 60 / step == len(series["items"])
    assert [series["items"][-1][key] for key in ("requests", "failure_ratio")] == [0, None]
    assert world.engine.series("nowhere", 60.0, 1.0, world.now) is None


def test_switching_to_observe_ends_what_automation_alone_had_decided() -> None:
    """
    A config that lets automation only observe supersedes its provisional isolations, not those of a person.
    """
    observing = compiled(ROUTES, respond=replace(QUICK, mode=Mode.OBSERVE))
    world = broken()
    world.apply(2, config=observing)
    assert world.live() == []
    assert world.incident()["isolations"][0]["ended_why"] == "since config version 2 automation only observes"

    world = broken()
    world.command(Confirm(1, "ops"))
    world.apply(2, config=observing)
    assert [row["state"] for row in world.live()] == ["confirmed"]


def test_errors_and_slowness_together_recover_only_when_both_are_over() -> None:
    """
    Failures end but answers stay slow: nothing is given back until they are fast again.
    """
    world = warm().run(60)
    for flow in world.flows:
        if flow.route == "checkout":
            flow.fail, flow.latency_s = 0.3, 1.0
    world.until(world.live, 30)
    break_route(world, fail=0.0)
    world.run(60)
    assert [row["share"] for row in world.live()] == [0.1]

    for flow in world.flows:
        flow.latency_s = 0.02

    world.until(lambda: world.incident()["state"] == "resolved", 120)


# --- endpoints and the cost of a wide outage ------------------------------------------------------------------------------


def test_one_bad_endpoint_is_named_and_nobody_is_refused() -> None:
    """
    One of three endpoints fails on both routes: the incident is about it, severe, and refusing would mend nothing.
    """
    flows = [
        Flow(route, f"c{client}", 2.0, endpoint=f"10.0.0.{n}:9000")
        for route in ("checkout", "search")
        for client in range(4)
        for n in range(3)
    ]
    world = warm(*flows)
    for flow in world.flows:
        flow.fail = 1.0 if flow.endpoint == "10.0.0.1:9000" else 0.0

    world.until(lambda: world.engine.incidents(None, world.now), 10)
    world.run(30)

    (incident,) = world.engine.incidents(None, world.now)
    assert (incident["scope"], incident["severity"]) == ("endpoint:10.0.0.1:9000", "severe")
    assert incident["title"].startswith("endpoint 10.0.0.1:9000: 100 % of requests fail (normally ")
    assert "the others can serve" in incident["not_isolated_because"]
    assert world.refused_ratio(30) == 0.0
    assert 350 <= incident["impact"]["failed"] <= 1200


def test_what_within_the_scope_it_is_stands_in_the_incident() -> None:
    """
    A client that a person does not throttle, a path, a method: the likeliest part of the scope is told with its counts.
    """
    world = warm(*[Flow("checkout", f"c{i}", 5.0, method=("GET", "POST")[i % 2]) for i in range(8)])
    for flow in world.flows:
        flow.fail = 0.6 if flow.method == "POST" else 0.0

    world.until(lambda: world.engine.incidents(None, world.now), 10)

    affected = world.incident()["affected"]
    assert world.incident()["scope"] == "route:checkout"
    assert tuple(affected["narrowest"][key] for key in ("dimension", "name")) == ("method", "POST")
    assert "of it is method POST" in world.alerts()[0].text


def test_an_outage_of_fifty_routes_is_decided_within_fifty_milliseconds() -> None:
    """
    The median second, in processor time of the machine that the budgets were set on: what the claims have in common is
    added up once.
    """
    world = warm(*[Flow(f"r{i}", f"c{n}", 2.0) for i in range(50) for n in range(5)])
    for flow in world.flows:
        flow.fail = 1.0

    spent = sorted(cost.cpu_calls(world.second) for _ in range(15))

    assert spent[7] < cost.budget(0.05)


def test_a_leak_that_was_always_there_burns_the_objective() -> None:
    """
    A failure ratio that is normal for the route and above its objective is told by its budget, once, and nobody is isolated.
    """
    detect = DetectPolicy(warmup_s=10.0, clear_after_s=5.0, objectives={"checkout": Objective(bad_ratio=0.001)})
    world = World(
        *(Flow("checkout", f"c{i}", 5.0, fail=0.2) for i in range(4)), config=compiled(("checkout",), detect=detect)
    )

    world.run(420)

    incidents = world.engine.incidents(None, world.now)
    assert [signal["detector"] for row in incidents for signal in row["signals"]] == ["burn"]
    assert incidents[0]["title"] == "checkout: 20 % of requests spend the error budget (the objective allows 0.1 %)"
    assert world.live() == []
