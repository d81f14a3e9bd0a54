"""The limits of one route over its whole life: its buckets, through live changes and changing shares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.facts import Scope
from sidecar.guard.bucket import Bucket, KeyedBuckets, Rate
from sidecar.guard.leased import LeasedLimits
from sidecar.guard.limit import Limits, kept, observes, runs
from sidecar.guard.policies import LimitPolicy
from sidecar.guard.shared import Shared

_SWEPT: Final = 256  # client keys looked at a tick and route: idle ones go


class Levels:
    """
    The buckets of one route, and the `Limits` over them and the service's.

    Attributes:
        client, route: None where the route has no such limit.
        limits: None when a request of this route meets no limit at all.
    """

    __slots__ = ("_name", "_policy", "_scope", "_shared", "client", "limits", "route")

    def __init__(self, name: str, shared: Shared) -> None:
        self._name, self._scope = name, str(Scope.route(name))
        self._shared = shared
        self._policy: LimitPolicy | None = None
        self.client: KeyedBuckets | None = None
        self.route: Bucket | None = None
        self.limits: Limits | None = None

    def __repr__(self) -> str:
        return f"<Levels {self._name} {self.limits}>"

    def apply(self, policy: LimitPolicy | None, now: float) -> None:
        """Go on under *policy*; keys and debts stay."""
        whole = self._shared.policy
        on = policy if policy is not None and runs(policy, whole.mode) else None
        observed = on is not None and observes(on.mode, whole.mode)
        self._policy = on
        self.route = kept(self.route, self._route_rate(), observed=observed, now=now)
        rate = self._client_rate()
        if on is None or rate is None:
            self.client = None
        elif self.client is None:
            self.client = KeyedBuckets(rate, on.max_keys, observed=observed)
        else:
            self.client.apply(rate, on.max_keys, observed=observed, now=now)
        levels = (self.client, self.route, self._shared.bucket)
        kind = Limits if whole.workers == 1 else LeasedLimits
        cost = 1.0 if policy is None else policy.cost
        self.limits = kind(*levels, cost) if any(level is not None for level in levels) else None
        self._lease(now)

    def share(self, now: float) -> None:
        """Go on under the shares that are in force now: no token is lost or made."""
        if self.limits is None:
            return
        rate = self._route_rate()
        if self.route is not None and rate is not None:
            self.route.apply(rate, observed=self.route.observed, now=now)
        rate, keyed = self._client_rate(), self.client
        if keyed is not None and rate is not None and rate.rate != keyed.rate.rate:
            keyed.apply(rate, keyed.max_keys, observed=keyed.observed, now=now)
        self._lease(now)
        self.limits.bind()

    def asked(self) -> Iterator[tuple[str, float, float]]:
        """Yield bucket, tokens asked since the last call, and of how many a second; only among several workers."""
        if isinstance(self.limits, LeasedLimits):
            for name, tokens, pool in self.limits.asked():
                if name.startswith(":"):
                    yield f"client:{self._name}{name}", tokens, pool
                else:
                    yield self._scope if name == "route" else name, tokens, pool

    def sweep(self, now: float) -> None:
        """Let some idle clients go."""
        if self.client is not None:
            self.client.sweep(now, _SWEPT)

    def _route_rate(self) -> Rate | None:
        whole, on = self._shared, self._policy
        if on is None or on.bucket is None:
            return None
        return Rate(on.bucket, whole.policy.workers, whole.shares.of(self._scope), on.cost)

    def _client_rate(self) -> Rate | None:
        whole, on = self._shared, self._policy
        if on is None or on.per_client is None:
            return None
        return Rate(on.per_client, whole.policy.workers, whole.shares.rest, on.cost)

    def _lease(self, now: float) -> None:
        on, whole = self._policy, self._shared
        if on is None or on.per_client is None or self.client is None:
            return
        workers = whole.policy.workers
        rates = whole.shares.rates_of_clients(self._name, on.per_client, workers, on.cost) if workers > 1 else {}
        self.client.lease(rates, now)
