"""The retry budget: 3 a second and a part of the requests, as a leaky bucket."""

from __future__ import annotations

from sidecar.proxy.retry import RetryBudget


async def test_a_quiet_worker_has_three_retries_at_once() -> None:
    """
    Without traffic three retries fit into one second and the fourth is denied and counted.
    """
    budget = RetryBudget(0.0)

    assert [budget.spend(0.2) for _ in range(4)] == [True, True, True, False]
    assert (budget.sent, budget.denied) == (3, 1)


async def test_the_budget_grows_with_the_traffic() -> None:
    """
    At 100 requests/s and 20 % about 23 retries fit into one second; the ratio is the setting's.
    """
    budget = RetryBudget(0.0)
    for second in range(1, 61):
        budget.note(100 * second, float(second))

    spent = sum(budget.spend(0.2) for _ in range(100))
    assert 22 <= spent <= 24
    assert budget.denied == 100 - spent


async def test_the_rate_follows_a_change_within_its_horizon() -> None:
    """
    Ten quiet seconds after a burst leave a third of its rate; after a minute nothing is left of it.
    """
    budget = RetryBudget(0.0)
    budget.note(1000, 10.0)
    assert "100.0 requests/s" in repr(budget)
    for second in range(11, 21):
        budget.note(1000, float(second))
    assert "34.9 requests/s" in repr(budget)
    for second in range(21, 81):
        budget.note(1000, float(second))
    assert "0.1 requests/s" in repr(budget)
