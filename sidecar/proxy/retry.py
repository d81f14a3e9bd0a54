"""
How many requests may be sent again: a budget for the whole worker, so that retries never multiply an outage.

Theory.   A retry helps when one answer in a hundred fails and harms when every one does: then it is load on top of load. So what
          is bounded is not the retries of one request but their part of all of them (Finagle's and Envoy's retry budget):
          `budget` of the requests of the last seconds, and 3 a second beside, so that a quiet API has retries too. The
          leaky bucket of aiolimiter paces them: it holds one second of the budget, so a burst of failures cannot spend what
          was saved in a quiet hour. A retry costs one part in `3 + budget · rate` of it, and the rate moves with the traffic.

Tables.   sent again when                                                      counted in the budget
          a pooled connection had ended before a byte of an answer came        no: it is our own bet that failed, once a request
          `retries.attempts` are left, and no byte of an answer came           yes
          the same, and the answer's status is one of `retries.on_status`      yes

          and in every row: the method is idempotent (RFC 9110, section 9.2.2) and the request has no body. A timeout is
          no reason: who has waited that long is not helped by waiting once more. A connection that cannot be made has been tried
          on every endpoint already.

What can go wrong. Each worker has a budget of its own: 3 a second are 3 for each worker.
"""

from __future__ import annotations

from typing import Final

from aiolimiter import AsyncLimiter

LEAST_PER_S: Final = 3.0  # Finagle's minRetriesPerSec is 10; HAProxy and nginx have no budget
HORIZON_S: Final = 10.0  # Finagle's ttl


class RetryBudget:
    """What is left for retries, by the requests of the last `HORIZON_S`."""

    __slots__ = ("_asked", "_at", "_bucket", "_per_s", "denied", "sent")

    def __init__(self, now: float) -> None:
        self._bucket = AsyncLimiter(1.0, 1.0)
        self._per_s = 0.0
        self._asked = 0
        self._at = now
        self.sent = 0
        self.denied = 0

    def __repr__(self) -> str:
        return f"<RetryBudget {self.sent} sent {self.denied} denied at {self._per_s:.1f} requests/s>"

    def note(self, asked: int, now: float) -> None:
        """Learn that *asked* requests went upstream so far; about once a second."""
        span_s = now - self._at
        if span_s > 0.0:
            weight = min(1.0, span_s / HORIZON_S)
            self._per_s += ((asked - self._asked) / span_s - self._per_s) * weight
            self._asked, self._at = asked, now

    def spend(self, budget_ratio: float) -> bool:
        """Take one retry from the budget; False when it is used up."""
        cost = 1.0 / (LEAST_PER_S + budget_ratio * self._per_s)
        if not self._bucket.has_capacity(cost):
            self.denied += 1
            return False
        try:
            self._bucket.acquire(cost).send(None)  # there is room: it comes back without waiting
        except StopIteration:
            self.sent += 1
        return True
