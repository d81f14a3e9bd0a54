"""What verdicts do to the detectors of a running engine: thresholds, scorecards, demotion and back."""

from __future__ import annotations

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
from sidecar.facts import Detector
from tests.support.plays import break_route, broken, warm
from tests.support.world import World

FALSE = ReleaseVerdict.FALSE_POSITIVE
KEY = ("checkout", Detector.ERRORS)
NAME = "detect.errors:checkout"


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
    assert world.engine.tutor.tuning.floors
    world.command(Confirm(1, "ops"))
    assert offset(world) == pytest.approx(-0.1)
    assert KEY not in world.engine.tutor.tuning.floors


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


def test_a_demoted_detector_neither_raises_nor_isolates() -> None:
    """
    What it hears goes on its shadow record; after the promotion it is listened to again.
    """
    world = warm()
    teach(world, Demote(NAME, "ops", "noisy"))
    break_route(world, "checkout", 1.0)
    world.run(20)
    assert world.engine.incidents(None, world.now) == []
    assert control(world)["record"]["demoted"]["would_have_raised"] == 1
    answer = teach(world, Promote(NAME, "ops"))
    assert isinstance(answer, Done)
    world.run(3)
    assert len(world.engine.incidents(None, world.now)) == 1
    assert control(world)["record"]["demoted"] is None


def test_what_is_no_detector_is_a_conflict_or_unknown() -> None:
    """
    The message says which setting to change, which routes there are, or where the names are.
    """
    world = warm()
    for name, kind, words in (
        ("breaker:checkout", RejectedKind.CONFLICT, "routes.ROUTE.breaker.mode"),
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
