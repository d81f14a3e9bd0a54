"""Overrides as values: what workers, people and the store get of them."""

from __future__ import annotations

import json

import pytest

from sidecar.decide import overrides
from sidecar.decide.ladder import QUIET_S, due, gone_quiet
from sidecar.decide.overrides import Override
from sidecar.decide.policies import LadderStep, Rung
from sidecar.facts import Action, Moment, Scope

NOW, END = Moment(1000.0, 1_800_000_000.0), Moment(1060.0, 1_800_000_060.0)


def override(action: Action, rate: float | None = None, share: float | None = None, scope: str = "service") -> Override:
    """An override of one minute."""
    return Override(Scope.parse(scope), action, "ops", "why", NOW, END, rate, share)


@pytest.mark.parametrize(
    ("made", "text", "share", "rate"),
    [
        (override(Action.ISOLATE), "isolate", 0.0, None),
        (override(Action.THROTTLE, rate=20.0), "throttle=20/s", None, 20.0),
        (override(Action.THROTTLE, share=0.1), "throttle=10%", 0.1, None),
        (override(Action.ALLOW), "allow", None, None),
        (override(Action.OBSERVE), "observe", None, None),
    ],
)
def test_an_action_reads_as_it_was_typed(made: Override, text: str, share: float | None, rate: float | None) -> None:
    """
    The document has the operator's words, the directive the amounts.
    """
    assert overrides.document(made, durable=True)["action"] == text
    assert (made.directive.share_ratio, made.directive.rate_per_s) == (share, rate)
    assert not made.directive.bypass_breaker


def test_only_allow_and_observe_keep_automation_away_and_only_around_them() -> None:
    """
    A throttle by a person does not; an allow on one route says nothing about another.
    """
    allow = override(Action.ALLOW, scope="route:checkout")

    assert overrides.hands_off([allow], Scope.client("checkout", "c1")) is allow
    assert overrides.hands_off([allow], Scope.service()) is None
    assert overrides.hands_off([override(Action.ISOLATE)], Scope.service()) is None
    observe = override(Action.OBSERVE)
    assert overrides.hands_off([observe], Scope.route("search")) is observe


@pytest.mark.parametrize(("boot", "at"), [("b", 1060.0), ("other", 45.0)])
def test_an_override_survives(boot: str, at: float) -> None:
    """
    The same boot keeps its monotonic end; another one takes what is left by the wall clock.
    """
    stored = json.loads(json.dumps(overrides.to_store(override(Action.THROTTLE, rate=5.0), "b")))

    taken = overrides.from_store(stored, boot, Moment(5.0, NOW.unix + 20.0))

    assert taken.end.at == pytest.approx(at)
    assert (taken.action, taken.rate_per_s, taken.author) == (Action.THROTTLE, 5.0, "ops")


def test_rungs_are_due_at_their_time() -> None:
    """
    Exactly then, not before; an acknowledgement counts for fifteen minutes.
    """
    rung = Rung(300.0, LadderStep.ESCALATE)

    assert not due(rung, 1000.0, 1299.9)
    assert due(rung, 1000.0, 1300.0)
    assert gone_quiet(1000.0, 1000.0 + QUIET_S)
    assert not gone_quiet(1000.0, 999.0 + QUIET_S)
