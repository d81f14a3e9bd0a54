"""What the routes of one worker share: the service's limits, the directives in force, the trips that nobody took yet."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.facts import Directive, Mode
from sidecar.guard.breaker import TripEvent
from sidecar.guard.bucket import Bucket, Rate
from sidecar.guard.concurrency import ServiceConcurrency
from sidecar.guard.gate import throttle_rate
from sidecar.guard.leased import SERVICE_NAME, Shares
from sidecar.guard.limit import kept, observes, runs
from sidecar.guard.policies import GuardPolicy


class Shared:
    """
    The part of a guard that stands above its routes.

    Attributes:
        policy: In force.
        now: The latest moment that anybody told.
        faults: Tickets that were settled more than once.
        trips: Trips that nobody took yet.
        concurrency, bucket: The service's.
        directives: In force, in the order in which they began.
        shares: This worker's parts of the limits.
    """

    __slots__ = ("_throttles", "bucket", "concurrency", "directives", "faults", "now", "policy", "shares", "trips")

    def __init__(self, policy: GuardPolicy, now: float) -> None:
        self.policy = policy
        self.shares = Shares.even(policy.workers)
        self.now = now
        self.faults = 0
        self.trips: list[TripEvent] = []
        self.concurrency = ServiceConcurrency()
        self.bucket: Bucket | None = None
        self.directives: tuple[Directive, ...] = ()
        self._throttles: dict[tuple[str, bool], Bucket] = {}

    def __repr__(self) -> str:
        return f"<Shared {self.concurrency} directives={len(self.directives)} trips={len(self.trips)}>"

    @property
    def observing(self) -> bool:
        """Tell whether isolations only count: every mode but `enforce`."""
        return self.policy.mode is not Mode.ENFORCE

    def apply(self, policy: GuardPolicy, now: float) -> None:
        """Go on under *policy*."""
        if policy.workers != self.policy.workers:
            self.shares = Shares.even(policy.workers)
        self.policy = policy
        self.now = max(now, self.now)
        self.concurrency.apply(policy.concurrency, policy.mode, policy.workers, self.now)
        self.concurrency.reserve(route.priority for route in policy.routes.values())
        self._apply_bucket(now)

    def _apply_bucket(self, now: float) -> None:
        limit, overall = self.policy.limit, self.policy.mode
        on = limit if limit is not None and runs(limit, overall) else None
        observed = on is not None and observes(on.mode, overall)
        rate = None
        if on is not None and on.bucket is not None:
            # One bucket for all routes: the request that takes most must find room in it.
            unit = max((route.limit.cost for route in self.policy.routes.values() if route.limit), default=1.0)
            rate = Rate(on.bucket, self.policy.workers, self.shares.of(SERVICE_NAME), unit)
        self.bucket = kept(self.bucket, rate, observed=observed, now=now)

    def share(self, shares: Shares, now: float) -> None:
        """Go on under other *shares*: no token is lost or made."""
        self.now = max(now, self.now)
        self.shares = shares
        self._apply_bucket(self.now)
        for directive in self.directives:
            for observing in (False, True):
                if (directive.id, observing) in self._throttles:
                    self.throttle(directive, observing=observing)

    def direct(self, directives: Sequence[Directive], now: float) -> None:
        """Take the full set of directives in force; what is over already is left out."""
        self.now = max(now, self.now)
        self.directives = tuple(item for item in directives if item.end_at > now)
        ids = {item.id for item in self.directives}
        self._throttles = {key: bucket for key, bucket in self._throttles.items() if key[0] in ids}

    def ended(self, now: float) -> bool:
        """Tell whether the time of some directive is over."""
        return any(now >= item.end_at for item in self.directives)

    def in_force(self, now: float) -> tuple[Directive, ...]:
        """Return the directives without those that ended: each ends by itself, also when no controller lives."""
        return tuple(item for item in self.directives if item.end_at > now)

    def throttle(self, directive: Directive, *, observing: bool) -> Bucket | None:
        """Return the bucket of a directive's rate, one for all routes of its scope; None when a share rules."""
        if directive.rate_per_s is None:
            return None
        rate = throttle_rate(directive.rate_per_s, self.policy.workers, self.shares.of(directive.id))
        bucket = self._throttles.get((directive.id, observing))
        if bucket is None:
            bucket = self._throttles[directive.id, observing] = Bucket(rate, observed=observing, now=self.now)
        elif (bucket.rate.text, bucket.rate.rate) != (rate.text, rate.rate):
            bucket.apply(rate, observed=observing, now=self.now)
        return bucket
