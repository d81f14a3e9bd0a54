"""Drills on a running engine: found, graded, given back, and never mistaken for the truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.config.policies import Compiled
from sidecar.controller import effects as fx
from sidecar.controller.commands import (
    Confirm,
    Demote,
    Done,
    Practice,
    Rejected,
    Release,
    ReleaseVerdict,
    SetOverride,
    StartDrill,
    StopDrill,
)
from sidecar.decide.policies import ListenPolicy
from sidecar.facts import Action, Detector, Mode, Scope
from sidecar.guard.policies import BreakerPolicy, GuardPolicy, RoutePolicy
from tests.support.plays import break_route, broken, warm
from tests.support.world import Flow, World, compiled


def practise(world: World, command: Practice) -> Done | Rejected:
    answer, effects = world.engine.command(command, world.now)
    world.take(effects)
    return answer


def start(world: World, kind: str = "errors", for_s: float = 30.0, route: str = "checkout") -> None:
    answer = practise(world, StartDrill(kind, route, for_s, "ops"))
    assert isinstance(answer, Done), answer


def drill(world: World) -> dict[str, Any]:
    """Return the latest drill."""
    return world.engine.drilling.documents()[0]


def stages(world: World) -> dict[str, bool]:
    return {row["stage"]: row["met"] for row in drill(world)["stages"]}


def test_an_errors_drill_runs_through_every_stage() -> None:
    """
    Found, attributed, told, frozen, isolated; after its time everything is given back, and the drill has passed.
    """
    world = warm()
    start(world)
    assert world.faults == {"checkout"}
    world.until(lambda: drill(world)["state"] not in ("injecting", "recovering"), 400)
    assert world.faults == set()
    assert drill(world)["state"] == "passed", drill(world)
    assert stages(world) == dict.fromkeys(("detected", "attributed", "evidence", "told", "isolated", "recovered"), True)
    assert world.live() == []


def test_what_automation_may_not_do_is_no_stage() -> None:
    """
    In observe mode nothing is isolated, and a drill does not fail for it; an override on the route is named instead.
    """
    world = warm(config=compiled(("checkout", "search"), mode=Mode.OBSERVE))
    start(world)
    assert "isolated" not in stages(world)
    other = warm()
    other.command(SetOverride(Scope.route("checkout"), Action.ALLOW, 60.0, "why", "ops"))
    answer = practise(other, StartDrill("errors", "checkout", 30.0, "ops"))
    assert isinstance(answer, Rejected)
    assert answer.hint == "sidecar override clear route:checkout"


def test_a_receiver_that_hears_nothing_fails_the_drill() -> None:
    """
    `told` is met by what arrived, not by what was sent: the drill says whom nothing reached, and what to type.
    """
    world = warm()
    world.deaf = {"log"}
    start(world)
    world.until(lambda: drill(world)["state"] not in ("injecting", "recovering"), 400)
    assert drill(world)["state"] == "failed"
    assert [stage for stage, met in stages(world).items() if not met] == ["told"]
    assert drill(world)["why"] == "no message reached log: sidecar notify test log"


def test_a_drill_is_marked_everywhere_and_pages_nobody() -> None:
    """
    The incident, its title and its alerts say so; none is urgent.
    """
    world = warm()
    start(world)
    world.run(10)
    incident = world.incident()
    assert incident["drill"]
    assert incident["title"].startswith("[drill] ")
    assert world.alerts()
    assert not any(alert.urgent for alert in world.alerts())


def test_nothing_is_learnt_from_a_drill() -> None:
    """
    Baselines stay, rollups count no failure, and no threshold moves by its verdict.
    """
    world = warm()
    before = world.engine._bank.snapshot()["checkout"]["errors"]["baseline"]
    start(world)
    world.run(70)
    after = world.engine._bank.snapshot()["checkout"]["errors"]["baseline"]
    assert after["bad"] == before["bad"] if "bad" in before else after.keys() == before.keys()
    assert all(rollup.document["failures"] == 0 for rollup in world.of(fx.PutRollup))
    assert world.engine.tutor.cards == {}


@pytest.mark.parametrize(("kind", "detector"), [("surge", "surge"), ("bad-config", "refusals")])
def test_drills_that_touch_no_request_are_found_too(kind: str, detector: str) -> None:
    """
    Detection alone is shown them; the config that is no config is named and never rolled back.
    """
    world = warm().run(400)
    start(world, kind, 60.0)
    assert world.faults == set()
    world.until(lambda: world.engine.incidents(None, world.now), 60)
    incident = world.incident()
    assert detector in [signal["detector"] for signal in incident["signals"]]
    world.until(lambda: drill(world)["state"] not in ("injecting", "recovering"), 600)
    assert drill(world)["state"] == "passed", drill(world)
    assert world.of(fx.Rollback) == []
    if kind == "bad-config":
        assert stages(world)["blamed"]
        assert world.engine._book.versions[-1].source != "drill"


def test_stop_ends_the_fault_at_once() -> None:
    """
    The next second is served by the API again; what was isolated is given back.
    """
    world = warm()
    start(world)
    world.run(6)
    assert isinstance(practise(world, StopDrill("ops")), Done)
    assert world.faults == set()
    assert drill(world)["why"] == "stopped by ops"
    world.until(lambda: drill(world)["state"] in ("passed", "failed"), 400)


def test_real_trouble_ends_a_drill() -> None:
    """
    Another route fails for real: the fault ends at once, and the drill has no grade.
    """
    world = warm()
    start(world, for_s=120.0)
    world.run(5)
    break_route(world, "search", 1.0)
    world.until(lambda: drill(world)["state"] == "aborted", 20)
    assert world.faults == set()
    assert "is real" in drill(world)["why"]
    incident = world.engine.incidents(None, world.now)[0]
    assert (incident["scope"], incident["drill"]) == ("service", False)
    assert [alert.kind for alert in world.alerts() if alert.urgent] == ["escalated"]


def test_trouble_elsewhere_is_no_part_of_a_drill() -> None:
    """
    One of four routes fails during the drill of another one: an incident of its own, and the drill's stays a drill.
    """
    world = warm(*(Flow(route, "c", 20.0) for route in ("checkout", "search", "cart", "login")))
    start(world, for_s=120.0)
    world.run(5)
    break_route(world, "search", 1.0)
    world.until(lambda: drill(world)["state"] == "aborted", 20)
    real, practised = world.engine.incidents(None, world.now)
    assert (real["scope"], real["drill"]) == ("route:search", False)
    assert (practised["scope"], practised["drill"]) == ("route:checkout", True)


def test_what_still_fades_is_not_taken_for_a_drill_s_detection() -> None:
    """
    While a detector of the route has not cleared after what was before, no drill begins: it would be found at once.
    """
    world = warm()
    start(world, for_s=10.0)
    world.until(lambda: drill(world)["state"] == "passed", 400)
    answer = practise(world, StartDrill("latency", "checkout", 30.0, "ops"))
    assert isinstance(answer, Rejected)
    assert "has not cleared" in answer.problem


def test_a_second_incident_of_a_drill_is_the_drill_s() -> None:
    """
    The loop gives back too early and finds the fault again: the drill goes on, and is over when both incidents are.
    """
    world = warm()
    start(world, for_s=60.0)
    world.run(5)
    world.command(Release(1, "ops", ReleaseVerdict.NONE))
    world.engine._book.put_marks([])  # else the release holds for five minutes
    world.until(lambda: len(world.engine.incidents(None, world.now)) == 2, 60)
    assert [row["drill"] for row in world.engine.incidents(None, world.now)] == [True, True]
    assert drill(world)["state"] == "injecting"
    world.until(lambda: drill(world)["state"] not in ("injecting", "recovering"), 400)
    assert drill(world)["state"] == "passed", drill(world)


def test_slow_answers_of_a_drill_are_slow_trials() -> None:
    """
    An isolation for latency gives nothing back while the drill delays: its trials are judged as detection sees them.
    """
    world = warm()
    start(world, "latency", 60.0)
    world.until(lambda: world.engine.incidents(None, world.now), 40)
    world.command(Confirm(1, "ops"))
    assert world.live()
    world.until(lambda: drill(world)["state"] == "recovering", 90)
    assert not [e for e in world.of(fx.AppendEvent) if e.kind == "isolation.ramped"]


def test_a_second_drill_is_graded_like_the_first() -> None:
    """
    A drill that follows another one opens an incident of its own: the old one is not reopened by it.
    """
    world = warm()
    for number in (1, 2):
        start(world)
        world.until(lambda: drill(world)["state"] not in ("injecting", "recovering"), 400)
        world.until(lambda: not sounds(world), 400)
        assert (drill(world)["state"], drill(world)["id"], drill(world)["incident"]) == ("passed", number, number)


def sounds(world: World, route: str = "checkout") -> bool:
    """Tell whether a detector of *route* is in alarm, or has not cleared."""
    standing = [state for (name, _), state in world.engine._bank.states().items() if name == route]
    return "alarm" in standing or "recovering" in standing


def test_real_trouble_after_a_drill_pages() -> None:
    """
    The route that was drilled a minute ago breaks: that is an incident of its own, no flap of the drill's.
    """
    world = warm()
    start(world)
    world.until(lambda: drill(world)["state"] == "passed", 400)
    world.effects.clear()
    break_route(world)
    world.until(lambda: [alert for alert in world.alerts() if alert.urgent], 30)
    incident = world.engine.incidents(None, world.now)[0]
    assert (incident["id"], incident["drill"], incident["flaps"]) == (2, False, 0)


def test_real_trouble_on_the_drilled_route_makes_its_incident_real() -> None:
    """
    While the loop recovers from the drill the API fails for real: the drill has no grade, and the incident pages.
    """
    world = warm()
    start(world, for_s=10.0)
    world.until(lambda: drill(world)["state"] == "recovering", 30)
    world.effects.clear()
    break_route(world)
    world.until(lambda: drill(world)["state"] == "aborted", 60)
    incident = world.engine.incidents(None, world.now)[0]
    assert (incident["id"], incident["drill"]) == (1, False)
    assert any(alert.urgent for alert in world.alerts())


def test_real_trouble_pages_though_the_controller_has_forgotten_the_drill() -> None:
    """
    A new controller finds an incident that is marked; its route fails for real: it is one like any other, and pages.
    """
    world = warm()
    start(world, for_s=60.0)
    world.run(5)
    world.faults.clear()  # a worker ends a fault that no controller wants
    break_route(world)
    world.restart()
    world.effects.clear()
    world.until(lambda: [alert for alert in world.alerts() if alert.urgent], 60)
    kinds = [event.kind for event in world.of(fx.AppendEvent)]
    assert (world.incident()["drill"], kinds.count("drill.forgotten")) == (False, 1)


def test_a_drill_needs_a_quiet_moment_and_some_traffic() -> None:
    """
    Not during an incident, not beside another drill, not on a route without traffic, not longer than ten minutes.
    """

    def refused(world: World, command: Practice) -> str:
        answer = practise(world, command)
        assert isinstance(answer, Rejected)
        return answer.problem

    assert "is open" in refused(broken(), StartDrill("errors", "checkout", 30.0, "ops"))
    world = warm(Flow("checkout", "c", 20.0), Flow("idle", "c", 0.1))
    assert "requests a second" in refused(world, StartDrill("errors", "idle", 30.0, "ops"))
    assert "no route" in refused(world, StartDrill("errors", "nowhere", 30.0, "ops"))
    assert "not possible" in refused(world, StartDrill("errors", "checkout", 3600.0, "ops"))
    assert "detect.surge cannot run" in refused(world, StartDrill("surge", "checkout", 60.0, "ops"))
    assert "no drill runs" in refused(world, StopDrill("ops"))
    start(world)
    assert "is injecting" in refused(world, StartDrill("errors", "checkout", 30.0, "ops"))


def listening(mode: Mode, *detectors: Detector) -> Compiled:
    """Return a config in which these detectors have that mode, and checkout a breaker."""
    guards = GuardPolicy(routes={"checkout": RoutePolicy("checkout", breaker=BreakerPolicy())})
    return replace(compiled(("checkout", "search")), listen=ListenPolicy(dict.fromkeys(detectors, mode)), guard=guards)


@pytest.mark.parametrize(("mode", "word"), [(Mode.OBSERVE, "only observes"), (Mode.OFF, "is off")])
def test_no_drill_before_detectors_that_are_not_listened_to(mode: Mode, word: str) -> None:
    """
    It would fail on every stage and blame a receiver: it is refused, with the setting.
    """
    world = warm(config=listening(mode, Detector.ERRORS, Detector.TRIP))
    answer = practise(world, StartDrill("errors", "checkout", 30.0, "ops"))
    assert isinstance(answer, Rejected)
    assert f"detect.errors:checkout {word} by the config and detect.trip:checkout {word}" in answer.problem
    assert answer.hint == "set detect.detectors.errors to enforce and apply it"


def test_no_drill_before_detectors_that_are_demoted() -> None:
    """
    Without a breaker nothing trips, so that the one detector that could find it must be promoted first.
    """
    world = warm()
    world.engine.command(Demote("detect.errors:checkout", "ops"), world.now)
    answer = practise(world, StartDrill("errors", "checkout", 30.0, "ops"))
    assert isinstance(answer, Rejected)
    assert answer.problem == "nobody would be told: detect.errors:checkout is demoted"
    assert answer.hint == "sidecar control promote detect.errors:checkout"


def test_an_alarm_that_nobody_hears_does_not_hold_a_drill_up() -> None:
    """
    It can raise nothing that would be taken for the drill's detection.
    """
    world = warm(config=listening(Mode.OBSERVE, Detector.ERRORS))
    break_route(world)
    world.run(5)
    break_route(world, fail=0.0)
    world.second()
    assert sounds(world)
    start(world)


def test_a_would_have_incident_is_not_the_drill_s() -> None:
    """
    The drill is graded by what the detectors raise that are listened to, which people are told of.
    """
    world = warm(config=listening(Mode.OBSERVE, Detector.ERRORS))
    start(world)
    world.run(3)
    assert [row["observed"] for row in world.engine.incidents(None, world.now)] == [True]
    assert drill(world)["incident"] is None
    world.trip("checkout")
    world.run(2)
    assert world.incident(drill(world)["incident"])["observed"] is False
    assert stages(world)["told"]


def test_a_detector_that_only_observes_ends_no_drill() -> None:
    """
    What it says of another route is raised by nobody, and so it is no real trouble.
    """
    world = warm(config=listening(Mode.OBSERVE, Detector.ERRORS))
    start(world)
    break_route(world, "search")
    world.run(5)
    assert [row["scope"] for row in world.engine.incidents(None, world.now) if row["observed"]]
    assert drill(world)["state"] == "injecting"
