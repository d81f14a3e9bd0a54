"""What verdicts do to the detectors of a running engine: thresholds, scorecards, demotion and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.controller import effects as fx
from sidecar.controller.commands import (
    Confirm,
    Demote,
    Done,
    Missed,
    Promote,
    Rejected,
    RejectedKind,
    Release,
    ReleaseVerdict,
    Teaching,
    Tune,
)
from sidecar.controller.tutor import MARK_SCORECARDS
from sidecar.decide.policies import ListenPolicy
from sidecar.detect.policies import DetectPolicy
from sidecar.facts import Detector, Mode, Moment
from tests.support.plays import break_route, broken, warm
from tests.support.world import World, compiled

FALSE = ReleaseVerdict.FALSE_POSITIVE
KEY = ("checkout", Detector.ERRORS)
NAME = "detect.errors:checkout"
DAY_S = 86_400.0


def teach(world: World, command: Teaching) -> Done | Rejected:
    """Give a command of this kind."""
    answer, effects = world.engine.command(command, world.now)
    world.take(effects)
    return answer


def offset(world: World) -> float:
    return world.engine.tutor.tuning.offset(*KEY)


def control(world: World) -> dict[str, Any]:
    """Return the inventory's row of the error detector."""
    return next(row for row in world.engine.controls(world.now) if row.get("id") == NAME)


def judged_false(world: World, times: int) -> None:
    """Let people call the route's first incident, and made-up later ones, false."""
    world.command(Release(1, "ops", FALSE))
    from sidecar.incident.scorecard import Judgement

    card = world.engine.tutor.cards[KEY]
    for number in range(100, 100 + times - 1):
        card = card.judge(Judgement(number, "false_positive", world.now.unix, 1.0, 1, 0.0))
    world.engine.tutor.cards[KEY] = card


def test_a_confirmation_makes_its_detector_a_little_keener() -> None:
    """
    The threshold of the route's detector falls by 0.1, once, however often it is said.
    """
    world = broken()
    world.command(Confirm(1, "ops"))
    world.command(Confirm(1, "ops"))
    assert offset(world) == pytest.approx(-0.1)
    assert control(world)["record"]["confirmed"] == 1


def test_a_false_positive_waits_for_the_replay() -> None:
    """
    The threshold rises only when the replayed history says that nothing confirmed would have been hidden.
    """
    world = broken()
    world.command(Release(1, "ops", FALSE))
    assert offset(world) == 0.0
    teach(world, Tune(1, "checkout", Detector.ERRORS, 2, 1))
    assert offset(world) == 0.0
    assert "detect.tuning_withheld" in world.kinds()
    teach(world, Tune(1, "checkout", Detector.ERRORS, 2, 0))
    assert offset(world) == pytest.approx(0.9)
    assert "detect.tuned" in world.kinds()
    assert isinstance(teach(world, Tune(1, "checkout", Detector.ERRORS, 2, 0)), Rejected)


def test_a_changed_verdict_takes_its_step_back() -> None:
    """
    It was real after all: up comes down, and then a little further.
    """
    world = broken()
    world.command(Release(1, "ops", FALSE))
    teach(world, Tune(1, "checkout", Detector.ERRORS, 0, 0))
    assert not any(row.real for row in world.engine.tutor.sizes.rows)
    world.command(Confirm(1, "ops"))
    assert offset(world) == pytest.approx(-0.1)
    assert all(row.real for row in world.engine.tutor.sizes.rows)


def burst(world: World, seconds: int = 6, fail: float = 0.3) -> int:
    """Let a part of the route's requests fail for some seconds, then calm; return how many incidents there are."""
    break_route(world, "checkout", fail)
    world.run(seconds)
    break_route(world, "checkout", 0.0)
    world.run(90)
    return len(world.engine.incidents(None, world.now))


def test_a_trigger_that_was_called_false_is_silent_until_it_outgrows_itself() -> None:
    """
    For good, not for a day: the same burst two days later is told to nobody, the events say why, and a longer one is told.
    """
    world = warm()
    assert burst(world) == 1
    world.command(Release(1, "ops", FALSE))
    world.now = Moment(world.now.at + 2 * DAY_S, world.now.unix + 2 * DAY_S)  # no mark is in force any more
    world.run(30)
    assert burst(world) == 1
    silenced = [event for event in world.of(fx.AppendEvent) if event.kind == "signal.silenced"]
    assert "called false in incident 1" in silenced[-1].body["because"]
    assert control(world)["record"]["silent"][0]["quieted"] == 1
    assert f"as false as incident 1, 1 since; told again with: sidecar control missed {NAME}" in control(world)["why"]
    assert burst(world, seconds=40) == 2


def test_within_a_day_too_nothing_as_large_as_a_confirmed_one_is_silent() -> None:
    """
    A short burst was real, a long one was called false: a long one an hour later is told, its mark notwithstanding.
    """
    world = warm()
    assert burst(world, seconds=12) == 1
    world.command(Confirm(1, "ops"))
    world.now = Moment(world.now.at + 3600.0, world.now.unix + 3600.0)
    world.run(30)
    assert burst(world, seconds=40) == 2
    world.command(Release(2, "ops", FALSE))
    world.now = Moment(world.now.at + 3600.0, world.now.unix + 3600.0)
    world.run(30)
    assert [mark.verdict for mark in world.engine.tutor._book.marks] == ["false_positive"]
    assert burst(world, seconds=40) == 3


def test_within_a_day_too_five_minutes_of_harm_are_told() -> None:
    """
    Twenty minutes were called false: of the same again people are told when five of them have passed, not before.
    """
    world = warm()
    burst(world, seconds=1200, fail=0.1)
    world.command(Release(1, "ops", FALSE))
    known = len(world.engine.incidents(None, world.now))
    world.now = Moment(world.now.at + 3600.0, world.now.unix + 3600.0)
    world.run(30)
    break_route(world, "checkout", 0.1)
    world.run(280)
    assert len(world.engine.incidents(None, world.now)) == known
    world.run(60)
    assert len(world.engine.incidents(None, world.now)) == known + 1


def test_what_was_confirmed_while_it_went_on_is_measured_at_its_end() -> None:
    """
    A word in the third second does not make everything from that size on an incident.
    """
    world = warm()
    break_route(world, "checkout", 0.3)
    world.until(lambda: world.engine.incidents(None, world.now), 20)
    world.command(Confirm(1, "ops"))
    early = world.engine.tutor.sizes.rows[0].excess
    world.run(20)
    break_route(world, "checkout", 0.0)
    world.run(90)
    assert world.engine.tutor.sizes.rows[0].excess > 3 * early > 0.0
    assert world.engine.tutor.sizes.rows[0].real


def test_a_miss_forgets_what_was_called_false() -> None:
    """
    Somebody missed an incident: nothing is silent there any more because of its size.
    """
    world = warm()
    burst(world)
    world.command(Release(1, "ops", FALSE))
    assert world.engine.tutor.sizes.rows
    teach(world, Missed(NAME, "ops"))
    assert not world.engine.tutor.sizes.rows


def test_a_miss_tells_the_next_burst_within_the_day() -> None:
    """
    What the inventory says lifts the silence does so at once, whatever mark the verdict left.
    """
    world = warm()
    burst(world)
    world.command(Release(1, "ops", FALSE))
    world.now = Moment(world.now.at + 3600.0, world.now.unix + 3600.0)
    world.run(30)
    assert burst(world) == 1
    teach(world, Missed(NAME, "ops"))
    assert burst(world) == 2


def test_a_miss_tells_what_still_sounds() -> None:
    """
    An alarm that was called false by mistake is told again in the next seconds; a miss elsewhere says nothing of it.
    """
    world = warm()
    break_route(world, "checkout", 0.3)
    world.run(20)
    world.command(Release(1, "ops", FALSE))
    world.run(10)
    teach(world, Missed("detect.errors:search", "ops"))
    world.run(5)
    assert len(world.engine.incidents(None, world.now)) == 1
    teach(world, Missed(NAME, "ops"))
    world.run(5)
    assert len(world.engine.incidents(None, world.now)) == 2


def test_a_miss_makes_it_much_keener() -> None:
    """
    −2, by a person's word; without a route, on all of them.
    """
    world = warm()
    answer = teach(world, Missed(NAME, "ops", "the outage of 03:12"))
    assert isinstance(answer, Done)
    assert offset(world) == pytest.approx(-2.0)
    assert "verdict.missed" in world.kinds()


def test_a_detector_that_is_wrong_too_often_is_demoted_visibly() -> None:
    """
    Five false positives: it only observes from then on, and the inventory says why and how to bring it back.
    """
    world = broken()
    judged_false(world, 5)
    world.command(Release(1, "ops", ReleaseVerdict.BENIGN))
    world.command(Release(1, "ops", FALSE))
    row = control(world)
    assert row["state"] == "observe"
    assert f"sidecar control promote {NAME}" in row["why"]
    assert "control.demoted" in world.kinds()


def test_a_demoted_detector_raises_what_it_would_have_and_tells_nobody() -> None:
    """
    It isolates nothing, pages nobody, and no rung is climbed; after the promotion it is listened to again.
    """
    world = warm()
    teach(world, Demote(NAME, "ops", "noisy"))
    break_route(world, "checkout", 1.0)
    world.run(400)
    (found,) = world.engine.incidents(None, world.now)
    assert (found["observed"], found["isolations"], found["not_isolated_because"]) == (True, [], "observe mode")
    assert (world.alerts(), world.live(), world.engine.status(world.now)["health"]) == ([], [], "ok")
    assert control(world)["record"]["demoted"]["would_have_raised"] == 1
    answer = teach(world, Promote(NAME, "ops"))
    assert isinstance(answer, Done)
    assert answer.document["items"][0]["shadow"]["would_have_raised"] == 1
    world.run(3)
    assert [row["observed"] for row in world.engine.incidents(None, world.now)] == [False, True]
    assert control(world)["record"]["demoted"] is None


def test_agreement_with_verdicts_stands_in_the_shadow_record() -> None:
    """
    What it would have raised and a person confirmed counts as right; so does what another detector raised at the time.
    """
    world = warm()
    teach(world, Demote(NAME, "ops", "noisy"))
    break_route(world, "checkout", 1.0)
    world.run(10)
    world.command(Confirm(1, "ops"))
    shadow = control(world)["record"]["demoted"]
    assert (shadow["confirmed"], shadow["false_positive"]) == (1, 0)
    assert "1 of 1 judged confirmed" in control(world)["why"]
    assert world.live() == []


@pytest.mark.parametrize("route", [True, False])
def test_the_config_lets_a_detector_observe_or_switches_it_off(*, route: bool) -> None:
    """
    `observe` makes would-have incidents, `off` nothing; a person cannot promote what the config says, and when it says
    `enforce` again, the detector raises.
    """
    modes = (lambda mode: ListenPolicy(routes={KEY: mode})) if route else (lambda mode: ListenPolicy({KEY[1]: mode}))
    world = warm(config=replace(compiled(("checkout", "search")), listen=modes(Mode.OBSERVE)))
    break_route(world, "checkout", 1.0)
    world.run(10)
    assert [row["observed"] for row in world.engine.incidents(None, world.now)] == [True]
    assert (control(world)["state"], control(world)["why"]) == (
        "observe", "observes by the config; would have raised 1 since",
    )  # fmt: skip
    refused = teach(world, Promote(NAME, "ops"))
    assert isinstance(refused, Rejected)
    assert refused.hint == f"set {'routes.checkout.' if route else ''}detect.detectors.errors and apply it"
    world.config = replace(world.config, listen=modes(Mode.OFF))
    world.apply(2)
    world.run(60)
    assert control(world)["state"] == "off"
    assert world.engine.heard == ()
    world.config = replace(world.config, listen=ListenPolicy())
    world.apply(3)
    world.run(10)
    assert world.engine.incidents(None, world.now)[0]["observed"] is False
    assert control(world)["state"] == "enforce"


def test_what_is_no_detector_is_a_conflict_or_unknown() -> None:
    """
    The message says which setting to change, which routes there are, or where the names are.
    """
    world = warm()
    for name, kind, words in (
        ("breaker:checkout", RejectedKind.CONFLICT, "set routes.checkout.breaker.mode"),
        ("limit.service", RejectedKind.CONFLICT, "set service.limit.mode"),
        ("respond.rollback", RejectedKind.CONFLICT, "set respond.rollback and apply"),
        ("nonsense", RejectedKind.NOT_FOUND, "control list"),
        ("errors", RejectedKind.NOT_FOUND, "detect.errors:ROUTE"),
        ("detect.errors:nowhere", RejectedKind.NOT_FOUND, "checkout"),
        ("detect.nonsense", RejectedKind.NOT_FOUND, "control list"),
    ):
        answer = teach(world, Promote(name, "ops"))
        assert isinstance(answer, Rejected)
        assert answer.kind is kind
        assert words in answer.hint


def test_every_control_that_is_no_detector_has_its_setting() -> None:
    """
    Whatever the inventory names is a detector, or says which setting decides its mode.
    """
    world = warm()
    names = {row["name"] for row in world.engine.controls(world.now)}
    for name in names:
        answer = teach(world, Promote(name, "ops"))
        assert isinstance(answer, Done) == name.startswith("detect."), name
        assert not isinstance(answer, Rejected) or answer.kind is RejectedKind.CONFLICT, name


def test_what_was_learnt_survives_a_restart() -> None:
    """
    Thresholds, floors, verdicts and demotions come back from the store.
    """
    world = broken()
    world.command(Confirm(1, "ops"))
    teach(world, Demote(NAME, "ops"))
    assert any(mark.key == MARK_SCORECARDS for mark in world.of(fx.PutMark))
    before = world.engine.tutor
    after = world.restart().engine.tutor
    assert after.tuning == before.tuning
    assert after.cards == before.cards
    assert after.demoted == {KEY}


def test_while_detection_only_observes_nobody_is_paged() -> None:
    """
    Under `detect.mode: observe` incidents are raised and told, none of them urgently.
    """
    config = compiled(("checkout", "search"), detect=DetectPolicy(mode=Mode.OBSERVE, warmup_s=10.0, clear_after_s=5.0))
    world = warm(config=config)
    break_route(world, "checkout", 1.0)
    world.run(10)
    assert world.alerts()
    assert not any(alert.urgent for alert in world.alerts())


def test_what_sounds_at_the_demotion_was_raised_before() -> None:
    """
    The alarm over which a detector was demoted is no would-have one.
    """
    world = broken()
    teach(world, Demote(NAME, "ops", "noisy"))
    world.run(5)
    shadow = control(world)["record"]["demoted"]
    assert (shadow["would_have_raised"], shadow["seconds"]) == (0, 5)


def observing(world: World) -> dict[str, Any]:
    """Return the shadow record of the error detector."""
    record: dict[str, Any] = control(world)["record"]["demoted"]
    return record


def test_a_shadow_record_survives_a_controller_that_leaves() -> None:
    """
    Since when it observes, how often and how long it would have sounded: all of it, though no verdict came meanwhile, and an
    alarm that goes on is no second one.
    """
    world = warm(config=replace(compiled(("checkout", "search")), listen=ListenPolicy(routes={KEY: Mode.OBSERVE})))
    break_route(world, "checkout", 1.0)
    world.run(10)
    before = observing(world)
    assert before["seconds"] > 1
    world.take(world.engine.leaving(world.now))
    world.restart()
    assert observing(world) == before
    world.second()
    after = observing(world)
    assert after == {**before, "seconds": before["seconds"] + 1}


def test_a_shadow_record_survives_a_kill() -> None:
    """
    When it began is stored at once, what it would have raised within a minute; the restart is not its beginning.
    """
    world = warm(config=replace(compiled(("checkout", "search")), listen=ListenPolicy(routes={KEY: Mode.OBSERVE})))
    break_route(world, "checkout", 1.0)
    world.until(lambda: control(world)["record"]["demoted"], 10)
    since = observing(world)["since_time"]
    world.restart()
    assert observing(world)["since_time"] == since
    world.run(65)
    seen = observing(world)["seconds"]
    world.restart()
    assert observing(world)["since_time"] == since
    assert seen - 60 < observing(world)["seconds"] <= seen


def test_what_did_not_change_is_not_stored_again() -> None:
    """
    A minute without an alarm writes no scorecard.
    """
    world = broken()
    teach(world, Demote(NAME, "ops"))
    break_route(world, "checkout", 0.0)
    world.run(120)
    stored = len([mark for mark in world.of(fx.PutMark) if mark.key == MARK_SCORECARDS])
    world.run(120)
    assert len([mark for mark in world.of(fx.PutMark) if mark.key == MARK_SCORECARDS]) == stored
