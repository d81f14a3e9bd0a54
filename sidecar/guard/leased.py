"""
The limits of a worker among several: the same buckets, under a share of the rate, and counting what is asked of them.

Theory
    A worker learns its shares from the controller (`controller/shares.py`) and tells it four times a second what was
    asked of each bucket, in units of what all workers together may pass. A bucket is asked for tokens by every request
    that the levels before it let pass, whether it refuses it or not.

    Clients are too many to be told one by one. Each starts with an even part of its rate, and its whole burst
    (`bucket.py`). One that has used half of that is *hot*: from then on it is counted and told, and the controller gives
    it shares by demand, as it does for routes. Its bucket then stands apart (`KeyedBuckets.leases`) until nobody asks
    for it any more.

Tables: the names of buckets, in what is asked and in shares
    *                     every bucket that is not named
    service, route:NAME   as scopes are written; client:ROUTE:KEY for a hot one
    isolation-7, …        the rate of a directive: its id

What can go wrong
    No controller: the shares stay as they are. More hot clients than `MAX_HOT`: those beyond it keep an even part. A
    share of a client that this worker never saw: its bucket is made, for it must be small when the client comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from sidecar.facts import Scope, ScopeKind
from sidecar.guard.bucket import Bucket, KeyedBuckets, Rate
from sidecar.guard.limit import ALL, ROUTE, RULES, SERVICE, Limits
from sidecar.guard.policies import BucketPolicy
from sidecar.reasons import Refusal, Would

MAX_HOT: Final = 128  # clients of one route
REST: Final = "*"
SERVICE_NAME: Final = str(Scope.service())
_HOT: Final = 0.5  # of the burst is used up


class Shares:
    """
    What part of each limit this worker may use.

    Args:
        rest: The part of every bucket that *named* does not name.
        named: Bucket → part.
    """

    __slots__ = ("clients", "named", "rest")

    def __init__(self, rest: float, named: Mapping[str, float] | None = None) -> None:
        self.rest = rest
        self.named = dict(named or {})
        self.clients: dict[str, dict[str, float]] = {}
        for name, share in self.named.items():
            kind, _, rest_of_name = name.partition(":")
            if kind == ScopeKind.CLIENT:
                route, _, key = rest_of_name.partition(":")
                self.clients.setdefault(route, {})[key] = share

    def __repr__(self) -> str:
        return f"<Shares rest={self.rest:g} named={len(self.named)}>"

    @classmethod
    def even(cls, workers: int) -> Shares:
        """Return what each worker has before it is told anything."""
        return cls(1.0 / workers)

    def of(self, name: str) -> float:
        """Return the part of bucket *name*."""
        return self.named.get(name, self.rest)

    def rates_of_clients(self, route: str, policy: BucketPolicy, workers: int, unit: float) -> dict[str, Rate]:
        """Return the rate of each client of *route* that has a share of its own."""
        return {
            key: Rate(policy, workers, share, unit) for key, share in self.clients.get(route, {}).items() if share > 0.0
        }


class LeasedLimits(Limits):
    """The three levels, in a worker among several."""

    __slots__ = ("_hot", "_hot_s", "_passed", "_refused_route", "_refused_service")

    def __init__(
        self, client: KeyedBuckets | None, route: Bucket | None, service: Bucket | None, cost: float = 1.0
    ) -> None:
        self._passed = self._refused_route = self._refused_service = 0
        self._hot: dict[str, int] = {}
        self._hot_s = 0.0
        super().__init__(client, route, service, cost)

    def bind(self) -> None:
        """Take up the numbers of the three buckets, as they are now."""
        super().bind()
        if self._client is not None:
            self._hot_s = _HOT * self._client.rate.burst * self._client.rate.cost

    def take(self, client: str, now: float) -> Refusal | None:
        """Do what `Limits.take` does, and count what was asked."""
        keyed = self._client
        if keyed is not None and keyed.leases and client in keyed.leases:
            refusal = self.refusal(client, now)
            self._taken = 0
            if refusal is None:
                self._charge(client, now, ALL)
        else:
            refusal = Limits.take(self, client, now)  # super() costs 60 ns here
            if refusal is None:
                self._passed += 1
                if keyed is not None and keyed.tats.get(client, now) - now > self._hot_s:
                    self._heat(keyed, client, now)
                return None
        self._count(client, "" if refusal is None else refusal.rule, now)
        return refusal

    def take_observing(self, client: str, now: float, would: list[Would], *, lenient: bool) -> Refusal | None:
        """Do what `Limits.take_observing` does, and count what was asked."""
        if self.plain and not lenient:
            return self.take(client, now)
        noted = len(would)
        refusal = super().take_observing(client, now, would, lenient=lenient)
        found = refusal or (would[noted].refusal if len(would) > noted else None)
        self._count(client, "" if found is None else found.rule, now)
        return refusal

    def held_back(self, client: str, rule: str, now: float) -> None:
        """Count what a re-arrival asked for."""
        self._count(client, rule, now)

    def _count(self, client: str, rule: str, now: float) -> None:
        self._passed += not rule
        self._refused_route += rule == RULES[ROUTE]
        self._refused_service += rule == RULES[SERVICE]
        if self._client is not None:
            self._heat(self._client, client, now)

    def _heat(self, keyed: KeyedBuckets, client: str, now: float) -> None:
        """Count a request of *client* if it is hot; never one that shares the overflow bucket."""
        if client in self._hot:
            self._hot[client] += 1
        elif len(self._hot) < MAX_HOT and (client in keyed.leases or keyed.tats.get(client, now) - now > self._hot_s):
            self._hot[client] = 1

    def asked(self) -> Iterator[tuple[str, float, float]]:
        """
        Yield what was asked since the last call: bucket, tokens, and how many tokens a second there are at all.

        A bucket is `service`, `route`, or a colon and the key of a hot client.
        """
        to_service = self._passed + self._refused_service
        to_route = to_service + self._refused_route
        if self._service is not None:
            yield SERVICE_NAME, to_service * self.cost, self._service.rate.pool
        if self._route is not None:
            yield "route", to_route * self.cost, self._route.rate.pool
        if self._client is not None:
            pool = self._client.rate.pool
            yield from ((f":{key}", count * self.cost, pool) for key, count in self._hot.items())
        self._passed = self._refused_route = self._refused_service = 0
        self._hot = {}

    # --- a client with a share of its own ----------------------------------------------------------------------------

    def _client_row(self, keyed: KeyedBuckets, client: str, now: float) -> tuple[Rate, float]:
        bucket = keyed.leases.get(client)
        return super()._client_row(keyed, client, now) if bucket is None else (bucket.rate, bucket.tat)

    def _charge_client(self, keyed: KeyedBuckets, client: str, now: float) -> None:
        bucket = keyed.leases.get(client)
        if bucket is None:
            super()._charge_client(keyed, client, now)
        else:
            bucket.charge(now, self.cost)

    def _return_client(self, keyed: KeyedBuckets, client: str) -> None:
        bucket = keyed.leases.get(client)
        if bucket is None:
            super()._return_client(keyed, client)
        else:
            bucket.tat -= self.cost * bucket.rate.cost
