"""
At most so many requests between admission and end.

`in_flight` counts every admitted request, whatever the mode, so that a limit that appears live knows the load that it
meets. An observed limit also counts the requests `beyond` it, which it would have refused: they never were in flight
in the world that it imagines, so it compares `in_flight − beyond`.
"""

from __future__ import annotations

from typing import Final

from sidecar.facts import Mode
from sidecar.guard.policies import ConcurrencyPolicy
from sidecar.reasons import Reason, Refusal

UNLIMITED: Final = 1 << 62
_RETRY_AFTER_S: Final = 1.0  # small: a permit returns with the next answer


class Concurrency:
    """The permits of one route or of the service."""

    __slots__ = ("beyond", "cap", "in_flight", "observed", "rule")

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.in_flight = 0
        self.beyond = 0
        self.cap = UNLIMITED
        self.observed = False

    def __repr__(self) -> str:
        return f"<Concurrency {self.in_flight}/{'∞' if self.limit is None else self.limit}>"

    @property
    def limit(self) -> int | None:
        """Return this worker's part of the limit; None when there is none."""
        return None if self.cap == UNLIMITED else self.cap

    def apply(self, policy: ConcurrencyPolicy | None, overall: Mode, workers: int) -> None:
        """Go on under *policy*; what is in flight stays counted."""
        off = policy is None or policy.mode is Mode.OFF or overall is Mode.OFF
        self.cap = UNLIMITED if policy is None or off else -(-policy.max_in_flight // workers)
        self.observed = policy is not None and not off and Mode.OBSERVE in (policy.mode, overall)

    def full(self) -> bool:
        """Tell whether an enforced limit has no permit left."""
        return self.in_flight >= self.cap

    def would_be_full(self) -> bool:
        """Tell whether the limit would have no permit left if it had refused all that it would have refused."""
        return self.in_flight - self.beyond >= self.cap

    def refusal(self) -> Refusal:
        """Say no."""
        return Refusal(
            Reason.CONCURRENCY_LIMITED, _RETRY_AFTER_S, self.rule, f"{self.in_flight} of {self.cap} in flight"
        )
