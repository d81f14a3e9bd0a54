"""What people say to the engine: verdicts, acknowledgements, notes, overrides; and what sticks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.controller import effects as fx
from sidecar.controller.commands import (
    Acknowledge,
    ClearOverride,
    Close,
    CloseBreaker,
    Command,
    Confirm,
    Done,
    Note,
    Rejected,
    RejectedKind,
    Release,
    ReleaseVerdict,
    SetOverride,
)
from sidecar.decide.policies import LadderStep, Response, Rung
from sidecar.facts import Action, Scope
from tests.support.plays import OUTAGE_S, break_route, broken, warm
from tests.support.world import QUICK, World, compiled

FALSE, BENIGN, NONE = ReleaseVerdict.FALSE_POSITIVE, ReleaseVerdict.BENIGN, ReleaseVerdict.NONE
ROUTES = ("checkout", "search")


def override(scope: str = "route:checkout", action: Action = Action.ISOLATE, **given: Any) -> SetOverride:
    """A valid override, varied by the test."""
    fields = {"ttl_s": 30.0, "reason": "the database is moved", "author": "ops"} | given
    return SetOverride(Scope.parse(scope), action, **fields)


def refused(world: World, command: Command) -> Rejected:
    """Give a command that must be refused; return the refusal."""
    before = len(world.effects)
    answer = world.command(command)
    assert isinstance(answer, Rejected)
    assert before == len(world.effects)  # a refused command changes nothing
    return answer


def document(world: World, command: Command) -> Any:
    """Give a command that must be done; return its document."""
    answer = world.command(command)
    assert isinstance(answer, Done)
    return answer.document


# --- overrides on an endpoint ------------------------------------------------------------------------------------------


def test_an_endpoint_takes_a_share_and_no_rate() -> None:
    """
    The pool spreads requests and refuses none: a rate would do nothing, so it is refused with what to type.
    """
    world = warm()
    endpoint = f"endpoint:{world.config.proxy.upstream.endpoints[0]}"
    answer = refused(world, override(endpoint, Action.THROTTLE, rate_per_s=5.0))
    assert (answer.kind, "cannot be throttled to a rate" in answer.problem) == (RejectedKind.INVALID, True)
    assert "throttle=25%" in answer.hint
    assert document(world, override(endpoint, Action.THROTTLE, share_ratio=0.25))["action"] == "throttle=25%"
    unknown = refused(world, override("endpoint:127.0.0.1:1", Action.ISOLATE))
    assert (unknown.kind, endpoint in unknown.hint) == (RejectedKind.NOT_FOUND, True)


# --- confirm ---------------------------------------------------------------------------------------------------------


def test_confirm_keeps_the_isolation_and_stops_the_ladder() -> None:
    """
    A confirmed isolation has a name behind it, outranks others, and nothing but recovery or a person ends it.
    """
    world = broken(config=compiled(ROUTES, respond=replace(QUICK, ladder=(Rung(10.0, LadderStep.RELEASE),))))

    incident = document(world, Confirm(1, "ops"))

    assert (incident["verdict"], incident["next_step"]) == ("confirmed", None)
    assert [(row["state"], row["owner"]) for row in incident["isolations"]] == [("confirmed", "ops")]
    assert [directive.confirmed for directive in world.directives] == [True]
    world.run(60)
    assert [row["state"] for row in world.live()] == ["confirmed"]


def test_a_confirmed_isolation_recovers_on_evidence_too() -> None:
    """
    Confirming says that it is real, not that it stays for ever.
    """
    world = broken()
    world.command(Confirm(1, "ops"))
    break_route(world, fail=0.0)

    world.until(lambda: world.incident()["state"] == "resolved", 60)

    assert (world.incident()["verdict"], world.incident()["resolution"]) == ("confirmed", "recovered")


def test_confirm_applies_the_proposed_isolation() -> None:
    """
    An incident that automation only observed is isolated when a person confirms it, with that person as owner.
    """
    world = warm(config=compiled(ROUTES, respond=replace(QUICK, action=Response.OBSERVE)))
    break_route(world)
    world.run(5)
    assert world.live() == []

    incident = document(world, Confirm(1, "ops"))

    (isolation,) = incident["isolations"]
    assert tuple(isolation[key] for key in ("scope", "action", "state", "owner")) == (
        "route:checkout",
        "throttle",
        "confirmed",
        "ops",
    )
    assert [isolation["id"]] == [directive.id for directive in world.directives]


def test_confirm_twice_is_done_once() -> None:
    """
    The same verdict again changes nothing and leaves no second event.
    """
    world = broken()
    world.command(Confirm(1, "ops"))

    world.command(Confirm(1, "ops"))

    assert world.kinds().count("verdict.confirmed") == 1


# --- release ---------------------------------------------------------------------------------------------------------


def test_a_false_positive_is_released_at_once_and_not_raised_again() -> None:
    """
    Traffic is free in the same moment, and the same fingerprint raises nothing while it is not worse.
    """
    world = warm()
    break_route(world, fail=0.3)
    world.until(lambda: world.engine.incidents(None, world.now), 10)
    world.run(10)

    incident = document(world, Release(1, "ops", FALSE, "a planned test"))
    assert tuple(incident[key] for key in ("state", "verdict", "resolution")) == (
        "resolved",
        "false_positive",
        "released",
    )
    assert world.directives == ()

    world.run(60)
    break_route(world, fail=0.0)
    world.run(120)
    break_route(world, fail=0.3)
    world.run(60)

    assert [row["id"] for row in world.engine.incidents(None, world.now)] == [1]
    assert "signal.silenced" in world.kinds()


def test_a_severe_signal_is_never_suppressed_and_quotes_the_old_verdict() -> None:
    """
    The same fingerprint returns with all requests failing: it is raised, isolated, and says what was said before.
    """
    world = warm()
    break_route(world, fail=0.3)
    world.until(lambda: world.engine.incidents(None, world.now), 10)
    world.command(Release(1, "ops", FALSE, "a planned test"))
    break_route(world, fail=0.0)
    world.run(120)
    break_route(world, fail=1.0)

    world.until(world.live, 6)

    incident = world.incident(2)
    assert incident["severity"] == "severe"
    assert "errors on route:checkout was called false_positive by ops" in incident["old_verdict"]


def test_a_release_holds_against_the_alarm_that_still_sounds() -> None:
    """
    A person releases a severe outage: automation does not isolate it again a second later.
    """
    for verdict in (FALSE, NONE):
        world = broken()

        world.command(Release(1, "ops", verdict))
        world.run(60)

        assert world.live() == []
        assert [row["state"] for row in world.engine.incidents(None, world.now)] == ["resolved"]


def test_a_false_positive_is_forgotten_after_a_day() -> None:
    """
    After 24 h the same fingerprint is a new incident.
    """
    world = warm()
    break_route(world, fail=0.3)
    world.until(lambda: world.engine.incidents(None, world.now), 10)
    world.command(Release(1, "ops", FALSE))
    break_route(world, fail=0.0)
    world.run(120)
    world.now = replace(world.now, at=world.now.at + 86_400, unix=world.now.unix + 86_400)
    world.run(30)
    break_route(world, fail=0.3)

    world.until(lambda: len(world.engine.incidents(None, world.now)) == 2, 20)


def test_benign_becomes_the_new_normal() -> None:
    """
    The detectors accept the shift: what was called benign is silent, also long after.
    """
    world = warm()
    break_route(world, fail=0.2)
    world.until(lambda: world.engine.incidents(None, world.now), 10)
    world.run(20)

    world.command(Release(1, "ops", BENIGN, "a client that always fails"))
    world.run(900)

    assert [row["verdict"] for row in world.engine.incidents(None, world.now)] == ["benign"]


def test_a_verdict_may_come_after_the_end() -> None:
    """
    A resolved incident still takes a verdict; a changed mind counts.
    """
    world = broken()
    break_route(world, fail=0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 60)

    assert document(world, Release(1, "ops", FALSE))["verdict"] == "false_positive"
    assert document(world, Confirm(1, "ops"))["verdict"] == "confirmed"
    assert (world.incident()["state"], world.incident()["resolution"]) == ("resolved", "recovered")


# --- acknowledge, note, close ----------------------------------------------------------------------------------------


def test_an_acknowledgement_that_goes_quiet_is_withdrawn() -> None:
    """
    Fifteen minutes without a word: the incident is open again, the ladder starts anew, people are told.
    """
    world = broken()
    assert document(world, Acknowledge(1, "ops"))["state"] == "acknowledged"
    world.run(800)
    document(world, Note(1, "ops", "looking at the database"))
    world.run(800)
    assert world.incident()["state"] == "acknowledged"

    world.until(lambda: world.incident()["state"] == "open", 120)

    assert "incident.acknowledgement_withdrawn" in world.kinds()
    assert world.alerts()[-1].kind == "escalated"
    assert world.incident()["next_step"] is not None


def test_an_acknowledgement_stops_the_ladder() -> None:
    """
    While a person looks, nothing is done over their head.
    """
    world = broken(config=compiled(ROUTES, respond=replace(QUICK, ladder=(Rung(10.0, LadderStep.RELEASE),))))
    world.command(Acknowledge(1, "ops"))

    world.run(30)

    assert len(world.live()) == 1
    assert world.incident()["next_step"] is None


def test_close_ends_the_work() -> None:
    """
    A resolved incident is closed; then only notes go on.
    """
    world = broken()
    assert "none ends its isolations first" in refused(world, Close(1, "ops")).hint
    world.command(Release(1, "ops", NONE))

    assert document(world, Close(1, "ops"))["state"] == "closed"
    assert RejectedKind.CONFLICT is refused(world, Confirm(1, "ops")).kind
    assert RejectedKind.CONFLICT is refused(world, Release(1, "ops", FALSE)).kind
    assert RejectedKind.CONFLICT is refused(world, Acknowledge(1, "ops")).kind
    document(world, Note(1, "ops", "the post-mortem is at …"))


@pytest.mark.parametrize(
    "command",
    [Acknowledge(9, "ops"), Confirm(9, "ops"), Release(9, "ops", FALSE), Note(9, "ops", "x"), Close(9, "ops")],
)
def test_an_unknown_incident_is_not_found(command: Command) -> None:
    """
    Every command on an unknown number says so and where to look.
    """
    answer = refused(World(), command)

    assert RejectedKind.NOT_FOUND is answer.kind
    assert (answer.problem, answer.hint) == ("there is no incident 9", "sidecar incident list shows all")


def test_a_release_without_anything_to_release_is_a_conflict() -> None:
    """
    Verdict `none` on an ended incident has nothing to do, and the hint names what would.
    """
    world = broken()
    world.command(Release(1, "ops", NONE))

    assert "--verdict false_positive" in refused(world, Release(1, "ops", NONE)).hint


def test_an_empty_note_is_invalid() -> None:
    """
    A note says something.
    """
    world = broken()

    assert RejectedKind.INVALID is refused(world, Note(1, "ops", "  ")).kind


# --- overrides and breakers --------------------------------------------------------------------------------------------


def test_an_override_is_in_force_until_its_end() -> None:
    """
    It is a directive with its end, shows who and why, and expires with an event.
    """
    world = World()

    made = document(world, override(ttl_s=10.0))

    assert tuple(made[key] for key in ("scope", "action", "author", "reason", "durable")) == (
        "route:checkout",
        "isolate",
        "ops",
        "the database is moved",
        True,
    )
    (directive,) = world.directives
    assert ("override-route:checkout", 0.0, world.now.at + 10) == (
        directive.id,
        directive.share_ratio,
        directive.end_at,
    )
    world.run(11)
    assert world.engine.overrides(world.now) == []
    (ended,) = [e for e in world.of(fx.AppendEvent) if e.kind == "override.ended"]
    assert ended.body["why"] == "expired"


def test_a_newer_override_replaces_the_older_one_on_its_scope() -> None:
    """
    One scope has one override; the end of the older one is in the timeline.
    """
    world = World()
    world.command(override())

    world.command(override(action=Action.THROTTLE, rate_per_s=5.0))

    assert [row["action"] for row in world.engine.overrides(world.now)] == ["throttle=5/s"]
    assert world.kinds() == ["override.set", "override.ended", "override.set"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"reason": " "}, "needs a reason"),
        ({"author": ""}, "needs an author"),
        ({"ttl_s": 0.0}, "ttl"),
        ({"ttl_s": 31 * 86_400.0}, "ttl"),
        ({"action": Action.THROTTLE}, "throttle needs one rate or one share"),
        ({"action": Action.THROTTLE, "rate_per_s": 1.0, "share_ratio": 0.1}, "throttle needs one rate or one share"),
        ({"rate_per_s": 1.0}, "throttle needs one rate or one share"),
        ({"action": Action.THROTTLE, "rate_per_s": 0.0}, "lets nothing pass"),
        ({"action": Action.THROTTLE, "share_ratio": 1.0}, "throttles nothing or everything"),
        ({"reason": "x" * 3000}, "3000 characters"),
    ],
)
def test_an_override_without_what_it_needs_is_invalid(given: dict[str, Any], words: str) -> None:
    """
    Author, reason, a possible ttl and one amount: what is missing is named, nothing changes.
    """
    answer = refused(World(), override(**given))

    assert RejectedKind.INVALID is answer.kind
    assert words in answer.problem


def test_an_override_on_an_unknown_route_names_the_known_ones() -> None:
    """
    A typo in the scope is not set and forgotten.
    """
    answer = refused(World(), override(scope="route:chekcout"))

    assert (answer.kind, answer.hint) == (RejectedKind.NOT_FOUND, "the routes are checkout")


def test_clearing_ends_an_override_at_once() -> None:
    """
    It leaves the directives, and its end has an author.
    """
    world = World()
    world.command(override())

    document(world, ClearOverride(Scope.route("checkout"), "lea"))

    assert world.directives == ()
    assert (world.of(fx.AppendEvent)[-1].kind, world.of(fx.AppendEvent)[-1].author) == ("override.ended", "lea")
    assert RejectedKind.NOT_FOUND is refused(world, ClearOverride(Scope.route("checkout"), "lea")).kind


@pytest.mark.parametrize("scope", ["route:checkout", "service"])
def test_allow_keeps_automation_away(scope: str) -> None:
    """
    Under an `allow` on the scope or around it nothing is isolated; the incident says why.
    """
    world = warm()
    world.command(override(scope=scope, action=Action.ALLOW, ttl_s=600.0))
    break_route(world)
    world.run(10)

    assert world.live() == []
    assert world.incident()["not_isolated_because"] == "an override keeps automation away"


def test_a_breaker_is_reset_by_hand() -> None:
    """
    The command reaches every worker and the audit; an unknown route is refused.
    """
    world = World()

    assert document(world, CloseBreaker("checkout", "ops")) == {"route": "checkout", "breaker": "closed"}
    assert [fx.ResetBreaker("checkout")] == world.of(fx.ResetBreaker)
    assert RejectedKind.NOT_FOUND is refused(world, CloseBreaker("nowhere", "ops")).kind


def test_a_release_beats_the_next_second() -> None:
    """
    The effects of a release begin with the directives: containment and its end never wait for the disk.
    """
    world = broken()
    world.effects.clear()

    world.command(Release(1, "ops", NONE))

    assert isinstance(world.effects[0], fx.SetDirectives)
    assert OUTAGE_S  # the world was isolated before
