"""All detectors of all routes behind one door."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest

from sidecar.detect.bank import POOL, Bank
from sidecar.detect.drift import DriftDetector
from sidecar.detect.policies import DetectPolicy, Objective
from sidecar.detect.watch import Watch
from sidecar.facts import Detector, Mode, RouteSecond, Scope
from tests.support.traffic import Traffic, first_claims, trained

T = TypeVar("T")


def test_a_cold_bank_says_what_each_detector_lacks() -> None:
    """
    The inventory has a row for each detector of each route, with the reason why one cannot run.
    """
    bank = Bank(DetectPolicy(), ["checkout"], 0.0)
    rows = {row.name: (row.state, row.why) for row in bank.inventory()}

    assert set(rows) == {f"detect.{detector.value}" for detector in Detector}
    assert rows["detect.errors"] == ("cannot run", "baseline cold, 0 of 300 requests")
    assert rows["detect.latency"] == ("cannot run", "baseline cold, 0 of 1000 requests")
    assert rows["detect.surge"] == ("cannot run", "forecast cold, 0 of 600 s")
    assert rows["detect.burn"] == ("cannot run", "no objective: the route has no `slo`")
    assert rows["detect.trip"] == ("enforce", "")


@pytest.mark.parametrize(("mode", "state"), [(Mode.OFF, "off"), (Mode.OBSERVE, "observe"), (Mode.ENFORCE, "enforce")])
def test_the_inventory_of_a_warm_route_is_its_mode(mode: Mode, state: str) -> None:
    """
    Once warm every detector is in the mode of the policy; drift needs a day, burn an objective.
    """
    traffic = Traffic(1)
    bank = trained(traffic, 900)
    bank.apply(DetectPolicy(mode=mode, objectives={"checkout": Objective(0.001)}), ["checkout"], traffic.at)

    rows = {row.name: row.state for row in bank.inventory()}
    drift = rows.pop("detect.drift")
    assert set(rows.values()) == {state}
    assert drift == (state if mode is Mode.OFF else "cannot run")


def test_off_claims_nothing_and_learns_nothing() -> None:
    """
    With `detect: off` an outage passes unseen.
    """
    traffic = Traffic(1)
    bank = trained(traffic, 600)
    bank.apply(DetectPolicy(mode=Mode.OFF), ["checkout"], traffic.at)
    traffic.error_ratio = 1.0

    assert first_claims(bank, traffic, 30) == {}


def test_observe_claims_as_enforce_does() -> None:
    """
    `observe` is about acting: the claims are the same.
    """
    traffic = Traffic(1)
    bank = trained(traffic, 600, DetectPolicy(mode=Mode.OBSERVE))
    traffic.error_ratio = 1.0

    assert Detector.ERRORS in first_claims(bank, traffic, 5)


def test_routes_are_independent() -> None:
    """
    One route's outage is claimed of that route only.
    """
    good, bad = Traffic(1, route="good"), Traffic(2, route="bad")
    bank = Bank(DetectPolicy(), ["good", "bad"], 1000.0)
    for i in range(620):
        bad.error_ratio = 1.0 if i >= 600 else 0.001
        bank.observe([good.second(), bad.second()], good.at)

    assert {str(signal.scope) for signal in bank.signals()} == {"route:bad"}


def test_unknown_routes_late_seconds_and_empty_calls_change_nothing() -> None:
    """
    A row of no route, a row that is not newer, and a second without rows leave the future as it is.
    """
    traffic = Traffic(3)
    bank, twin = trained(traffic, 300), trained(Traffic(3), 300)
    bank.observe([RouteSecond("nobody", traffic.at, failures=99)], traffic.at)
    bank.observe([RouteSecond("checkout", traffic.at - 5, failures=99)], traffic.at)
    bank.observe([], traffic.at + 0.5)

    assert bank.snapshot() == twin.snapshot()


def test_freezing_a_route_keeps_its_baseline() -> None:
    """
    A frozen route learns nothing, and goes on learning when it is let go.
    """
    traffic = Traffic(4)
    bank = trained(traffic, 1900)
    bank.freeze(["checkout"])
    first_claims(bank, traffic, 600)
    before = bank.snapshot()["checkout"]["errors"]["baseline"]
    first_claims(bank, traffic, 1200)
    held = bank.snapshot()["checkout"]["errors"]["baseline"]
    bank.freeze([])
    first_claims(bank, traffic, 1300)

    assert held["requests"] == before["requests"]
    assert bank.snapshot()["checkout"]["errors"]["baseline"]["requests"] > held["requests"]


def test_a_live_change_keeps_the_routes_that_stay() -> None:
    """
    Routes that stay keep what they learnt, new ones start cold, gone ones are forgotten.
    """
    traffic = Traffic(5)
    bank = trained(traffic, 900)
    bank.apply(DetectPolicy(), ["checkout", "new"], traffic.at)
    states = {route: state for (route, detector), state in bank.states().items() if detector is Detector.ERRORS}
    bank.apply(DetectPolicy(), ["new"], traffic.at)

    assert states == {"checkout": "normal", "new": "learning"}
    assert {row.route for row in bank.inventory()} == {"new"}


def quiet_bank(outage: bool) -> Bank:
    """Return a bank whose ten routes see one request in 100 s each, all failing at the end if *outage*."""
    names = [f"r{i}" for i in range(10)]
    bank = Bank(DetectPolicy(), names, 0.0)
    for second in range(5, 6001, 5):
        failing = outage and second > 5900
        rows = [
            RouteSecond(
                name, float(second), arrivals=1, successes=not failing, failures=failing, latency={60: 1}
            ) if (second + 10 * i) % 100 == 0 else RouteSecond(name, float(second))
            for i, name in enumerate(names)
        ]  # fmt: skip
        bank.observe(rows, float(second))
    return bank


def test_quiet_routes_are_judged_together() -> None:
    """
    Ten routes below a request a minute: none could tell within the hour, together they do in 100 s.
    """
    bank = quiet_bank(outage=True)

    assert len(bank.quiet) == 10
    assert [(s.detector, s.scope) for s in bank.signals()] == [(Detector.ERRORS, Scope.service())]
    assert "judged together" in {row.name: row.why for row in bank.inventory()}["detect.errors"]
    assert quiet_bank(outage=False).signals() == ()


def test_a_verdict_on_the_service_is_one_on_the_pool() -> None:
    """
    An empty route accepts the pool's present.
    """
    bank = quiet_bank(outage=True)
    bank.accept("", Detector.ERRORS)
    bank.accept("nobody", Detector.ERRORS)

    assert bank.signals() == ()


def test_a_shift_that_became_normal_is_told_once() -> None:
    """
    After 24 h of surge the bank names route and detector, once.
    """
    bank = Bank(DetectPolicy(), ["checkout"], 0.0)
    at = 0.0
    for i in range(10_000):
        at += 1.0 if i < 1300 else 10.0
        count = 10 if i < 1200 else 50 if i < 1300 else 500
        bank.observe([RouteSecond("checkout", at, arrivals=count)], at)

    (told,) = bank.take_rebaselined()
    assert (told.route, told.detector) == ("checkout", Detector.SURGE)
    assert bank.take_rebaselined() == ()


def test_a_snapshot_is_plain_json_and_has_the_same_future() -> None:
    """
    Through JSON and back, in the middle of an outage: every later signal is the same.
    """
    traffic = Traffic(6)
    bank = trained(traffic, 900)
    traffic.error_ratio, traffic.slow_factor = 0.5, 3.0
    first_claims(bank, traffic, 20)
    twin = Bank(DetectPolicy(), ["checkout"], 0.0)

    assert twin.restore(json.loads(json.dumps(bank.snapshot())), traffic.at) == ()
    for i in range(400):
        traffic.error_ratio = 0.5 if i < 50 else 0.001
        row = traffic.second()
        assert bank.observe([row], row.at) == twin.observe([row], row.at)
    assert bank.snapshot() == twin.snapshot()


def test_a_restart_later_or_in_another_boot_starts_where_it_was() -> None:
    """
    Restored on another clock, with hours in between, nothing is claimed and the route is not cold.
    """
    traffic, later = Traffic(7), Traffic(8, at=5.0)
    document = trained(traffic, 1800).snapshot()
    bank = Bank(DetectPolicy(), ["checkout"], 5.0)
    bank.restore(document, 5.0)

    assert first_claims(bank, later, 300) == {}
    assert bank.states()[("checkout", Detector.ERRORS)] == "normal"


@pytest.mark.parametrize("document", [{}, {"saved_at": 1.0}, {"saved_at": "x", "at": 1}])
def test_a_broken_snapshot_starts_cold(document: dict[str, object]) -> None:
    """
    What cannot be read is named and its route starts anew; a route that is gone is no fault.
    """
    bank = Bank(DetectPolicy(), ["checkout"], 0.0)

    assert bank.restore({"checkout": document, "gone": document}, 0.0) == ("checkout",)
    assert bank.restore({POOL: document}, 0.0) == (POOL,)
    assert bank.states()[("checkout", Detector.ERRORS)] == "learning"


def test_scores_are_parts_of_their_thresholds() -> None:
    """
    1 is where a test fires.
    """
    traffic = Traffic(9)
    bank = trained(traffic, 900)
    quiet = bank.scores()
    traffic.error_ratio = 1.0
    first_claims(bank, traffic, 3)

    assert all(0 <= score < 0.7 for score in quiet.values())
    assert bank.scores()[("checkout", Detector.ERRORS)] >= 1


def test_a_route_costs_at_most_17_5_kib() -> None:
    """
    Memory is constant: the tests of every second take 12.3 KiB a route after warm-up with full quarantines, the slow path 5.2 KiB more.
    """
    seconds = list(Traffic(10).seconds(1500))
    whole = _bytes_of(
        lambda: Watch(Scope.route("checkout"), DetectPolicy(), 1000.0), lambda w, s: w.observe(s, frozen=False), seconds
    )
    slow = _bytes_of(lambda: DriftDetector(DetectPolicy()), lambda d, s: d.observe(s, 1.0, held=False), seconds)

    assert whole - slow <= 12.3 * 1024
    assert slow <= 5.2 * 1024


def _feed(one: T, feed: Callable[[T, RouteSecond], None], seconds: Sequence[RouteSecond]) -> None:
    """Feed *one* with *seconds*."""
    for second in seconds:
        feed(one, second)


def _bytes_of(make: Callable[[], T], feed: Callable[[T, RouteSecond], None], seconds: Sequence[RouteSecond]) -> float:
    """Return the bytes of one of two that were fed with *seconds*."""
    _feed(make(), feed, seconds)  # what is made once, for all of them, is made now
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = [make() for _ in range(2)]
        for one in made:
            _feed(one, feed, seconds)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / len(made)
    finally:
        tracemalloc.stop()


def test_a_route_second_costs_at_most_200_us() -> None:
    """
    The median second of one route, in CPU time.
    """
    traffic = Traffic(11)
    bank = trained(traffic, 700)
    spent = []
    for second in list(traffic.seconds(500)):
        began = time.thread_time()
        bank.observe([second], second.at)
        spent.append(time.thread_time() - began)

    assert sorted(spent)[250] < 200e-6


def test_the_route_of_a_row_decides_not_its_place() -> None:
    """
    The order of the rows changes nothing.
    """
    one, two = Traffic(1, route="one"), Traffic(2, route="two")
    forth, back = (Bank(DetectPolicy(), ["one", "two"], 1000.0) for _ in range(2))
    for i in range(400):
        one.error_ratio = two.error_ratio = 0.3 if i > 350 else 0.001
        rows = [one.second(), two.second()]
        assert forth.observe(rows, one.at) == back.observe(rows[::-1], one.at)
    assert forth.signals()


def test_a_missing_second_is_tolerated() -> None:
    """
    With every fifth second missing an outage is found all the same, and nothing before it.
    """
    traffic = Traffic(12)
    bank = Bank(DetectPolicy(), ["checkout"], traffic.at)
    claims = []
    for i in range(920):
        traffic.error_ratio = 1.0 if i >= 900 else 0.001
        row = traffic.second()
        claims.append(bool(bank.observe([row], row.at)) if i % 5 else False)

    assert not any(claims[:900])
    assert claims[-1]


def test_a_skipped_second_given_whole_is_as_good() -> None:
    """
    Two seconds in one row (a skipped tick) count as both.
    """
    traffic = Traffic(13)
    bank = trained(traffic, 900)
    for _ in range(300):
        first, second = traffic.second(), traffic.second()
        row = replace(
            second, arrivals=first.arrivals + second.arrivals, successes=first.successes + second.successes,
            failures=first.failures + second.failures,
        )  # fmt: skip
        assert bank.observe([row], row.at) == ()
