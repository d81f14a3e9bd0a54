"""
What is known of one endpoint: may requests be sent to it, and how many.

Theory
------
An API behind several endpoints fails one endpoint at a time more often than all at once, and the clients need not notice:
requests go to the others. Four witnesses say that an endpoint must rest; each has its own clock, and it serves
when none of them objects. An endpoint that comes back takes a growing part of its weight first (slow start), because
its caches are cold and the others' load would fall on it at once.

Passive ejection follows Envoy's outlier detection, with two differences. An endpoint is an outlier only while the *others*
do clearly better: when all fail the API is down, which is the breaker's part, and ejecting half of the endpoints
would double the load on the other half. And the ratio is taken over ten exact buckets, not over a fixed interval.

Tables
------
    witness        says no when                                         until
    connection     one could not be made                                1 s, doubling to 30 s; or until one is made
    outlier        `consecutive` failures, or `error_ratio` of at       base · n, at most `max`, less up to a quarter by a
                   least `min_requests` in `window`, and the others     hash; n falls by one for each `base` in service
                   fail less than half as often
    health check   the controller says so                               the next check that says otherwise; its lease
    operator       an override isolates it                              its end

    outcome of a request        counts as
    failure (classify.py)       failure
    an answer                   good
    anything else               nothing: the client left, or we refused

What can go wrong
-----------------
* All are away: then all are used, but those that an operator isolated (`pool.py`). Nothing is worse than refusing everything.
* Answers of requests that began before the ejection come after it: they do not count.
* The clock stands still or jumps: every end is a moment, nothing is counted in turns.

Source: Envoy, outlier detection (consecutive_5xx 5, base_ejection_time 30 s, max_ejection_time 300 s); HAProxy, slowstart.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

from sidecar.config.policies import EjectionPolicy
from sidecar.facts import Mode
from sidecar.guard.ring import Ring

FIRST_SKIP_S: Final = 1.0
LONGEST_SKIP_S: Final = 30.0
LEAST_START_RATIO: Final = 0.1  # Envoy's min_weight_percent
JITTER_RATIO: Final = 0.25
_NEVER: Final = float("-inf")


class Stand(StrEnum):
    """Whether an endpoint is in service, and if not who objects."""

    UP = "up"
    UNREACHABLE = "unreachable"
    EJECTED = "ejected"
    UNHEALTHY = "unhealthy"
    ISOLATED = "isolated"


class Standing:
    """
    One endpoint's standing in one worker.

    Attributes:
        ejections: How often it was ejected, or would have been, since the worker began.
    """

    __slots__ = (
        "_consecutive", "_decay_at", "_ejected_until", "_level", "_ring", "_seed", "_skip_until", "_skips", "_started_at", "_unhealthy_until",
        "ejections", "isolated", "policy",
    )  # fmt: skip

    def __init__(self, policy: EjectionPolicy, seed: str, now: float) -> None:
        self.policy = policy
        self.ejections = 0
        self.isolated = False
        self._seed = seed
        self._ring = Ring(policy.window_s, now)
        self._consecutive = self._level = self._skips = 0
        self._ejected_until = self._skip_until = self._unhealthy_until = self._started_at = _NEVER
        self._decay_at = 0.0

    def __repr__(self) -> str:
        return f"<Standing {self._consecutive} in a row {self._ring!r} level {self._level}>"

    def stand(self, now: float) -> Stand:
        """Return who objects at *now*, the most deliberate one first."""
        if self.isolated:
            return Stand.ISOLATED
        if now < self._unhealthy_until:
            return Stand.UNHEALTHY
        if now < self._ejected_until:
            return Stand.EJECTED
        return Stand.UNREACHABLE if now < self._skip_until else Stand.UP

    def start_ratio(self, slow_start_s: float, now: float) -> float:
        """Return the part of its weight that it takes: below 1 for a while after it came back."""
        age_s = now - self._started_at
        if age_s >= slow_start_s:
            return 1.0
        return max(LEAST_START_RATIO, age_s / slow_start_s)

    def apply(self, policy: EjectionPolicy, now: float) -> None:
        """Go on under *policy*; an ejection that it does not know ends."""
        if policy.window_s != self.policy.window_s:
            self._ring = Ring(policy.window_s, now)
        self.policy = policy
        if policy.mode is not Mode.ENFORCE:
            self._ejected_until = _NEVER

    # --- passive ---------------------------------------------------------------------------------------------------

    def ended(self, now: float, *, failed: bool) -> bool:
        """Count one request that was answered, or failed; return True when the endpoint looks like an outlier."""
        if now < self._ejected_until:
            return False
        ring, policy = self._ring, self.policy
        if now >= ring.end_at:
            ring.rotate(now)
        ring.judged += 1
        if not failed:
            self._consecutive = 0
            return False
        ring.failures += 1
        self._consecutive += 1
        if 0 < policy.consecutive <= self._consecutive:
            return True
        return ring.judged >= policy.min_requests and ring.failures >= policy.error_ratio * ring.judged

    def failures(self, now: float) -> tuple[int, int]:
        """Return (failures, judged requests) of the window."""
        if now >= self._ring.end_at:
            self._ring.rotate(now)
        return self._ring.failures, self._ring.judged

    def eject(self, now: float) -> float:
        """Eject it, or only count that in observe mode; return for how many seconds."""
        policy = self.policy
        self._fade(now)
        self.ejections += 1
        self._level += 1
        wanted_s = min(policy.base_s * self._level, policy.max_s)
        digest = hashlib.blake2b(f"{self._seed}|{self.ejections}".encode(), digest_size=8).digest()
        seconds = wanted_s * (1.0 - JITTER_RATIO * int.from_bytes(digest, "big") / 2.0**64)
        if policy.mode is Mode.ENFORCE:
            self._ejected_until = now + seconds
            self._decay_at = self._ejected_until + policy.base_s
        else:
            self._decay_at = now + policy.base_s
        self._ring.clear(now)
        self._consecutive = 0
        return seconds

    def _fade(self, now: float) -> None:
        """Take back one level for each `base` that it has served."""
        while self._level and now >= self._decay_at:
            self._level -= 1
            self._decay_at += self.policy.base_s

    # --- the other witnesses -----------------------------------------------------------------------------------------

    def unreached(self, now: float) -> None:
        """Learn that a connection could not be made."""
        self._skip_until = now + min(LONGEST_SKIP_S, FIRST_SKIP_S * 2**self._skips)
        self._skips = min(self._skips + 1, 10)

    def reached(self, now: float) -> bool:
        """Learn that a connection was made; return True when none could be made before."""
        if not self._skips:
            return False
        self._skips = 0
        self._skip_until = _NEVER
        self._started_at = now
        return True

    def checked(self, unhealthy_until: float | None) -> None:
        """Learn what the health check says: None is well."""
        self._unhealthy_until = _NEVER if unhealthy_until is None else unhealthy_until

    def came_back(self, now: float) -> None:
        """Begin the slow start."""
        self._started_at = now
