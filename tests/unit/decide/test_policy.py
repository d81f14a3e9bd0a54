"""May automation act? Each line of the table, alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.decide.budget import Load
from sidecar.decide.overrides import Override
from sidecar.decide.policies import RespondPolicy, Response
from sidecar.decide.policy import Case, Why, propose, proven_again, rule, sample_ratio
from sidecar.decide.sticky import make
from sidecar.facts import Action, ClientSecond, Detector, Mode, Moment, RouteSecond, Scope, ScopeKind, Signal

CHECKOUT = Scope.route("checkout")
NOW = Moment(1000.0, 1_800_000_000.0)


def signal(detector: Detector = Detector.ERRORS, **given: object) -> Signal:
    """A strong, material, severe signal on checkout: half of 100 requests fail."""
    strong = Signal(
        detector, CHECKOUT, value=0.5, baseline=0.001, sample=100, score=30.0, threshold=20.0, since_at=990.0,
        material=True, severe=True,
    )  # fmt: skip
    return replace(strong, **given)  # type: ignore[arg-type]


def case(*signals: Signal, **given: object) -> Case:
    """A severe case of these signals."""
    told = signals or (signal(),)
    return replace(Case(CHECKOUT, told, severe=True, agreed=False, sample=100), **given)  # type: ignore[arg-type]


MARK = make(signal(), CHECKOUT, "false_positive", 1, "ops", NOW)
ALLOW = Override(CHECKOUT, Action.ALLOW, "ops", "why", NOW, NOW)
NORMAL = RespondPolicy()


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (case(), Why.ACT),
        (case(severe=False, agreed=True), Why.ACT),
        (case(severe=False), Why.AGREEMENT),
        (case(signal(Detector.SURGE)), Why.CAUSE),
        (case(signal(Detector.SILENCE)), Why.CAUSE),
        (case(signal(Detector.REFUSALS)), Why.CAUSE),
        (case(signal(score=22.9)), Why.MARGIN),
        (case(signal(score=23.0)), Why.ACT),
        (case(signal(material=False)), Why.MATERIAL),
        (case(sample=19), Why.SAMPLE),
        (case(signal(Detector.TRIP, score=1.0, threshold=1.0), sample=0), Why.ACT),
        (case(signal(Detector.LATENCY)), Why.ACT),
        (case(signal(material=False, score=40.0), signal(Detector.LATENCY, score=20.5)), Why.MATERIAL),
    ],
)
def test_every_condition_alone_keeps_automation_away(told: Case, expected: Why) -> None:
    """
    The first condition that fails is the reason.
    """
    assert rule(told, NORMAL, Mode.ENFORCE) is expected


def test_people_and_modes_come_after_the_evidence() -> None:
    """
    Verdict, override, mode, action, budget: each keeps automation away from a perfect case.
    """
    assert rule(case(), NORMAL, Mode.ENFORCE, mark=MARK) is Why.VERDICT
    assert rule(case(), NORMAL, Mode.ENFORCE, override=ALLOW) is Why.OVERRIDE
    assert rule(case(), NORMAL, Mode.OBSERVE) is Why.MODE
    assert rule(case(), NORMAL, Mode.OFF) is Why.MODE
    assert rule(case(), replace(NORMAL, action=Response.OBSERVE), Mode.ENFORCE) is Why.MODE
    assert rule(case(), replace(NORMAL, max_refused_ratio=0.0), Mode.ENFORCE) is Why.BUDGET
    assert {why for why in Why if why.would} == {Why.OVERRIDE, Why.MODE, Why.BUDGET}


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.0, 0.1), (0.5, 0.1), (5.0, 0.1), (10.0, 0.1), (20.0, 0.05), (100.0, 0.01), (1000.0, 0.01)]
)
def test_the_sample_is_the_larger_of_one_percent_and_one_a_second(rate: float, expected: float) -> None:
    """
    At most a tenth, at least a hundredth.
    """
    assert sample_ratio(rate) == expected


def test_a_proposal_fits_the_action() -> None:
    """
    Throttle passes its share, isolate only the sample; what refusing cannot mend has none.
    """
    load = Load({"checkout": 1000.0})
    isolate = replace(NORMAL, action=Response.ISOLATE)

    throttled = propose(CHECKOUT, (signal(),), NORMAL, load, 10.0)
    isolated = propose(CHECKOUT, (signal(),), isolate, load, 10.0)

    assert throttled is not None
    assert isolated is not None
    assert (throttled.action, throttled.share_ratio) == (Action.THROTTLE, 0.1)
    assert (isolated.action, isolated.share_ratio) == (Action.ISOLATE, 0.01)
    assert propose(CHECKOUT, (signal(Detector.SILENCE),), NORMAL, load, 10.0) is None
    assert propose(CHECKOUT, (signal(Detector.REFUSALS),), NORMAL, load, 10.0) is None
    assert propose(Scope(ScopeKind.ENDPOINT, "h:1"), (signal(),), NORMAL, load, 10.0) is None


@pytest.mark.parametrize(
    ("row", "told", "after_s", "expected"),
    [
        (RouteSecond("checkout", 1001.0, successes=7, failures=3), signal(), 1.0, True),
        (RouteSecond("checkout", 1001.0, successes=8, failures=2), signal(), 1.0, False),
        (RouteSecond("checkout", 1001.0, successes=97, failures=3), signal(), 1.0, False),
        (RouteSecond("checkout", 1001.0, trips=1), signal(Detector.TRIP), 1.0, True),
        (RouteSecond("checkout", 1001.0, successes=9), signal(Detector.LATENCY), 9.0, False),
        (RouteSecond("checkout", 1001.0, successes=9), signal(Detector.LATENCY), 10.0, True),
        (RouteSecond("checkout", 1001.0, successes=9), signal(Detector.LATENCY, material=False), 10.0, False),
        (RouteSecond("checkout", 1001.0), signal(Detector.SILENCE, material=False), 10.0, True),
    ],
)
def test_new_harm_is_told_from_a_fading_alarm(row: RouteSecond, told: Signal, after_s: float, expected: bool) -> None:
    """
    Failures after the end count; a score that has not come down yet does not.
    """
    assert proven_again((told,), (row,), CHECKOUT, 1000.0, 1000.0 + after_s) is expected


def test_new_harm_is_judged_on_the_clients_own_requests() -> None:
    """
    Other clients' failures are not this client's.
    """
    scope = Scope.client("checkout", "c1")
    row = RouteSecond("checkout", 1001.0, failures=9, clients={"c2": ClientSecond(9, 9), "c1": ClientSecond(9, 0)})

    assert not proven_again((signal(),), (row,), scope, 1000.0, 1001.0)
