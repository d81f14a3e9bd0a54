from __future__ import annotations

from sidecar.facts import Outcome
from sidecar.guard.guard import Guard, Ticket
from sidecar.guard.policies import BreakerPolicy, ConcurrencyPolicy, LimitPolicy, RoutePolicy
from tests.support import cost
from tests.support.playbook import bucket, service

BUDGET_S = 3e-6  # measured: 1.2 µs


def test_the_whole_stack_stays_within_its_budget() -> None:
    """
    admit + sent + first_byte + settle with three limits, concurrency and breaker on cost at most 3 µs.
    """
    limit = LimitPolicy(bucket(1e7, 1e7), bucket(1e7, 1e7))
    route = RoutePolicy("r", limit, ConcurrencyPolicy(64), BreakerPolicy(slow_s=1.0))
    guard = Guard(service(route, limit=LimitPolicy(bucket(1e7, 1e7)), concurrency=ConcurrencyPolicy(512)), 0.0)
    bound, success, now = guard.route("r"), Outcome.SUCCESS, 0.0

    def run() -> None:
        nonlocal now
        for _ in range(cost.ITEMS):
            now += 0.0001
            ticket = bound.admit("10.0.0.1", now)
            assert isinstance(ticket, Ticket)
            bound.sent(ticket, now)
            bound.first_byte(ticket, now)
            bound.settle(ticket, success, now, latency_s=0.01)

    assert cost.calls(run) <= cost.budget(BUDGET_S)
