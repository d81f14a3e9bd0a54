"""
One route's breaker over whole seconds: the product's own machine, asked a request at a time only where that matters.

While it is closed, no ramp runs and this second's failures cannot trip it, a second is added to its ring as a whole.
Else its requests come one after another, evenly over the second, the failed ones evenly among them, each with its
outcome at once; so a trip comes after as many requests as live, give or take how failures were really spread.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.facts import BreakerState, Mode, Outcome
from sidecar.guard.breaker import NOT_COUNTED, Breaker, TripEvent
from sidecar.guard.policies import BreakerPolicy


class _Request:
    """What the breaker reads and writes of a ticket."""

    __slots__ = ("first_byte_at", "generation", "slow", "trial")

    def __init__(self) -> None:
        self.generation = NOT_COUNTED
        self.first_byte_at: float | None = None
        self.slow = self.trial = False


@dataclass(frozen=True, slots=True)
class Passed:
    """How many of a second's requests the breaker let pass, by what became of them."""

    good: int
    bad: int
    other: int

    @property
    def total(self) -> int:
        """Count all of them."""
        return self.good + self.bad + self.other


class Reflex:
    """
    The breaker of one route.

    Attributes:
        trips: Trips that nobody took yet.
    """

    def __init__(self, route: str, policy: BreakerPolicy, now: float) -> None:
        self.trips: list[TripEvent] = []
        self._policy = policy
        self._breaker = Breaker(route, policy, "", self.trips, now)
        self._breaker.apply(policy, Mode.ENFORCE, "", now)

    def __repr__(self) -> str:
        return f"<Reflex {self._breaker}>"

    @property
    def open(self) -> bool:
        """Tell whether it refuses everything now."""
        return self._breaker.state is BreakerState.OPEN

    def take(
        self, good: int, bad: int, other: int, slow: int, at: float, step_s: float = 1.0, *, trials: bool
    ) -> Passed:
        """
        Let one second's requests pass, or not.

        Args:
            good, bad, other: How they would end: success, failure, or saying nothing.
            slow: Of the good ones, those slower than the policy's `slow`.
            at: The end of the second. `step_s`: how long it was.
            trials: They are an isolation's trials: never refused here, and this breaker's probes.
        """
        breaker = self._breaker
        breaker.tick(at - step_s)
        if breaker.state is BreakerState.CLOSED and breaker.free and not self._may_trip(good, bad, slow):
            ring = breaker.ring
            ring.judged += good + bad
            ring.failures += bad
            ring.timed += good + bad
            ring.slow += slow
            breaker.consecutive = 0 if good else breaker.consecutive + bad
            passed = Passed(good, bad, other)
        else:
            passed = self._one_by_one(good, bad, other, slow, at, step_s, trials=trials)
        breaker.tick(at)
        return passed

    def _may_trip(self, good: int, bad: int, slow: int) -> bool:
        policy, ring = self._policy, self._breaker.ring
        if policy.consecutive and bad and self._breaker.consecutive + -(-bad // (good + 1)) >= policy.consecutive:
            return True
        judged = ring.judged + good + bad
        if judged >= policy.min_requests and ring.failures + bad >= policy.error_ratio * judged and bad:
            return True
        return bool(slow) and judged >= policy.min_requests and ring.slow + slow >= policy.slow_ratio * judged

    def _one_by_one(
        self, good: int, bad: int, other: int, slow: int, at: float, step_s: float = 1.0, *, trials: bool
    ) -> Passed:
        breaker, total = self._breaker, good + bad + other
        counts = {Outcome.SUCCESS: 0, Outcome.FAILURE: 0, Outcome.IGNORED: 0}
        slow_left = slow
        for j in range(total):
            now = at - step_s + step_s * (j + 0.5) / total
            request = _Request()
            if trials:
                breaker.admit_trial(request, now)
            elif (refusal := breaker.ask(now)) is not None:
                if now + refusal.retry_after_s >= at and breaker.state is BreakerState.OPEN:
                    break
                continue
            else:
                breaker.admit(request, now)
            outcome = _outcome(j, good, bad, total)
            late = outcome is Outcome.SUCCESS and slow_left > 0
            slow_left -= late
            counts[outcome] += 1
            breaker.record(request, outcome, now, breaker.slow_s if late else 0.0, True)
        return Passed(counts[Outcome.SUCCESS], counts[Outcome.FAILURE], counts[Outcome.IGNORED])


def _outcome(j: int, good: int, bad: int, total: int) -> Outcome:
    """Return how the j-th of *total* requests ends, failures and neutral ones spread evenly."""
    if (j + 1) * bad // total > j * bad // total:
        return Outcome.FAILURE
    neutral, rest = total - good - bad, total - bad
    k = j - (j + 1) * bad // total  # its place among those that did not fail
    return Outcome.IGNORED if neutral and (k + 1) * neutral // rest > k * neutral // rest else Outcome.SUCCESS
