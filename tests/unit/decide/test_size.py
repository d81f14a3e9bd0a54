"""What was called false is silent until it is outgrown; what was confirmed never is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sidecar.decide.size import KEPT, LONGEST_S, Size, Sizes, above, below
from sidecar.facts import Detector, Scope, Signal

CHECKOUT = Scope.route("checkout")
ERRORS = Detector.ERRORS


def said(incident: int, excess: float, *, real: bool = False, **given: object) -> Size:
    """A verdict on the route's errors."""
    return replace(Size(incident, CHECKOUT, ERRORS, real, excess), **given)  # type: ignore[arg-type]


def known(*rows: Size) -> Sizes:
    """Return what is known after these verdicts, each about an incident of its own."""
    sizes = Sizes()
    for row in rows:
        sizes = sizes.judged(row.incident, [row])
    return sizes


def signal(excess: float, **given: object) -> Signal:
    """An error signal of that size."""
    made = Signal(ERRORS, CHECKOUT, 0.3, 0.001, 60, 25.0, 20.0, 990.0, excess=excess)
    return replace(made, **given)  # type: ignore[arg-type]


def test_as_large_is_silent_and_larger_is_told() -> None:
    """
    18 failures were called false: 26 are within the error of counting, 27 are not.
    """
    sizes = known(said(1, 18.0))

    assert above(18.0) == pytest.approx(26.5, abs=0.1)
    assert sizes.silences(signal(26.0), CHECKOUT, 6.0) == said(1, 18.0)
    assert sizes.silences(signal(27.0), CHECKOUT, 6.0) is None


def test_the_largest_false_one_counts() -> None:
    """
    A smaller one later takes nothing back.
    """
    assert known(said(1, 18.0), said(2, 6.0)).floor(CHECKOUT, ERRORS) == above(18.0)


def test_nothing_as_large_as_a_confirmed_one_is_silent() -> None:
    """
    The smallest confirmed one is the ceiling, within the error of counting; without a false one nothing is silent.
    """
    assert known(said(1, 30.0, real=True)).floor(CHECKOUT, ERRORS) == 0.0
    assert known(said(1, 100.0), said(2, 50.0, real=True)).floor(CHECKOUT, ERRORS) == below(50.0) < 36.0


def test_what_broke_through_by_itself_is_no_ceiling() -> None:
    """
    A confirmed incident that was severe would be told at any size, however few requests an isolation left of it.
    """
    assert known(said(1, 18.0), said(2, 5.0, real=True, severe=True)).floor(CHECKOUT, ERRORS) == above(18.0)


def test_severe_long_or_uncounted_is_never_silent() -> None:
    """
    Half of all requests, five minutes of harm, or a claim without a size are told whatever was said before.
    """
    sizes = known(said(1, 1000.0))

    assert sizes.silences(signal(20.0), CHECKOUT, LONGEST_S) is not None
    assert sizes.silences(signal(20.0, severe=True), CHECKOUT, 6.0) is None
    assert sizes.silences(signal(20.0), CHECKOUT, LONGEST_S + 1) is None
    assert sizes.silences(signal(0.0), CHECKOUT, 6.0) is None


def test_another_scope_or_detector_is_another_thing() -> None:
    """
    What was false of a route says nothing of one of its clients, nor of its latency.
    """
    sizes = known(said(1, 18.0))

    assert sizes.silences(signal(5.0), Scope.client("checkout", "a"), 6.0) is None
    assert sizes.silences(signal(5.0, detector=Detector.LATENCY), CHECKOUT, 6.0) is None


def test_a_changed_verdict_replaces_the_old_one() -> None:
    """
    It was real after all; or it was benign, and never judged.
    """
    sizes = known(said(1, 18.0))

    assert sizes.judged(1, [said(1, 18.0, real=True)]).floor(CHECKOUT, ERRORS) == 0.0
    assert sizes.judged(1, []).rows == ()


def test_a_miss_forgets_what_was_called_false() -> None:
    """
    What was confirmed stays.
    """
    sizes = known(said(1, 18.0), said(2, 90.0, real=True))

    assert sizes.forgotten(sizes.rows).rows == (said(2, 90.0, real=True),)


def test_it_grows_until_it_ends() -> None:
    """
    A verdict in the middle counts with the size at the end.
    """
    assert known(said(1, 18.0)).grown(1, CHECKOUT, ERRORS, 40.0).floor(CHECKOUT, ERRORS) == above(40.0)


def test_what_would_be_silent_now_is_learnt() -> None:
    """
    Not what was severe, not what a confirmed one forbids, and not what was confirmed.
    """
    assert known(said(1, 18.0)).learnt(1, ERRORS)
    assert not known(said(1, 18.0, severe=True)).learnt(1, ERRORS)
    assert not known(said(1, 18.0), said(2, 20.0, real=True)).learnt(1, ERRORS)
    assert not known(said(1, 18.0, real=True)).learnt(1, ERRORS)
    assert not known(said(1, 18.0)).learnt(1, Detector.LATENCY)


def test_it_counts_what_it_keeps_quiet_and_survives_as_json() -> None:
    """
    The largest one is what is quoted, and what is counted.
    """
    sizes = known(said(1, 18.0), said(2, 6.0), said(3, 400.0, real=True))
    quoted = sizes.silences(signal(5.0), CHECKOUT, 6.0)
    assert quoted is not None

    sizes = sizes.counted(quoted)

    assert [row.quieted for row in sizes.rows] == [1, 0, 0]
    assert Sizes.from_json(json.loads(json.dumps(sizes.to_json()))) == sizes


def test_memory_is_bounded_and_the_confirmed_stay_longest() -> None:
    """
    Of more than `KEPT` rows the oldest false ones go.
    """
    sizes = known(said(0, 50.0, real=True), *(said(n, 10.0) for n in range(1, KEPT + 10)))

    assert len(sizes.rows) == KEPT
    assert sizes.rows[0] == said(0, 50.0, real=True)
    assert sizes.rows[1].incident == 11
