"""Lines become seconds: idle ones are filled in, pauses are not."""

from __future__ import annotations

import pytest

from sidecar.measure import histogram
from sidecar.replay.seconds import InFlight, seconds
from sidecar.replay.tape import Line, TapeError


def line(t: float, route: str = "a", requests: int = 10, **more: object) -> Line:
    return Line(1, t, route, requests, 0, **more)  # type: ignore[arg-type]


def test_lines_of_one_second_belong_together() -> None:
    """
    Two routes with the same whole second are one second.
    """
    found = list(seconds([line(1.2), line(1.9, "b"), line(2.0)]))
    assert [(second.t, sorted(second.lines)) for second in found] == [(1.2, ["a", "b"]), (2.0, ["a"])]


def test_idle_seconds_are_filled_in() -> None:
    """
    A route that nobody called for three seconds was idle for three seconds.
    """
    assert [(s.t, len(s.lines)) for s in seconds([line(1.0), line(5.0)])] == [(1, 1), (2, 0), (3, 0), (4, 0), (5, 1)]


def test_a_pause_of_the_recording_is_no_silence() -> None:
    """
    After more than a minute without any line, nothing is said about the time in between.
    """
    assert [s.t for s in seconds([line(1.0), line(100.0)])] == [1.0, 100.0]


def test_two_lines_for_one_second_are_refused() -> None:
    """
    Nobody knows whether they add up.
    """
    with pytest.raises(TapeError, match=r"already \(line 1\)"):
        list(seconds([line(1.0), line(1.5)]))


def test_what_hangs_has_not_ended() -> None:
    """
    Arrivals that are still in flight are no successes; when they leave, they ended.
    """
    flight = InFlight()
    assert flight.ended(line(1.0, in_flight=2), 10) == 10
    assert flight.ended(line(2.0, in_flight=12), 10) == 0
    assert flight.ended(line(3.0, in_flight=0), 10) == 22


def test_the_youngest_are_in_flight() -> None:
    """
    Where a tape says only how many are in flight, they are the last that came: the least that their ages can be.
    """
    flight = InFlight()
    for t in (1.0, 2.0, 3.0):
        last = line(t, in_flight=25)
        flight.ended(last, 10)
    ages = flight.waiting(last)
    assert sum(ages.values()) == 25
    assert max(ages) == histogram.index(2.0 + 0.5 * 0.9)
    assert min(ages) == histogram.index(0.0625)


def test_a_recorded_age_is_believed() -> None:
    """
    `waiting` is taken as it is.
    """
    assert InFlight().waiting(line(1.0, in_flight=5, waiting={7: 1})) == {7: 1}
