"""Leases, the ladder, the budget, restarts: what ends when, and who decides it when nobody answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.controller import effects as fx
from sidecar.controller.commands import Acknowledge, Confirm, SetOverride
from sidecar.decide.policies import LadderStep, RespondPolicy, Response, Rung
from sidecar.facts import Action, Scope
from tests.support.plays import OUTAGE_S, break_route, broken, warm
from tests.support.world import QUICK, Flow, World, compiled

ROUTES = ("checkout", "search")


def respond(**given: object) -> object:
    """A config with this varied respond policy."""
    return compiled(ROUTES, respond=replace(QUICK, **given))  # type: ignore[arg-type]


# --- leases ------------------------------------------------------------------------------------------------------------


def test_automation_renews_while_the_anomaly_lasts() -> None:
    """
    A lease of a minute is still in force after ten, renewed at half its length, each time with an event.
    """
    world = broken()

    world.run(600)

    assert [(row["state"], row["id"]) for row in world.live()] == [("provisional", "isolation-1")]
    assert 15 <= world.kinds().count("isolation.renewed") <= 21
    assert world.directives[0].end_at > world.now.at + 29


def test_directives_are_sent_only_when_they_change() -> None:
    """
    One push at the start, one for each renewal, none for every other second.
    """
    world = broken()
    world.run(20)
    world.effects.clear()

    world.run(100)

    assert len(world.of(fx.SetDirectives)) == world.kinds().count("isolation.renewed")


def test_an_idle_scope_is_not_isolated_for_ever() -> None:
    """
    Nobody asks for the scope during a whole lease and no person confirmed it: it is released, and says why.
    """
    world = broken()
    world.flows = [flow for flow in world.flows if flow.route != "checkout"]

    assert 55 <= world.until(lambda: not world.live(), 130) <= 61
    world.run(60)

    (isolation,) = world.incident()["isolations"]
    assert (isolation["state"], isolation["ended_why"]) == ("released", "no request during a whole lease")
    assert "silence" in [s["detector"] for s in world.incident()["signals"] if s["sounding"]]


def test_a_confirmed_isolation_waits_for_evidence_even_when_idle() -> None:
    """
    A person said that it is real: no request for hours does not end it.
    """
    world = broken()
    world.command(Confirm(1, "ops"))
    world.flows = [flow for flow in world.flows if flow.route != "checkout"]

    world.run(400)

    assert [(row["state"], row["share"]) for row in world.live()] == [("confirmed", 0.1)]


# --- restarts ----------------------------------------------------------------------------------------------------------


def settled(isolation: dict[str, Any]) -> dict[str, Any]:
    """Return an isolation without the figures that move every second."""
    return {key: isolation[key] for key in isolation if key not in ("refused", "would_have_succeeded_ratio")}


def test_a_restart_loses_nothing() -> None:
    """
    The controller dies: incident, lease, override and their numbers go on, and the directives are as they were.
    """
    world = broken()
    world.command(SetOverride(Scope.route("search"), Action.THROTTLE, 100.0, "too slow", "ops", rate_per_s=50.0))
    world.run(5)
    before, directives = world.incident(), world.directives

    world.restart().second()

    assert directives == world.directives
    after = world.incident()
    assert [before[key] for key in ("id", "title", "state", "opened_time")] == [
        after[key] for key in ("id", "title", "state", "opened_time")
    ]
    assert [settled(row) for row in before["isolations"]] == [settled(row) for row in after["isolations"]]
    world.run(120)
    assert len(world.engine.incidents(None, world.now)) == 1
    break_route(world, fail=0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 60)
    break_route(world, "search")
    world.until(lambda: len(world.engine.incidents(None, world.now)) == 2, 10)
    assert world.live()[0]["id"] == "isolation-2"


@pytest.mark.parametrize("boot", [None, "boot-2"])
def test_the_trials_of_a_step_go_on_after_a_restart(boot: str | None) -> None:
    """
    What a step has shown until a few seconds before the crash counts: its successor asks for the rest, not for all anew.
    """
    steady, restarted = (broken(config=respond(ramp_hold_s=40.0)) for _ in range(2))
    for world in (steady, restarted):
        break_route(world, fail=0.0)
        world.run(35)
    restarted.restart(boot=boot, away_s=0.0)

    took = [world.until(lambda world=world: world.live()[0]["share"] > 0.1, 60) for world in (steady, restarted)]

    assert took[0] <= took[1] <= took[0] + 1


def test_trials_of_another_step_count_for_nothing() -> None:
    """
    A crash right after a step: the trials that are stored belong to the step before, and the new one begins at zero.
    """
    world = broken()
    break_route(world, fail=0.0)
    world.until(lambda: world.live()[0]["share"] > 0.1, 60)

    world.restart(away_s=0.0)

    assert world.until(lambda: world.live()[0]["share"] > 0.25, 60) >= 3


def test_after_a_reboot_the_wall_end_counts() -> None:
    """
    Monotonic moments of another boot mean nothing: the remaining time is taken from the wall clock.
    """
    world = World()
    world.command(SetOverride(Scope.route("checkout"), Action.ISOLATE, 100.0, "moved", "ops"))
    world.run(10)

    world.restart(boot="boot-2", away_s=30.0).second()

    assert [pytest.approx(world.now.at + 59.0)] == [directive.end_at for directive in world.directives]
    world.run(60)
    assert world.directives == ()


def test_a_lease_that_ended_while_no_controller_lived_has_expired() -> None:
    """
    The workers let it go by themselves; the next controller says so and does not bring it back.
    """
    world = broken()
    break_route(world, fail=0.0)

    world.restart(away_s=120.0).run(2)

    assert world.live() == []
    ended = next(e for e in world.of(fx.AppendEvent) if e.kind == "isolation.ended")
    assert ended.body["state"] == "expired"


def test_verdicts_survive_a_restart() -> None:
    """
    What a person called a false positive stays silent under the next controller.
    """
    from sidecar.controller.commands import Release, ReleaseVerdict

    world = warm()
    break_route(world, fail=0.3)
    world.until(lambda: world.engine.incidents(None, world.now), 10)
    world.command(Release(1, "ops", ReleaseVerdict.FALSE_POSITIVE))
    break_route(world, fail=0.0)
    world.run(70)
    world.restart().run(60)
    break_route(world, fail=0.3)
    world.until(lambda: world.engine.heard, 10)
    break_route(world, fail=0.0)

    world.run(60)

    assert world.live() == []
    assert [row["id"] for row in world.engine.incidents(None, world.now)] == [1]


def test_a_store_that_is_down_changes_what_documents_say_and_nothing_else() -> None:
    """
    Containment acts all the same and is marked `durable: false` until the store has it.
    """
    world = warm()
    world.durable = False
    break_route(world)
    world.until(world.live, 5)
    world.run(1)
    assert [row["durable"] for row in world.live()] == [False]

    world.durable = True
    world.run(1)

    assert [row["durable"] for row in world.live()] == [True]


# --- the ladder --------------------------------------------------------------------------------------------------------


def test_the_ladder_runs_by_itself_with_a_countdown() -> None:
    """
    Escalate, then probe: each rung once, at its time, and the incident shows what comes next.
    """
    ladder = (Rung(10.0, LadderStep.ESCALATE), Rung(20.0, LadderStep.PROBE))
    world = broken(config=respond(ladder=ladder))
    assert world.incident()["next_step"]["do"] == "escalate"

    world.run(11)
    assert world.incident()["next_step"]["do"] == "probe"
    world.run(10)

    assert [kind for kind in world.kinds() if kind.startswith("ladder")] == ["ladder.escalate", "ladder.probe"]
    assert [alert.kind for alert in world.alerts()][:2] == ["opened", "escalated"]
    assert [alert.urgent for alert in world.alerts()][:2] == [True, True]
    assert world.incident()["next_step"] is None


def test_a_probe_of_a_broken_scope_goes_back() -> None:
    """
    The probe raises the share one step; its trials fail and the share is what it was.
    """
    world = broken(config=respond(ladder=(Rung(10.0, LadderStep.PROBE),)))

    world.until(lambda: world.live()[0]["share"] == 0.25, 12)
    world.until(lambda: world.live()[0]["share"] == 0.1, 5)

    assert [e.body["why"] for e in world.of(fx.AppendEvent) if e.kind == "isolation.ramped"] == ["probe", "relapse"]


def test_only_the_rung_release_switches_protection_off() -> None:
    """
    Waiting alone never does; a ladder that says release does, and says why.
    """
    for step, live in ((LadderStep.HOLD, 1), (LadderStep.ESCALATE, 1), (LadderStep.RELEASE, 0)):
        world = broken(config=respond(ladder=(Rung(10.0, step),)))
        world.run(11)
        assert live == len(world.live())

    assert world.incident()["state"] == "open"  # the outage lasts
    world.run(60)
    assert world.live() == []
    break_route(world, fail=0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 120)
    assert world.incident()["resolution"] == "released"


def test_hold_keeps_an_idle_scope() -> None:
    """
    After `hold` the lease is renewed even when nobody asks for the scope.
    """
    world = broken(config=respond(ladder=(Rung(5.0, LadderStep.HOLD),)))
    world.run(6)
    world.flows = [flow for flow in world.flows if flow.route != "checkout"]

    world.run(300)

    assert len(world.live()) == 1


def test_an_answered_isolation_has_no_next_step() -> None:
    """
    The countdown is for nobody: it stops with an acknowledgement or a confirmation.
    """
    for command in (Acknowledge(1, "ops"), Confirm(1, "ops")):
        world = broken()
        world.command(command)
        assert world.incident()["next_step"] is None


# --- the budget --------------------------------------------------------------------------------------------------------


def test_automation_stays_within_its_budget() -> None:
    """
    Everything fails: what passes is raised until no more than `max_refused` is refused, and people are told.
    """
    world = warm(config=respond(max_refused_ratio=0.5))
    break_route(world, "checkout")
    break_route(world, "search")
    world.until(world.live, 4)
    world.run(30)

    assert world.refused_ratio(20) <= 0.5 + 0.02
    assert world.incident()["budget_reached"]
    assert all(row["share_floor"] == row["share"] for row in world.live())
    assert "isolation.budget_reached" in world.kinds()
    assert "budget reached" in world.alerts()[0].text


def test_a_second_isolation_shares_the_budget() -> None:
    """
    One route is isolated within the budget; when the second one breaks, both pass more.
    """
    world = broken(config=respond(max_refused_ratio=0.5))
    assert [row["share"] for row in world.live()] == [0.1]
    world.run(40)
    break_route(world, "search")

    world.until(lambda: sum(row["share"] > 0.4 for row in world.live()) == len(world.live()), 30)

    world.run(20)
    assert world.refused_ratio(15) <= 0.5 + 0.02


def test_a_clients_isolation_is_charged_with_all_that_it_sends() -> None:
    """
    One client sends 80 % of everything and fails: its own counts show only what passes, the budget counts all of it.
    """
    flows = [Flow("checkout", "abuser", 80.0), *(Flow("checkout", f"c{i}", 5.0) for i in range(4))]
    config = compiled(("checkout",), respond=replace(QUICK, max_refused_ratio=0.4))
    world = World(*flows, config=config).run(60)
    world.flows[0].fail = 1.0
    world.until(world.live, 10)
    world.run(30)

    assert [row["scope"] for row in world.live()] == ["client:checkout:abuser"]
    assert 0.35 <= world.refused_ratio(15) <= 0.4 + 0.02


def test_without_a_budget_nothing_is_isolated() -> None:
    """
    `max_refused: 0%` raises incidents only, and says why.
    """
    world = warm(config=respond(max_refused_ratio=0.0))
    break_route(world)
    world.run(10)

    assert world.live() == []
    assert world.incident()["not_isolated_because"] == "respond.max_refused leaves nothing to refuse"


def test_the_defaults_isolate_a_single_route_api() -> None:
    """
    With one route and the product's defaults, 20 % passes: the budget of 80 % is met and named.
    """
    world = World(
        *[Flow("default", f"c{i}", 10.0) for i in range(3)], config=compiled(("default",), respond=RespondPolicy())
    )
    world.run(60)
    break_route(world, "default")
    world.until(world.live, 3)

    assert [row["share"] for row in world.live()] == [0.2]


# --- the breaker beneath ---------------------------------------------------------------------------------------------


def test_what_has_recovered_on_evidence_is_not_refused_by_its_breaker() -> None:
    """
    A breaker that an earlier trip holds open closes with the isolation's proof: no second wait, no second ramp.
    """
    world = broken()
    world.trip("checkout", open_s=240.0)
    world.breakers["checkout"] = "open"
    break_route(world, fail=0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 80)
    assert world.breakers == {}
    reset = next(event for event in world.of(fx.AppendEvent) if event.kind == "breaker.reset")
    assert (reset.incident, reset.author, reset.body["why"]) == (1, "automation", "recovered on evidence")


def test_nothing_is_over_while_a_breaker_refuses_all() -> None:
    """
    Without an isolation a tripped route is quiet because nothing passes; its incident waits until the breaker lets go.
    """
    world = warm(config=respond(action=Response.OBSERVE))
    break_route(world)
    world.run(2)
    world.trip("checkout", open_s=60.0)
    world.breakers["checkout"] = "open"
    world.until(lambda: world.engine.incidents(None, world.now), 5)
    break_route(world, fail=0.0)
    world.run(60)
    assert world.incident()["state"] == "open"
    world.breakers.clear()
    world.until(lambda: world.incident()["state"] == "resolved", 40)


@pytest.mark.parametrize("begins_s", range(0, 60, 3))
def test_what_is_over_does_not_come_back_with_a_restart(begins_s: int) -> None:
    """
    A controller that dies after an incident has ended, at whatever moment of the minute: its successor hears nothing of it.
    """
    world = warm().run(begins_s)
    break_route(world)
    world.trip("checkout")
    world.until(world.live, OUTAGE_S)
    world.run(20)
    break_route(world, fail=0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 300)
    world.run(3)
    told = len(world.script())
    world.restart().run(30)
    assert [line for line in world.script()[told:] if line.startswith(("incident.", "isolation."))] == []
