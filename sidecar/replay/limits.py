"""
The config's limits over whole seconds.

Theory
    A bucket of `burst` tokens that refills at `rate` passes at most what it held at the start of a second and what came
    back within it: min(asked, tokens + rate·Δ), and ends with at most `burst`. For requests that come evenly within
    their second that is what the live bucket does; of a burst within one second it passes a little more. As live, a
    request is charged only where every level passes: client, then route, then service; where a shared level has not
    enough, all who ask get the same part.

What can go wrong
    A tape without clients: the level of single clients cannot be judged, and what the tape says was refused stands. A
    client that the tape does not name is not limited alone. `mode: shape` waits live; here it passes as many a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.facts import Mode
from sidecar.guard.policies import BucketPolicy, GuardPolicy, LimitMode, LimitPolicy

ENFORCING: Final = (LimitMode.ENFORCE, LimitMode.SHAPE)
_SWEEP: Final = 4096  # client buckets from which full ones are dropped


class Bucket:
    """One bucket, in requests."""

    __slots__ = ("_at", "burst", "left", "rate")

    def __init__(self, policy: BucketPolicy, cost: float, now: float) -> None:
        self.rate, self.burst = policy.rate_per_s / cost, max(policy.burst / cost, 1.0)
        self.left = self.burst
        self._at = now

    def __repr__(self) -> str:
        return f"<Bucket {self.left:.3g}/{self.burst:g}>"

    def refill(self, now: float, step_s: float) -> float:
        """Return what may pass in the *step_s* that end at *now*; what went idle before them is capped at the burst."""
        last_s = min(now - self._at, step_s)
        idle_s = now - self._at - last_s
        self.left = min(self.burst, self.left + idle_s * self.rate) + last_s * self.rate
        self._at = now
        return self.left

    def charge(self, requests: float) -> None:
        """Take *requests*; what is left over is at most the burst."""
        self.left = min(self.burst, self.left - requests)

    @property
    def full(self) -> bool:
        """Tell whether it is as good as a new one."""
        return self.left >= self.burst


class RouteLimits:
    """The levels of one route."""

    def __init__(self, policy: LimitPolicy | None, mode: Mode, now: float) -> None:
        on = policy is not None and policy.mode in ENFORCING and mode is Mode.ENFORCE
        self._per_client = policy.per_client if on and policy is not None else None
        self.cost = policy.cost if policy is not None else 1.0
        self.shared = Bucket(policy.bucket, self.cost, now) if on and policy is not None and policy.bucket else None
        self._clients: dict[str, Bucket] = {}

    def __repr__(self) -> str:
        return f"<RouteLimits {self.shared} {len(self._clients)} clients>"

    @property
    def by_client(self) -> bool:
        """Tell whether single clients are limited."""
        return self._per_client is not None

    def of_clients(self, asked: Mapping[str, float], now: float, step_s: float) -> dict[str, float]:
        """Return what each client's own bucket would pass of what it asked; nothing is charged yet."""
        policy, passing = self._per_client, dict(asked)
        if policy is None:
            return passing
        for key, requests in asked.items():
            bucket = self._clients.get(key)
            if bucket is None:
                bucket = self._clients[key] = Bucket(policy, self.cost, now - step_s)
            passing[key] = min(requests, float(int(bucket.refill(now, step_s) + 1e-9)))
        return passing

    def charge(self, passed: Mapping[str, float], total: float) -> None:
        """Charge what passed every level."""
        for key, requests in passed.items():
            if key in self._clients:
                self._clients[key].charge(requests)
        if self.shared is not None:
            self.shared.charge(total)
        if len(self._clients) > _SWEEP:
            self._clients = {key: bucket for key, bucket in self._clients.items() if not bucket.full}


class Limits:
    """The limits of a whole config."""

    def __init__(self, policy: GuardPolicy, now: float) -> None:
        self._routes = {name: RouteLimits(route.limit, policy.mode, now) for name, route in policy.routes.items()}
        whole = RouteLimits(policy.limit, policy.mode, now)
        self.service = whole.shared
        self._policy, self._now = policy, now

    def __repr__(self) -> str:
        return f"<Limits {self._routes}>"

    def route(self, name: str) -> RouteLimits:
        """Return the levels of *name*; none for a route that the config does not know."""
        found = self._routes.get(name)
        if found is None:
            found = self._routes[name] = RouteLimits(None, self._policy.mode, self._now)
        return found
