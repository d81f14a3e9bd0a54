"""The ticket that every admitted request carries from admission to its end."""

from __future__ import annotations

from sidecar.guard.breaker import NOT_COUNTED
from sidecar.reasons import Would


class Ticket:
    """
    One admitted request, from admission to its end.

    Attributes:
        client: The client key.
        admitted_at, sent_at, first_byte_at: Monotonic seconds; None before it happened.
        would: What observing controls would have answered.
        directive: The isolation or override whose share let it pass.
        generation: The breaker's at admission; `NOT_COUNTED` when no breaker listens.
        slow: It was in flight for longer than the breaker's `slow`.
        trial: It bypassed the breaker under an isolation and is its probe.
        beyond: Levels of concurrency (1 route, 2 service) that would have refused it.
        settled: It ended.
    """

    __slots__ = (
        "admitted_at", "beyond", "client", "directive", "first_byte_at", "generation", "sent_at", "settled", "slow",
        "trial", "would",
    )  # fmt: skip

    def __init__(self, client: str, now: float) -> None:
        self.client = client
        self.admitted_at = now
        self.sent_at: float | None = None
        self.first_byte_at: float | None = None
        self.generation = NOT_COUNTED
        self.beyond = 0
        self.settled = self.slow = self.trial = False
        self.would: tuple[Would, ...] = ()
        self.directive: str | None = None

    def __repr__(self) -> str:
        moments = (("settled", self.settled), ("first byte", self.first_byte_at), ("sent", self.sent_at))
        state = next((name for name, value in moments if value is not None and value is not False), "admitted")
        return f"<Ticket {self.client} {state} g{self.generation}>"

    @property
    def latency_s(self) -> float | None:
        """Return last request byte sent → first response byte; None when there was none."""
        if self.first_byte_at is None or self.sent_at is None:
            return None
        return self.first_byte_at - self.sent_at
