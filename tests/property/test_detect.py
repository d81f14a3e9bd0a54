"""What holds for the detectors whatever they are fed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.detect.attribute import Scene, attribute
from sidecar.detect.bank import Bank
from sidecar.detect.census import Census
from sidecar.detect.fuse import fuse
from sidecar.detect.policies import DetectPolicy, Sensitivity
from sidecar.detect.recovery import Health, RecoveryTest
from sidecar.detect.series import Series
from sidecar.facts import ClientSecond, Detector, RouteSecond, Scope, Signal
from sidecar.measure.histogram import LAST

ROUTES = ("one", "two")
POLICY = DetectPolicy(warmup_s=1.0, clear_after_s=3.0, min_requests=5, sensitivity=Sensitivity.HIGH)
BUCKETS = st.dictionaries(st.integers(0, LAST), st.integers(1, 50), max_size=4)
CLIENTS = st.dictionaries(
    st.sampled_from(["a", "b", "2001:db8::/64", "_other"]),
    st.builds(ClientSecond, st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)),
    max_size=3,
)


@st.composite
def seconds(draw: st.DrawFn) -> RouteSecond:
    """Draw one second of any kind; its clock may step back, stand still or jump."""
    successes, failures = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    return RouteSecond(
        draw(st.sampled_from([*ROUTES, "unknown"])),
        draw(st.sampled_from([-50.0, 0.0, 1.0, 1.0, 1.0, 2.0, 9.0, 5000.0])),
        arrivals=draw(st.integers(0, 100)),
        successes=successes,
        failures=failures,
        refused=draw(
            st.dictionaries(st.sampled_from(["rate_limited", "breaker_open", "isolated"]), st.integers(0, 50))
        ),
        latency=draw(BUCKETS),
        waiting=draw(BUCKETS),
        clients=draw(CLIENTS),
        statuses={"reset": (failures, failures), "200": (successes, 0)},
        trips=draw(st.sampled_from([0, 0, 0, 0, 1])),
    )


def moved(row: RouteSecond, at: float) -> RouteSecond:
    """Return *row* at another moment."""
    names = ("arrivals", "successes", "failures", "refused", "latency", "waiting", "clients", "statuses", "trips")
    return RouteSecond(row.route, at, **{name: getattr(row, name) for name in names})


def play(bank: Bank, rows: Sequence[RouteSecond], at: float) -> tuple[list[tuple[Signal, ...]], float]:
    """Feed rows whose `at` is a step; return the signals of each and the last moment."""
    heard = []
    for i, row in enumerate(rows):
        at += row.at
        if i % 17 == 7:
            bank.version_applied(at, i)
        heard.append(bank.observe([moved(row, at)], at))
    return heard, at


TAPES = st.lists(seconds(), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(TAPES)
def test_no_input_crashes_and_the_same_input_gives_the_same_output(rows: list[RouteSecond]) -> None:
    """
    Any counts, any clock, any order of routes: no exception, finite scores, and twice the same.
    """
    first, second = (Bank(POLICY, ROUTES, 100.0) for _ in range(2))

    assert play(first, rows, 100.0) == play(second, rows, 100.0)
    assert all(0 <= score < 1e6 for score in first.scores().values())


@settings(max_examples=60, deadline=None)
@given(TAPES, TAPES)
def test_a_restored_bank_has_the_same_future(past: list[RouteSecond], future: list[RouteSecond]) -> None:
    """
    Snapshot, JSON, restore: from there on every signal and the memory itself are equal.
    """
    bank, twin = (Bank(POLICY, ROUTES, 100.0) for _ in range(2))
    play(bank, past, 100.0)
    document = bank.snapshot()
    saved_at = document["one"]["saved_at"]
    assert twin.restore(json.loads(json.dumps(document)), saved_at) == ()

    assert play(bank, future, saved_at) == play(twin, future, saved_at)
    assert bank.snapshot() == twin.snapshot()


@settings(max_examples=40, deadline=None)
@given(TAPES, st.randoms(use_true_random=False))
def test_any_permutation_is_survived(rows: list[RouteSecond], rng: object) -> None:
    """
    The same seconds in any order, with their own clock, are at worst left out.
    """
    stamped = [moved(row, 100.0 + i) for i, row in enumerate(rows)]
    rng.shuffle(stamped)  # type: ignore[attr-defined]
    bank = Bank(POLICY, ROUTES, 100.0)
    for row in stamped:
        bank.observe([row], row.at)

    assert isinstance(bank.signals(), tuple)


@settings(max_examples=60, deadline=None)
@given(TAPES)
def test_findings_are_sound(rows: list[RouteSecond]) -> None:
    """
    Whatever was fed: ratios within 0..1, a client only of its own route, and advice never acts.
    """
    bank, series, at = Bank(POLICY, ROUTES, 100.0), Series(), 100.0
    for row in rows:
        at += abs(row.at)
        second = moved(row, at)
        series.add([second], at)
        for finding in fuse(bank.observe([second], at), series, POLICY, at):
            found = finding.attribution
            assert 0 <= found.ratio <= 1
            assert 0 <= found.share_ratio <= 1
            assert 0 <= found.traffic_ratio <= 1
            assert finding.actionable <= bool(finding.agreeing)
            assert all(0 <= share.share_ratio <= 1 for shares in found.dimensions.values() for share in shares)


@settings(max_examples=100, deadline=None)
@given(TAPES, TAPES, st.sampled_from([Detector.ERRORS, Detector.LATENCY]))
def test_attribution_names_a_scope_of_the_claim(
    window: list[RouteSecond], before: list[RouteSecond], detector: Detector
) -> None:
    """
    The answer is the claimed route, one of its clients, or the service.
    """
    claim = Signal(detector, Scope.route("one"), 0.5, 0.001, 10, 20.0, 19.0, 0.0)
    scope = attribute(Scene(Census(window), Census(before)), claim).scope

    assert scope == Scope.service() or claim.scope.contains(scope)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20))
def test_recovery_never_calls_failing_trials_healthy(
    normal: float, incident: float, trials: list[tuple[int, int]]
) -> None:
    """
    No failing trial moves towards healthy and no good one towards broken, for any two ratios.
    """
    test = RecoveryTest(normal, incident)
    for good, bad in trials:
        before = test.score
        test.observe(good, 0)
        assert test.score >= before
        before = test.score
        test.observe(0, bad)
        assert test.score <= before
    assert test.health in Health
