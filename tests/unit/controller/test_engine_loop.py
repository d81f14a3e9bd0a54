"""The loop on one scope: alarm, incident, isolation, ramp, end; who is hit and who is not."""

from __future__ import annotations

from dataclasses import replace

from sidecar.controller import effects as fx
from sidecar.decide.policies import Response
from sidecar.facts import Action, Mode
from tests.support.plays import OUTAGE_S, break_route, broken, warm
from tests.support.world import QUICK, compiled


def test_a_total_outage_is_isolated_within_its_window() -> None:
    """
    All requests of a route fail: within three seconds its share passes, and the incident says so.
    """
    world = warm()
    break_route(world, "checkout")

    assert world.until(world.live, OUTAGE_S) <= OUTAGE_S

    (isolation,) = world.live()
    assert tuple(isolation[key] for key in ("scope", "action", "share", "state")) == (
        "route:checkout",
        "throttle",
        0.1,
        "provisional",
    )
    incident = world.incident()
    assert tuple(incident[key] for key in ("state", "severity", "scope")) == ("open", "severe", "route:checkout")
    assert incident["title"].startswith("POST checkout: 100 % of requests fail (normally 0.")
    (directive,) = world.directives
    assert (
        directive.action, directive.share_ratio, directive.bypass_breaker, directive.incident,
    ) == (Action.THROTTLE, 0.1, True, "1")  # fmt: skip


def test_what_is_told_of_a_route_that_nobody_asks_any_more_is_past() -> None:
    """
    Five seconds without a request: the title says so; the next request brings the present tense back.
    """
    world = broken()
    flows, world.flows = world.flows, []
    world.run(4)
    assert "requests fail (" in world.incident()["title"]
    world.run(2)
    assert "100 % of requests failed (no requests now, normally 0." in world.incident()["title"]
    world.flows = flows
    world.run(1)
    assert "requests fail (" in world.incident()["title"]


def test_only_the_failing_client_is_cut_off() -> None:
    """
    One client of four fails always: it alone is isolated, the others keep everything.
    """
    world = warm()
    next(flow for flow in world.flows if flow.route == "checkout" and flow.client == "c2").fail = 1.0

    world.until(world.live, 10)

    assert [row["scope"] for row in world.live()] == ["client:checkout:c2"]
    assert "client c2 on checkout: 100 % of its requests fail" in world.incident()["title"]
    world.run(10)
    assert [row["scope"] for row in world.live()] == ["client:checkout:c2"]
    assert len(world.engine.incidents(None, world.now)) == 1


def test_recovery_gives_traffic_back_step_by_step_and_resolves() -> None:
    """
    When the trials are well the share rises by the ramp's steps, and at 100 % the incident is resolved as recovered.
    """
    world = broken()
    world.run(10)
    break_route(world, "checkout", 0.0)

    world.until(lambda: world.incident()["state"] == "mitigated", 30)
    world.until(lambda: world.incident()["state"] == "resolved", 30)

    ramped = [e.body["share"] for e in world.of(fx.AppendEvent) if e.kind == "isolation.ramped"]
    assert ramped == [0.25, 0.5, 1.0]
    assert world.incident()["resolution"] == "recovered"
    assert [row["state"] for row in world.incident()["isolations"]] == ["released"]
    assert world.directives == ()
    assert [alert.kind for alert in world.alerts()] == ["opened", "resolved"]


def test_a_recovered_scope_is_not_isolated_again_by_its_fading_alarm() -> None:
    """
    After the recovery the detector's score fades slowly; nothing is reopened by it.
    """
    world = broken()
    break_route(world, "checkout", 0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 60)

    world.run(120)

    assert world.kinds().count("isolation.started") == 1
    assert world.incident()["flaps"] == 0


def test_a_failed_step_goes_back_one_step_not_to_zero() -> None:
    """
    The API fails again at 50 %: the share goes back to 25 %, and on from there.
    """
    world = broken()
    break_route(world, "checkout", 0.0)
    world.until(lambda: world.live()[0]["share"] == 0.5, 60)
    break_route(world, "checkout", 1.0)

    world.until(lambda: world.live()[0]["share"] == 0.25, 10)
    world.until(lambda: world.live()[0]["share"] == 0.1, 10)

    assert (world.incident()["state"], world.live()[0]["state"]) == ("open", "provisional")


def test_without_trials_nothing_is_given_back() -> None:
    """
    A step needs successes and a rate: with no request at all the share stays, whatever the time.
    """
    world = warm(config=compiled(("checkout", "search"), respond=replace(QUICK, lease_s=600.0)))
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)
    world.flows = [flow for flow in world.flows if flow.route != "checkout"]

    world.run(120)

    assert [row["share"] for row in world.live()] == [0.1]


def test_the_same_cause_again_within_five_minutes_is_a_flap() -> None:
    """
    The scope breaks again after its recovery: the same incident is reopened, counted and isolated again.
    """
    world = broken()
    break_route(world, "checkout", 0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 60)
    world.run(30)
    break_route(world, "checkout")

    world.until(world.live, 5)

    assert (world.incident()["state"], world.incident()["flaps"]) == ("open", 1)
    assert [row["id"] for row in world.incident()["isolations"]] == ["isolation-1", "isolation-2"]
    assert len(world.engine.incidents(None, world.now)) == 1


def test_observe_says_what_it_would_have_done_and_does_nothing() -> None:
    """
    In observe mode, of the service or of `respond`, the incident says `would have` and no directive leaves.
    """
    for config in (
        compiled(("checkout", "search"), mode=Mode.OBSERVE),
        compiled(("checkout", "search"), respond=replace(QUICK, mode=Mode.OBSERVE)),
        compiled(("checkout", "search"), respond=replace(QUICK, action=Response.OBSERVE)),
    ):
        world = warm(config=config)
        break_route(world, "checkout")
        world.run(5)

        assert world.of(fx.SetDirectives) == []
        incident = world.incident()
        assert incident["would_have"] == {"scope": "route:checkout", "action": "throttle", "share": 0.1}
        assert incident["not_isolated_because"] == "observe mode"
        assert world.kinds().count("isolation.withheld") == 1


def test_isolate_passes_only_the_small_sample() -> None:
    """
    With `action: isolate` the larger of 1 % and min(1/s, 10 %) passes: 5 % of 20 requests a second.
    """
    respond = replace(QUICK, action=Response.ISOLATE, max_refused_ratio=1.0)
    world = warm(config=compiled(("checkout", "search"), respond=respond))
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)

    assert [(row["action"], row["share"]) for row in world.live()] == [("isolate", 0.05)]


def test_the_sample_follows_the_traffic() -> None:
    """
    Isolated at 20 requests a second with 5 %; at 4 a second 10 % pass, so that recovery is still proven by something.
    """
    respond = replace(QUICK, action=Response.ISOLATE, max_refused_ratio=1.0)
    world = warm(config=compiled(("checkout", "search"), respond=respond))
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)
    for flow in world.flows:
        if flow.route == "checkout":
            flow.per_s = 1.0
    world.run(12)

    assert [row["share"] for row in world.live()] == [0.1]
    assert world.kinds().count("isolation.sampled") == 1


def test_collateral_is_what_trial_traffic_says() -> None:
    """
    Of what is refused, the meter says how much would have succeeded: 40 % when 60 % of the trials fail.
    """
    world = warm()
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
    world = warm()
    world.sample("checkout")
    break_route(world, "checkout")
    world.until(world.live, OUTAGE_S)
    frozen = world.engine.evidence(1)
    break_route(world, "checkout", 0.0)
    world.run(90)

    assert [effect.incident for effect in world.of(fx.PutEvidence)] == [1]
    assert frozen == world.engine.evidence(1)
    assert frozen is not None
    (route,) = frozen["routes"]
    assert (route["route"], route["breaker"], frozen["config_version"]) == ("checkout", "closed", 1)
    assert route["statuses"][0] == {"name": "503", "requests": 40, "failures": 40}
    assert 60 <= len(route["series"]) <= 120
    assert frozen["samples"][0]["fields"] == ["host"]


def test_the_alert_is_actionable() -> None:
    """
    It says what, since when, how bad, who, what was done until when, what comes next, and what to type.
    """
    world = broken()

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
