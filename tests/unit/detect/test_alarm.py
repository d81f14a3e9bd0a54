"""The machine that turns a score into an alarm and back."""

from __future__ import annotations

import pytest

from sidecar.detect.alarm import Alarm, State

H = 20.0
CLEAR_S = 60.0


def step(alarm: Alarm, score: float, at: float, *, qualifies: bool = True, judged: bool = True) -> State:
    alarm.step(score, H, at, CLEAR_S, qualifies=qualifies, judged=judged)
    return alarm.state


@pytest.mark.parametrize(
    ("score", "qualifies", "state"),
    [
        (9.9, True, State.NORMAL),
        (10.0, True, State.SUSPECT),
        (10.0, False, State.NORMAL),
        (20.0, True, State.ALARM),
        (20.0, False, State.NORMAL),
    ],
)
def test_the_way_up(score: float, qualifies: bool, state: State) -> None:
    """
    Half of h is suspect and h is an alarm, both only for a claim that qualifies.
    """
    assert step(Alarm(), score, 1.0, qualifies=qualifies) is state


def test_suspicion_ends_at_a_quarter() -> None:
    """
    Between a quarter and half of h a suspicion stays; below, it ends.
    """
    alarm = Alarm()

    assert [step(alarm, score, 1.0) for score in (11, 6, 4)] == [State.SUSPECT, State.SUSPECT, State.NORMAL]


def test_an_alarm_closes_only_after_staying_low() -> None:
    """
    Below 0.2·h for `clear_after`; one second above it begins the wait anew.
    """
    alarm = Alarm()
    step(alarm, 25, 0.0)
    first = [step(alarm, 3.9, float(at)) for at in range(1, 60)]
    again = step(alarm, 4.0, 60.0)
    second = [step(alarm, 3.9, float(at)) for at in range(61, 122)]

    assert set(first) == {State.RECOVERING}
    assert again is State.ALARM
    assert second[-2:] == [State.RECOVERING, State.NORMAL]


def test_an_alarm_nobody_can_answer_ends_when_idle() -> None:
    """
    With no request judged for ten minutes a high score closes too: there is nothing left to protect.
    """
    alarm = Alarm()
    step(alarm, 25, 0.0)

    assert step(alarm, 25, 599.0, judged=False) is State.ALARM
    assert step(alarm, 25, 600.0, judged=False) is State.NORMAL


def test_time_going_backwards_only_waits_longer() -> None:
    """
    A second from the past neither closes nor crashes.
    """
    alarm = Alarm()
    step(alarm, 25, 1000.0)
    step(alarm, 1, 1001.0)

    assert step(alarm, 1, 10.0) is State.RECOVERING
    assert step(alarm, 1, 69.0) is State.RECOVERING
    assert step(alarm, 1, 70.0) is State.NORMAL
