"""The timer wheel, on a clock that the test turns by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from sidecar.proxy.deadline import NEVER, SLOT_S, Timer, Wheel


class Play:
    """A wheel on a loop that never runs, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.loop = asyncio.new_event_loop()
        self.wheel = Wheel(self.loop, lambda: self.now)
        self.fired: list[tuple[str, float]] = []

    def timer(self, name: str, then: Callable[[], None] | None = None) -> Timer:
        def expired(now: float) -> None:
            self.fired.append((name, now))
            if then is not None:
                then()

        return self.wheel.timer(expired)

    def turn_to(self, at: float) -> list[tuple[str, float]]:
        """Turn the wheel at *at*; return what fired."""
        self.now = at
        self.fired.clear()
        self.wheel.turn()
        return list(self.fired)


@pytest.fixture
def play() -> Iterator[Play]:
    made = Play()
    yield made
    made.loop.close()


def test_a_timer_fires_once_after_its_moment_and_not_before(play: Play) -> None:
    """
    It fires at the first turn after its slot is over, at most a slot late, and then never again.
    """
    play.timer("a").set(101.05)

    assert play.turn_to(101.04) == []
    assert play.turn_to(101.05) == []
    assert play.turn_to(101.05 + SLOT_S) == [("a", 101.05 + SLOT_S)]
    assert play.turn_to(200.0) == []


def test_a_later_moment_costs_no_place_in_the_wheel(play: Play) -> None:
    """
    Moving a timer later leaves it in its slot, where the wheel meets it, and puts it on, without firing.
    """
    timer = play.timer("a")
    timer.set(101.0)
    for moment in range(102, 160):
        timer.set(float(moment))

    assert len(play.wheel) == 1
    assert play.turn_to(102.0) == []
    assert play.turn_to(158.9) == []
    assert play.turn_to(159.2) == [("a", 159.2)]


def test_an_earlier_moment_counts(play: Play) -> None:
    """
    A timer that is set to an earlier moment than its slot fires at the earlier one.
    """
    timer = play.timer("a")
    timer.set(160.0)
    timer.set(101.0)

    assert play.turn_to(101.2) == [("a", 101.2)]
    assert play.turn_to(200.0) == []


def test_a_paused_timer_does_not_fire_until_it_is_set_again(play: Play) -> None:
    """
    Pausing keeps the place in the wheel and takes the moment away.
    """
    timer = play.timer("a")
    timer.set(101.0)
    timer.pause()

    assert timer.due_at == NEVER
    assert play.turn_to(101.5) == []
    timer.set(102.0)
    assert play.turn_to(102.5) == [("a", 102.5)]


def test_a_stopped_timer_leaves_the_wheel(play: Play) -> None:
    """
    Stopping frees what the timer belongs to: the wheel holds nothing of it.
    """
    timer = play.timer("a")
    timer.set(160.0)
    timer.stop()

    assert len(play.wheel) == 0
    assert play.turn_to(200.0) == []


def test_timers_fire_in_the_order_of_their_slots_after_a_long_pause(play: Play) -> None:
    """
    A loop that was held up fires everything that is due, the oldest first.
    """
    for name, at in (("late", 109.0), ("early", 101.0), ("not yet", 300.0)):
        play.timer(name).set(at)

    assert [name for name, _ in play.turn_to(120.0)] == ["early", "late"]


def test_a_timer_may_set_itself_again(play: Play) -> None:
    """
    What expires may set its timer anew, and stop others that are due in the same turn.
    """
    other = play.timer("other")
    timer: list[Timer] = []

    def again() -> None:
        timer[0].set(play.now + 1.0)
        other.stop()

    timer.append(play.timer("a", again))
    timer[0].set(101.0)
    other.set(101.5)

    assert play.turn_to(101.9) == [("a", 101.9)]
    assert play.turn_to(103.1) == [("a", 103.1)]


def test_a_clock_that_goes_back_fires_nothing_early(play: Play) -> None:
    """
    Time going backwards delays a timer, and never fires one before its moment.
    """
    play.turn_to(110.0)
    play.timer("a").set(105.0)

    assert play.turn_to(104.0) == []
    assert play.turn_to(110.3) == [("a", 110.3)]


def test_one_failing_timer_does_not_cost_the_others(play: Play) -> None:
    """
    An exception in one expiry is reported to the loop; the others fire.
    """
    reported: list[str] = []
    play.loop.set_exception_handler(lambda _, context: reported.append(str(context["exception"])))

    def fail() -> None:
        raise ValueError("broken")

    play.timer("bad", fail).set(101.0)
    play.timer("good").set(101.0)

    assert {name for name, _ in play.turn_to(101.2)} == {"bad", "good"}
    assert reported == ["broken"]
