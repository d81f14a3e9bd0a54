"""The loop on one scope: alarm, incident, isolation, ramp, end; who is hit and who is not."""

from __future__ import annotations

from dataclasses import replace

from sidecar.controller import effects as fx
from sidecar.decide.policies import Response
from sidecar.facts import Action, Mode
from tests.support.world import QUICK, Flow, World, compiled

OUTAGE_S = 3  # a total outage at 10 requests/s or more is acted upon within these seconds


def warm(*flows: Flow, **given: object) -> World:
    """Return a world whose detectors have learnt what is normal."""
    return World(*flows, **given).run(60)  # type: ignore[arg-type]


def shop() -> list[Flow]:
    """Two routes with four clients each, 20 requests a second on each route."""
    return [Flow(route, f"c{i}", 5.0) for route in ("checkout", "search") for i in range(4)]


def break_route(world: World, route: str, fail: float = 1.0) -> None:
    """Let the API fail on one route."""
    for flow in world.flows:
        if flow.route == route:
            flow.fail = fail


def test_a_total_outage_is_isolated_within_its_window() -> None:
    """
    All requests of a route fail: within three seconds its share passes, and the incident says so.
    """
    world = warm(*shop())
    break_route(world, "checkout")

    assert world.until(world.live, OUTAGE_S) <= OUTAGE_S

    (isolation,) = world.live()
    assert ("route:checkout", "throttle", 0.1, "provisional") == tuple(
        isolation[key] for key in ("scope", "action", "share", "state")
    )
    incident = world.incident()
    assert ("open", "severe", "route:checkout") == tuple(incident[key] for key in ("state", "severity", "scope"))
    assert incident["title"].startswith("POST checkout: 100 % of requests fail (normally 0.")
    (directive,) = world.directives
    assert (Action.THROTTLE, 0.1, True, "1") == (
        directive.action, directive.share_ratio, directive.bypass_breaker, directive.incident,
    )  # fmt: skip


def test_only_the_failing_client_is_cut_off() -> None:
    """
    One client of four fails always: it alone is isolated, the others keep everything.
    """
    world = warm(*shop())
    next(flow for flow in world.flows if flow.route == "checkout" and flow.client == "c2").fail = 1.0

    world.until(world.live, 10)

    assert ["client:checkout:c2"] == [row["scope"] for row in world.live()]
    assert "client c2 on checkout: 100 % of its requests fail" in world.incident()["title"]
    world.run(10)
    assert ["client:checkout:c2"] == [row["scope"] for row in world.live()]
    assert 1 == len(world.engine.incidents(None, world.now))


def test_recovery_gives_traffic_back_step_by_step_and_resolves() -> None:
    """
    When the trials are well the share rises by the ramp's steps, and at 100 % the incident is resolved as recovered.
    """
    world = warm(*shop())
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)
    world.run(10)
    break_route(world, "checkout", 0.0)

    world.until(lambda: world.incident()["state"] == "mitigated", 30)
    world.until(lambda: world.incident()["state"] == "resolved", 30)

    ramped = [e.body["share"] for e in world.of(fx.AppendEvent) if e.kind == "isolation.ramped"]
    assert [0.25, 0.5, 1.0] == ramped
    assert "recovered" == world.incident()["resolution"]
    assert ["released"] == [row["state"] for row in world.incident()["isolations"]]
    assert () == world.directives
    assert ["opened", "resolved"] == [alert.kind for alert in world.alerts()]


def test_a_recovered_scope_is_not_isolated_again_by_its_fading_alarm() -> None:
    """
    After the recovery the detector's score fades slowly; nothing is reopened by it.
    """
    world = warm(*shop())
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)
    break_route(world, "checkout", 0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 60)

    world.run(120)

    assert 1 == world.kinds().count("isolation.started")
    assert 0 == world.incident()["flaps"]


def test_a_failed_step_goes_back_one_step_not_to_zero() -> None:
    """
    The API fails again at 50 %: the share goes back to 25 %, and on from there.
    """
    world = warm(*shop())
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)
    break_route(world, "checkout", 0.0)
    world.until(lambda: world.live()[0]["share"] == 0.5, 60)
    break_route(world, "checkout", 1.0)

    world.until(lambda: world.live()[0]["share"] == 0.25, 10)
    world.until(lambda: world.live()[0]["share"] == 0.1, 10)

    assert ("open", "provisional") == (world.incident()["state"], world.live()[0]["state"])


def test_without_trials_nothing_is_given_back() -> None:
    """
    A step needs successes and a rate: with no request at all the share stays, whatever the time.
    """
    world = warm(*shop(), config=compiled(("checkout", "search"), respond=replace(QUICK, lease_s=600.0)))
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)
    world.flows = [flow for flow in world.flows if flow.route != "checkout"]

    world.run(120)

    assert [0.1] == [row["share"] for row in world.live()]


def test_the_same_cause_again_within_five_minutes_is_a_flap() -> None:
    """
    The scope breaks again after its recovery: the same incident is reopened, counted and isolated again.
    """
    world = warm(*shop())
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)
    break_route(world, "checkout", 0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 60)
    world.run(30)
    break_route(world, "checkout")

    world.until(world.live, 5)

    assert ("open", 1) == (world.incident()["state"], world.incident()["flaps"])
    assert ["isolation-1", "isolation-2"] == [row["id"] for row in world.incident()["isolations"]]
    assert 1 == len(world.engine.incidents(None, world.now))


def test_observe_says_what_it_would_have_done_and_does_nothing() -> None:
    """
    In observe mode, of the service or of `respond`, the incident says `would have` and no directive leaves.
    """
    for config in (
        compiled(("checkout", "search"), mode=Mode.OBSERVE),
        compiled(("checkout", "search"), respond=replace(QUICK, mode=Mode.OBSERVE)),
        compiled(("checkout", "search"), respond=replace(QUICK, action=Response.OBSERVE)),
    ):
        world = warm(*shop(), config=config)
        break_route(world, "checkout")
        world.run(5)

        assert [] == world.of(fx.SetDirectives)
        incident = world.incident()
        assert {"scope": "route:checkout", "action": "throttle", "share": 0.1} == incident["would_have"]
        assert "observe mode" == incident["not_isolated_because"]
        assert 1 == world.kinds().count("isolation.withheld")


def test_isolate_passes_only_the_small_sample() -> None:
    """
    With `action: isolate` the larger of 1 % and min(1/s, 10 %) passes: 5 % of 20 requests a second.
    """
    respond = replace(QUICK, action=Response.ISOLATE, max_refused_ratio=1.0)
    world = warm(*shop(), config=compiled(("checkout", "search"), respond=respond))
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)

    assert [("isolate", 0.05)] == [(row["action"], row["share"]) for row in world.live()]


def test_collateral_is_what_trial_traffic_says() -> None:
    """
    Of what is refused, the meter says how much would have succeeded: 40 % when 60 % of the trials fail.
    """
    world = warm(*shop())
    break_route(world, "checkout", 0.6)
    world.until(world.live, 10)

    world.run(60)

    ratio = world.incident()["collateral"]["would_have_succeeded_ratio"]
    assert 0.35 < ratio < 0.45
    assert world.incident()["collateral"]["refused"] > 500


def test_evidence_is_frozen_once() -> None:
    """
    What was true at detection is stored once; a later flood of good traffic does not change it.
    """
    world = warm(*shop())
    world.sample("checkout")
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)
    frozen = world.engine.evidence(1)
    break_route(world, "checkout", 0.0)
    world.run(90)

    assert [1] == [effect.incident for effect in world.of(fx.PutEvidence)]
    assert frozen == world.engine.evidence(1)
    assert frozen is not None
    (route,) = frozen["routes"]
    assert ("checkout", "closed", 1) == (route["route"], route["breaker"], frozen["config_version"])
    assert {"name": "503", "requests": 40, "failures": 40} == route["statuses"][0]
    assert 60 <= len(route["series"]) <= 120
    assert ["host"] == frozen["samples"][0]["fields"]


def test_the_alert_is_actionable() -> None:
    """
    It says what, since when, how bad, who, what was done until when, what comes next, and what to type.
    """
    world = warm(*shop())
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)

    (alert,) = world.alerts()
    assert alert.urgent
    for words in (
        "incident 1 opened: POST checkout: 100 % of requests fail",
        "since ",
        "measured errors: 100 %, normally 0.",
        "clients c0 (10 of 10 failed)",
        "/api/checkout/{id}",
        "route:checkout throttled, 10 % passes (provisional, isolation-1, until ",
        "escalate at ",
        "sidecar incident confirm 1",
        "sidecar incident release 1 --verdict false_positive",
        "docs/runbooks/errors.md",
    ):
        assert words in alert.text
