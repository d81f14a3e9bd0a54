"""
The limits of one request: client → route → service, and all or nothing.

Theory
    `bucket.py` says what one bucket does. Here three of them act as one: tokens are taken only if every level passes, so
    one abuser cannot drain what others share. The first level that refuses names the reason; Retry-After is the longest
    wait of all that refuse. A request takes its route's `cost` in tokens at every level, so a search can weigh ten times
    a read.

Levels
    level     refuses, enforced            refuses, observed
    -------   --------------------------   -----------------------------------------------------------
    enforced  nobody is charged            enforced levels are charged as if the observed did not exist,
    observed  nobody is charged            observed ones only when every level passes (what would have been)

What can go wrong
    A later guard refuses: `cancel` gives the tokens back. The cost exceeds a burst: it would never pass, the config
    refuses it; here a burst is never less than the cost.
"""

# ruff: noqa: FURB136 - on the hot path a conditional costs a third of a call of max()

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Final

from sidecar.facts import OVERFLOW, Mode
from sidecar.guard.bucket import EPSILON_S, KEPT, Bucket, KeyedBuckets, Rate
from sidecar.guard.policies import LimitMode, LimitPolicy
from sidecar.reasons import Reason, Refusal, Would

_PLENTY: Final = float("inf")
CLIENT, ROUTE, SERVICE = 1, 2, 4
ALL: Final = CLIENT | ROUTE | SERVICE
NAMES: Final = {CLIENT: "client", ROUTE: "route", SERVICE: "service"}
RULES: Final = {CLIENT: "limit.per_client", ROUTE: "limit", SERVICE: "service.limit"}


class Limits:
    """
    The three levels that a request of one route meets; the service's bucket is shared with the other routes.

    Args:
        client, route, service: None where there is no such limit.
        cost: Tokens that one request takes at each level.
    """

    __slots__ = (
        "_client", "_client_slack", "_client_step", "_field_texts", "_route", "_route_slack", "_route_step",
        "_said", "_service", "_service_slack", "_service_step", "_taken", "_told", "cost", "plain",
    )  # fmt: skip

    def __init__(
        self, client: KeyedBuckets | None, route: Bucket | None, service: Bucket | None, cost: float = 1.0
    ) -> None:
        self._client, self._route, self._service = client, route, service
        self.cost = cost
        self._taken = 0
        self._said = ("", 0, 0, b"")
        shared = ((ROUTE, route), (SERVICE, service))
        rates = ((CLIENT, client), *shared)
        self._field_texts = {
            NAMES[level]: _fields_of(NAMES[level], bucket.rate.header(NAMES[level], cost))
            for level, bucket in rates
            if bucket is not None
        }
        #: No level observes: `take` is enough.
        self.plain = not any(level is not None and level.observed for level in (client, route, service))
        self.bind()

    def __repr__(self) -> str:
        return f"<Limits client={self._client} route={self._route} service={self._service}>"

    def bind(self) -> None:
        """Take up the numbers of the three buckets, as they are now."""
        # Kept here and not read from the buckets, because a request of another route may take another cost.
        self._client_slack, self._client_step = _numbers(self._client, self.cost)
        self._route_slack, self._route_step = _numbers(self._route, self.cost)
        self._service_slack, self._service_step = _numbers(self._service, self.cost)
        told = ((ROUTE, self._route), (SERVICE, self._service))
        self._told = [
            (NAMES[level], bucket, bucket.rate.burst, bucket.rate.rate)
            for level, bucket in told
            if bucket is not None and not bucket.observed
        ]

    def take(self, client: str, now: float) -> Refusal | None:
        """
        Take the request's tokens at every level, or none and return why.

        Only for `plain` limits; the hot path, so the three levels stand here in full.
        """
        keyed, route, service = self._client, self._route, self._service
        client_tat: float | None = now
        if keyed is not None:
            tats = keyed.tats
            client_tat = tats.get(client)
            if client_tat is None:
                client = keyed.place(client, now)
                client_tat = tats[client]
            if client_tat - self._client_slack > now:
                return self.refusal(client, now)
        if route is not None and route.tat - self._route_slack > now:
            return self.refusal(client, now)
        if service is not None:
            tat = service.tat
            if tat - self._service_slack > now:
                return self.refusal(client, now)
            service.tat = (tat if tat > now else now) + self._service_step
        if route is not None:
            tat = route.tat
            route.tat = (tat if tat > now else now) + self._route_step
        if keyed is not None and client_tat is not None:
            tats[client] = (client_tat if client_tat > now else now) + self._client_step
        self._taken = ALL
        return None

    def take_observing(self, client: str, now: float, would: list[Would], *, lenient: bool) -> Refusal | None:
        """
        Do what `take` does where some levels only observe, or all of them because *lenient*.

        What an observed level would have refused is appended to *would*.
        """
        if self.plain and not lenient:
            return self.take(client, now)
        waits = self._waits(client, now)
        enforced = {level: wait for level, wait in waits.items() if not (lenient or self._observed(level))}
        refusal = self._refusal(enforced)
        if refusal is not None:
            self._taken = 0
            return refusal
        observed = self._refusal(waits)
        if observed is None:
            self._charge(client, now, ALL)
        else:
            would.append(Would(observed))
            self._charge(client, now, 0 if lenient else sum(enforced))
        return None

    def refusal(self, client: str, now: float) -> Refusal | None:
        """Return why a request of *client* would be refused now, taking nothing."""
        return self._refusal(self._waits(client, now))

    def spare(self, client: str, now: float) -> Refusal | None:
        """Return why a re-arrival of *client* is refused: it may not take what is kept of a shared burst; see `spare.py`."""
        waits = {level: wait for level, wait in self._waits(client, now).items() if not self._observed(level)}
        for level, bucket in ((ROUTE, self._route), (SERVICE, self._service)):
            if bucket is not None and level in waits:
                waits[level] += KEPT * bucket.rate.burst * bucket.rate.cost
        refusal = self._refusal(waits)
        if refusal is None or refusal.rule == RULES[CLIENT]:
            return refusal
        return replace(refusal, detail=f"{refusal.detail}, {KEPT:.0%} of it kept for first tries")

    def held_back(self, client: str, rule: str, now: float) -> None:
        """Note that a re-arrival was refused because of *rule*: it was asked for, and several workers share by what is."""

    def spacing_s(self, client: str) -> tuple[float, float]:
        """Return the seconds between two requests at the route's rate, and at the client's; 0 where there is none."""
        route_s = 0.0 if self._route is None else self._route_step
        if self._client is None:
            return route_s, 0.0
        rate, _ = self._client_row(self._client, client, 0.0)
        return route_s, self.cost * rate.cost

    def cancel(self, client: str) -> None:
        """Give back what the last `take` of *client* took: a later guard refused the request."""
        if self._service is not None and self._taken & SERVICE:
            self._service.tat -= self._service_step
        if self._route is not None and self._taken & ROUTE:
            self._route.tat -= self._route_step
        if self._client is not None and self._taken & CLIENT:
            self._return_client(self._client, client)
        self._taken = 0

    def remaining(self, now: float) -> dict[str, float]:
        """Return the tokens left by level, of the levels that all clients share; a worker's part of them."""
        levels = ((ROUTE, self._route), (SERVICE, self._service))
        return {
            NAMES[level]: bucket.rate.part * bucket.rate.tokens(bucket.tat, now)
            for level, bucket in levels
            if bucket is not None
        }

    def fields(self, client: str, now: float) -> bytes:
        """
        Return the field lines `RateLimit-Policy` and `RateLimit` for the most binding enforced level, or nothing.

        Binding most is the level with the fewest tokens left; `q` is the quota, `w` the seconds that refill it, `r`
        the requests left and `t` the seconds until the quota is whole again, rounded up. Written into every answer,
        so without calls.

        Source: draft-ietf-httpapi-ratelimit-headers-10.
        """
        binding, fewest, debt_s = "", _PLENTY, 0.0
        keyed = self._client
        if keyed is not None and not keyed.observed:
            rate, known = keyed.rate, keyed.tats.get(client)
            if known is None or keyed.leases:
                rate, known = self._client_row(keyed, client, now)
            binding, debt_s = "client", known - now
            fewest = rate.burst - debt_s * rate.rate if debt_s > 0.0 else rate.burst
        for name, bucket, burst, per_s in self._told:
            owed_s = bucket.tat - now
            left = burst - owed_s * per_s if owed_s > 0.0 else burst
            if left < fewest:
                fewest, binding, debt_s = left, name, owed_s
        if not binding:
            return b""
        reset_s = ceil(debt_s - EPSILON_S) if debt_s > 0.0 else 0
        requests = fewest / self.cost + EPSILON_S if fewest > 0.0 else 0.0
        said, said_left, said_reset_s, text = self._said
        if binding == said and said_left <= requests < said_left + 1.0 and reset_s == said_reset_s:
            return text
        return self._say(binding, int(requests), reset_s)

    def _say(self, binding: str, left: int, reset_s: int) -> bytes:
        """Write the field lines, and keep them: most clients are far from their limits, so the next answer says the same."""
        text = b"%b%d;t=%d\r\n" % (self._field_texts[binding], left, reset_s)
        self._said = binding, left, reset_s, text
        return text

    # --- the parts that a client's own share changes ---------------------------------------------------------------

    def _client_row(self, keyed: KeyedBuckets, client: str, now: float) -> tuple[Rate, float]:
        tat = keyed.tats.get(client)
        return keyed.rate, (keyed.tat(client, now) if tat is None else tat)

    def _charge_client(self, keyed: KeyedBuckets, client: str, now: float) -> None:
        key = client if client in keyed.tats else keyed.place(client, now)
        keyed.tats[key] = max(keyed.tats[key], now) + self._client_step

    def _return_client(self, keyed: KeyedBuckets, client: str) -> None:
        keyed.tats[client if client in keyed.tats else OVERFLOW] -= self._client_step

    # --- one level after the other -----------------------------------------------------------------------------------

    def _observed(self, level: int) -> bool:
        bucket = {CLIENT: self._client, ROUTE: self._route, SERVICE: self._service}[level]
        return bucket is not None and bucket.observed

    def _waits(self, client: str, now: float) -> dict[int, float]:
        waits = {}
        if self._client is not None:
            rate, tat = self._client_row(self._client, client, now)
            waits[CLIENT] = tat - rate.slack(self.cost) - now
        if self._route is not None:
            waits[ROUTE] = self._route.tat - self._route_slack - now
        if self._service is not None:
            waits[SERVICE] = self._service.tat - self._service_slack - now
        return waits

    def _charge(self, client: str, now: float, levels: int) -> None:
        self._taken = levels
        if self._service is not None and levels & SERVICE:
            self._service.tat = max(self._service.tat, now) + self._service_step
        if self._route is not None and levels & ROUTE:
            self._route.tat = max(self._route.tat, now) + self._route_step
        if self._client is not None and levels & CLIENT:
            self._charge_client(self._client, client, now)

    def _refusal(self, waits: dict[int, float]) -> Refusal | None:
        first = next((level for level, wait in waits.items() if wait > 0), None)
        if first is None:
            return None
        bucket = {CLIENT: self._client, ROUTE: self._route, SERVICE: self._service}[first]
        assert bucket is not None
        return Refusal(Reason.RATE_LIMITED, max(waits.values()), RULES[first], bucket.rate.text)


def _numbers(bucket: Bucket | KeyedBuckets | None, cost: float) -> tuple[float, float]:
    """Return how far ahead the TAT may be, and how far a request moves it, in seconds."""
    return (0.0, 0.0) if bucket is None else (bucket.rate.slack(cost), cost * bucket.rate.cost)


def _fields_of(level: str, policy: str) -> bytes:
    """Return the two field lines of a level up to the number of requests left."""
    return f'ratelimit-policy: {policy}\r\nratelimit: "{level}";r='.encode("ascii")


def observes(mode: LimitMode, overall: Mode) -> bool:
    """Tell whether a limit of *mode* only counts; `shape` decides like `enforce`, waiting is the caller's part."""
    return mode is LimitMode.OBSERVE or overall is Mode.OBSERVE


def runs(policy: LimitPolicy, overall: Mode) -> bool:
    """Tell whether *policy* keeps buckets at all."""
    return policy.mode is not LimitMode.OFF and overall is not Mode.OFF


def kept(old: Bucket | None, rate: Rate | None, *, observed: bool, now: float) -> Bucket | None:
    """Return *old* going on under *rate*, a new full bucket, or None when there is no limit."""
    if rate is None:
        return None
    if old is None:
        return Bucket(rate, observed=observed, now=now)
    old.apply(rate, observed=observed, now=now)
    return old
