"""
How one directive lets a part of its requests pass: by rate, or by share.

Theory
    rate    GCRA with a burst of a tenth of a second (at least one): the next slot is exact and is the Retry-After.
    share   Error diffusion, not a die: every request adds the share to a credit, a whole credit passes one. In any
            run of n requests that differs from n·share by less than one. The first request passes.
    again   One that asks again within its back-off (`spare.py`) passes only where half the rate's burst is left, or a second
            whole credit: then first tries need none of it. Held back, it still adds to the credit that they take.
    sample  An automatic isolation passes the larger of its share and min(1/s, 10 %): when 10 requests and one second
            went by without a passing one, the next passes, and the credit starts again, so the two do not add up.

A gate is asked first and charged afterwards: a request that a later guard refuses takes no slot from the one that
could have used it. Gates live as long as their directive's id, over renewals of the lease and steps of the ramp.
"""

from __future__ import annotations

from typing import Final

from sidecar.facts import Directive
from sidecar.guard.bucket import KEPT, Bucket, Rate
from sidecar.guard.policies import BucketPolicy

_SAMPLE_EVERY: Final = 10  # requests: 10 %
_SAMPLE_AFTER_S: Final = 1.0
_RETRY_AFTER_S: Final = 1.0  # of a share: nobody knows when the next one comes
_NEVER: Final = float("-inf")
_WHOLE: Final = 1.0 - 1e-9  # ten times 0.1 are one
_MOST_CREDIT: Final = 2.0


def throttle_rate(rate_per_s: float, workers: int, share: float | None = None) -> Rate:
    """Return the numbers of a directive's rate: an even pace."""
    return Rate(BucketPolicy(rate_per_s, max(1.0, rate_per_s / 10.0)), workers, share)


class Gate:
    """The pacing of one directive on one route."""

    __slots__ = (
        "_asked",
        "_bucket",
        "_credit",
        "_last_passed_at",
        "_sampled",
        "_share",
        "_since",
        "_workers",
        "directive",
        "held",
        "passed",
    )

    def __init__(self, directive: Directive, *, sampled: bool, bucket: Bucket | None, workers: int) -> None:
        self._credit = 1.0 - min(1.0, directive.share_ratio or 0.0)
        self._since = _SAMPLE_EVERY  # the first request is a trial
        self._last_passed_at = _NEVER
        self.held = self.passed = self._asked = 0
        self._sampled = sampled
        self.apply(directive, bucket, workers)

    def __repr__(self) -> str:
        return f"<Gate {self.directive.id} passed={self.passed} held={self.held}>"

    def apply(self, directive: Directive, bucket: Bucket | None, workers: int) -> None:
        """Go on under a renewed *directive*; *bucket* is the rate's, shared by all routes of its scope."""
        self.directive = directive
        self._bucket = bucket
        self._share = min(1.0, directive.share_ratio or 0.0)
        self._workers = workers

    def wait_s(self, now: float, *, again: bool = False) -> float:
        """Return 0 when a request may pass now, else the seconds until it makes sense to ask; *again*: too soon."""
        if self._bucket is not None:
            return self._bucket.wait_s(now, 1.0 + KEPT * self._bucket.rate.burst if again else 1.0)
        if self._share > 0.0 and self._credit + self._share >= _WHOLE + again:
            return 0.0
        if self._sampled and self._since + 1 >= _SAMPLE_EVERY and now - self._last_passed_at >= self._pause_s():
            return 0.0
        return _RETRY_AFTER_S

    def take(self, now: float) -> None:
        """Charge one request that passed every guard."""
        self.passed += 1
        self._since = 0
        self._last_passed_at = max(now, self._last_passed_at)
        if self._bucket is not None:
            self._bucket.charge(now)
        else:
            self._credit = min(_MOST_CREDIT, max(0.0, self._credit + self._share - 1.0))

    def hold(self) -> None:
        """Count one request that was refused here."""
        self.held += 1
        self._since += 1
        self._credit = min(_MOST_CREDIT, self._credit + self._share)

    def asked(self) -> int:
        """Count the requests that came here since the last call."""
        asked = self.passed + self.held
        new, self._asked = asked - self._asked, asked
        return new

    def _pause_s(self) -> float:
        return _SAMPLE_AFTER_S * self._workers
