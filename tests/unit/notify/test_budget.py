"""At most six messages in any hour, the last two of them for pages."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.notify.budget import HOUR_S, PER_HOUR, RESERVE, Budget


def spend(budget: Budget, *moments: float) -> Budget:
    for at in moments:
        budget.spend(at)
    return budget


def test_fresh_budget_has_room() -> None:
    """Nothing sent, nothing to wait for."""
    assert (Budget().wait_s(0.0, urgent=False), Budget().wait_s(0.0, urgent=True)) == (0.0, 0.0)


def test_ordinary_messages_leave_the_reserve() -> None:
    """After four ordinary ones the fifth waits until the first is an hour old; a page does not wait."""
    budget = spend(Budget(), 10.0, 20.0, 30.0, 40.0)
    assert (budget.wait_s(50.0, urgent=False), budget.wait_s(50.0, urgent=True)) == (HOUR_S - 40.0, 0.0)


def test_pages_are_bounded_too() -> None:
    """After six of any kind even a page waits."""
    budget = spend(Budget(), *(float(n) for n in range(6)))
    assert budget.wait_s(100.0, urgent=True) == HOUR_S - 100.0


def test_time_going_backwards_grants_nothing() -> None:
    """Messages sent in the future still count."""
    budget = spend(Budget(), *[500.0] * 6)
    assert budget.wait_s(0.0, urgent=True) == HOUR_S + 500.0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 900.0), st.booleans()), max_size=60))
def test_never_more_than_the_bound_in_any_hour(steps: list[tuple[float, bool]]) -> None:
    """Whatever comes when: in any hour at most six are sent, of which ordinary ones are at most four."""
    budget, now = Budget(), 0.0
    sent: list[tuple[float, bool]] = []
    for pause_s, urgent in steps:
        now += pause_s
        if budget.wait_s(now, urgent=urgent) == 0.0:
            budget.spend(now)
            sent.append((now, urgent))
    for end, _ in sent:
        hour = [urgent for at, urgent in sent if end - HOUR_S < at <= end]
        assert len(hour) <= PER_HOUR
        assert hour.count(False) <= PER_HOUR - RESERVE
