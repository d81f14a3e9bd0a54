"""Silences and runbooks on a running engine: nobody is paged, everything else goes on; and who did which step when."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.controller import effects as fx
from sidecar.controller.commands import AddSilence, Asking, Done, EndSilence, Note, Rejected, Tick
from sidecar.controller.engine import Restored
from sidecar.facts import Scope
from tests.support.plays import OUTAGE_S, break_route, broken, warm
from tests.support.world import World


def say(world: World, command: Asking) -> Any:
    """Give a command; return its document, or the refusal."""
    answer, effects = world.engine.command(command, world.now)
    world.take(effects)
    return answer.document if isinstance(answer, Done) else answer


def hush(world: World, scope: str = "route:checkout", ttl_s: float = 600.0) -> Any:
    return say(world, AddSilence(Scope.parse(scope), ttl_s, "the database moves", "ops"))


def told(world: World) -> list[tuple[str, bool]]:
    return [(alert.kind, alert.urgent) for alert in world.alerts()]


def kinds(world: World) -> list[str]:
    return [event.kind for event in world.of(fx.AppendEvent)]


def test_a_silence_keeps_pages_and_nothing_else() -> None:
    """
    The route is isolated and its incident opened as always; no message leaves, and the incident says why.
    """
    world = warm()
    made = hush(world)
    break_route(world)
    world.until(world.live, OUTAGE_S)
    world.run(5)
    incident = world.incident()
    assert (told(world), incident["silenced"]["id"], incident["state"]) == ([], made["id"], "open")
    assert "incident.silenced" in kinds(world)
    assert world.engine.silences()[0]["reason"] == "the database moves"


@pytest.mark.parametrize("by", ["its end", "a person"])
def test_what_still_runs_when_it_ends_is_told(by: str) -> None:
    """
    As loudly as it deserves then, once.
    """
    world = warm()
    made = hush(world, ttl_s=10.0)
    break_route(world)
    world.until(world.live, OUTAGE_S)
    if by == "a person":
        say(world, EndSilence(made["id"], "ops"))
    world.until(lambda: told(world), 15)
    world.run(5)
    assert told(world)[:1] == [("opened", True)]
    assert [kind for kind, _ in told(world)].count("opened") == 1
    assert world.incident()["silenced"] is None
    ended = next(event for event in world.of(fx.AppendEvent) if event.kind == "silence.ended")
    assert (ended.author, ended.body["why"]) == (("ops", "ended") if by == "a person" else ("automation", "expired"))


def test_what_ended_under_a_silence_is_not_told() -> None:
    """
    An incident that came and went while nobody wanted to hear of it stays unheard.
    """
    world = warm()
    hush(world, ttl_s=200.0)
    break_route(world)
    world.until(world.live, OUTAGE_S)
    break_route(world, fail=0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 120)
    world.run(200)
    assert told(world) == []


def test_who_was_paged_is_told_the_end() -> None:
    """
    A silence that is set during an incident keeps what follows, but not that it is over.
    """
    world = broken()
    world.run(2)
    before = len(told(world))
    assert before
    hush(world)
    break_route(world, fail=0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 120)
    assert told(world)[before:] == [("resolved", False)]


def test_another_scope_is_told() -> None:
    """
    A silence on one route keeps nothing about another one.
    """
    world = warm()
    hush(world, "route:search")
    break_route(world)
    world.until(world.live, OUTAGE_S)
    world.run(1)
    assert ("opened", True) in told(world)


def test_a_silence_survives_a_restart() -> None:
    """
    With its number, its end and its reason, within the same boot and in the next one.
    """
    world = warm()
    made = hush(world)
    marks = {write.key: write.text for write in world.of(fx.PutMark)}
    for boot in ("boot-1", "boot-2"):
        again = World(restored=Restored(marks=marks), at=5000.0 if boot == "boot-2" else world.now.at, boot=boot)
        (row,) = again.engine.silences()
        assert (row["id"], row["scope"], row["reason"]) == (made["id"], made["scope"], made["reason"])
        assert hush(again)["id"] == made["id"] + 1


def test_a_silence_needs_a_reason_and_a_possible_ttl() -> None:
    """
    Others will read it at 3 a.m.; it ends by itself; it is on something that exists.
    """
    world = warm()
    checkout = Scope.route("checkout")
    for command, problem in (
        (AddSilence(checkout, 60.0, " ", "ops"), "needs a reason"),
        (AddSilence(checkout, 0.0, "why", "ops"), "is not possible"),
        (AddSilence(checkout, 1e9, "why", "ops"), "is not possible"),
        (AddSilence(Scope.route("nowhere"), 60.0, "why", "ops"), "no route 'nowhere'"),
        (EndSilence(7, "ops"), "no silence 7"),
    ):
        answer = say(world, command)
        assert isinstance(answer, Rejected)
        assert problem in answer.problem
    assert world.engine.silences() == []


def test_a_step_of_the_runbook_is_ticked_with_name_and_time() -> None:
    """
    The incident and its timeline say who did it when; the same tick twice is one event, and it can be taken back.
    """
    world = broken()
    row = say(world, Tick(1, "lea", 2))["checklist"][1]
    assert (row["step"], row["done_by"], row["done_time"] is not None) == (2, "lea", True)
    say(world, Tick(1, "kim", 2))
    assert [(e.author, e.body["step"]) for e in world.of(fx.AppendEvent) if e.kind == "runbook.ticked"] == [("lea", 2)]
    say(world, Note(1, "lea", "half way"))
    assert [step["done_by"] for step in world.incident()["checklist"]][:3] == [None, "lea", None]
    assert say(world, Tick(1, "kim", 2, done=False))["checklist"][1]["done_by"] is None
    assert "runbook.unticked" in kinds(world)
    refused = say(world, Tick(1, "lea", 99))
    assert "has no step 99" in refused.problem
