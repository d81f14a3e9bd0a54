"""Verdicts stick, and for how long, and what they do not suppress."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sidecar.decide import sticky
from sidecar.facts import Detector, Moment, Scope, Signal

CHECKOUT = Scope.route("checkout")
NOW = Moment(1000.0, 1_800_000_000.0)
DAY_S = 86_400.0


def signal(value: float = 0.02, **given: object) -> Signal:
    """A weak error signal: 2 % of 200 requests against 0.1 %."""
    weak = Signal(Detector.ERRORS, CHECKOUT, value, 0.001, 200, 25.0, 20.0, 990.0)
    return replace(weak, **given)  # type: ignore[arg-type]


def later(seconds: float) -> Moment:
    """Return the moment so many seconds after the verdict."""
    return Moment(NOW.at + seconds, NOW.unix + seconds)


def mark(verdict: str = "false_positive", sounding: bool = False, **given: object) -> sticky.Mark:
    """The mark of a verdict on that signal; its alarm has fallen silent since."""
    return replace(sticky.make(signal(**given), CHECKOUT, verdict, 4, "ops", NOW), sounding=sounding)


def test_the_same_again_is_bound_for_a_day() -> None:
    """
    Neither raised nor isolated for 24 h, then as new.
    """
    assert sticky.silences(mark(), signal(), later(DAY_S - 1))
    assert not sticky.binds(mark(), signal(), later(DAY_S))


def test_a_new_episode_is_judged_by_its_size_where_it_has_one() -> None:
    """
    While the judged alarm sounds it is silent however it grows; once it has paused, what counts requests is `size.py`'s.
    """
    judged = mark(excess=18.0)

    assert sticky.silences(replace(judged, sounding=True), signal(excess=4000.0), later(60))
    assert not sticky.silences(judged, signal(excess=5.0), later(60))
    assert sticky.silences(judged, signal(excess=0.0), later(60))
    assert sticky.binds(judged, signal(excess=5.0), later(60))


def test_other_verdicts_know_no_size() -> None:
    """
    What was called benign is silent for its ten minutes, as large as it may be.
    """
    assert sticky.silences(mark("benign"), signal(excess=4000.0), later(599))


def test_three_times_worse_in_logits_is_something_else() -> None:
    """
    2 % is 3.0 logits above 0.1 %; 88 % is three times that, 80 % is not.
    """
    assert sticky.effect(signal()) == pytest.approx(3.015, abs=0.01)
    assert sticky.binds(mark(), signal(0.80), later(60))
    assert not sticky.binds(mark(), signal(0.90), later(60))


def test_three_times_the_odds_are_worth_a_word() -> None:
    """
    What was called false at 2 % is silent at 5 %, is raised again at 6 %, and is not isolated before it is far worse.
    """
    assert sticky.silences(mark(), signal(0.05), later(60))
    assert not sticky.silences(mark(), signal(0.06), later(60))
    assert sticky.binds(mark(), signal(0.06), later(60))


def test_seconds_and_rates_are_compared_by_their_logarithms() -> None:
    """
    Twice as slow is worth the same at 10 ms and at 1 s.
    """
    fast = signal(0.02, baseline=0.01, unit="s")
    slow = signal(2.0, baseline=1.0, unit="s")

    assert sticky.effect(fast) == pytest.approx(sticky.effect(slow))


def test_a_severe_signal_is_never_suppressed() -> None:
    """
    A verdict on a weak signal does not bind a severe one; a verdict on a severe one binds its own episode only.
    """
    assert not sticky.binds(mark(), signal(severe=True), later(60))
    assert not sticky.binds(mark(severe=True), signal(severe=True), later(60))
    assert sticky.binds(mark(sounding=True, severe=True), signal(severe=True), later(60))


def test_the_judged_alarm_stays_judged_while_it_sounds() -> None:
    """
    Also when the mark has run out: the alarm that a person judged has not paused yet.
    """
    assert sticky.binds(mark("none", sounding=True), signal(), later(10 * DAY_S))


def test_none_lets_a_new_episode_be_told_but_not_isolated() -> None:
    """
    For five minutes automation does not isolate again what a person released; people are told.
    """
    assert sticky.binds(mark("none"), signal(), later(299))
    assert not sticky.silences(mark("none"), signal(), later(299))
    assert sticky.silences(mark("none", sounding=True), signal(), later(1))
    assert not sticky.binds(mark("none"), signal(), later(300))


def test_a_mark_survives_as_json() -> None:
    """
    Through JSON and back it is the same.
    """
    assert sticky.from_json(json.loads(json.dumps(sticky.to_json(mark())))) == mark()


def test_the_quote_says_what_who_and_when() -> None:
    """
    A new incident can quote it.
    """
    assert mark().quote == "errors on route:checkout was called false_positive by ops at 08:00:00Z (incident 4)"
    assert "was released by ops" in mark("none").quote


def test_an_effect_is_finite_at_both_ends() -> None:
    """
    0 and 1 have no logit; they are kept within the edges.
    """
    assert sticky.effect(signal(1.0, baseline=0.0)) == pytest.approx(18.42, abs=0.01)
