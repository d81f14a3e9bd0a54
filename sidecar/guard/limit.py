"""
Token buckets: how many requests may pass, by client, by route and for the service.

Theory
    GCRA (ITU-T I.371) keeps one float a key, the *theoretical arrival time* TAT, and equals a token bucket of `burst`
    refilled at `rate`. With cost T = 1/rate and slack = (burst − 1)·T a request at `now` conforms when
    TAT ≤ now + slack, and then TAT' = max(TAT, now) + T. The bucket is full when TAT ≤ now; the tokens left are
    burst − max(0, TAT − now)·rate; the next token comes in TAT − slack − now. So admitted in any window *w* is at most
    burst + rate·w, and a `now` that goes backwards only makes the debt look larger: it grants nothing.

Levels
    client → route → service. Tokens are taken only if every level passes, so one abuser cannot drain what others
    share. The first level that refuses names the reason; Retry-After is the longest wait of all that refuse.

    level     refuses, enforced            refuses, observed
    -------   --------------------------   -----------------------------------------------------------
    enforced  nobody is charged            enforced levels are charged as if the observed did not exist,
    observed  nobody is charged            observed ones only when every level passes (what would have been)

Keys
    The table holds at most `max_keys`. When it is full a new key may only take the place of one whose bucket is full
    (TAT ≤ now): that key loses nothing, for it would return with a full bucket anyway. Is there none near the hand
    of the clock, the new key shares the overflow bucket: an evicted debtor never comes back with a full bucket
    (envoy gateway#9973), and 1,000,000 random keys together get what one client gets.

Live change
    TAT' = now + min((TAT − now)·rate_old/rate_new, burst_new/rate_new): tokens owed stay owed, but never more than a
    whole bucket, so the rollback of a far too low limit frees its clients at once. 100,000 keys take about 10 ms.

What can go wrong
    Floats: at 10⁷ s of uptime a double still resolves 2 ns; `_EPSILON` lets the request pass that comes exactly at its
    Retry-After. With N workers each one has rate/N and burst/N (never under one token), which is exact only when the
    load is spread evenly.
"""

# ruff: noqa: FURB136 - on the hot path a conditional costs a third of a call of max()

from __future__ import annotations

from collections import deque
from math import ceil
from typing import Final

from sidecar.facts import OVERFLOW, Mode
from sidecar.guard.policies import BucketPolicy, LimitMode, LimitPolicy
from sidecar.reasons import Reason, Refusal

_EPSILON: Final = 1e-9  # s
_PLENTY: Final = float("inf")
_INSPECTED: Final = 4  # keys that one unknown key may look at for a place
_CLIENT, _ROUTE, _SERVICE = 1, 2, 4
NAMES: Final = {_CLIENT: "client", _ROUTE: "route", _SERVICE: "service"}
_RULES: Final = {_CLIENT: "limit.per_client", _ROUTE: "limit", _SERVICE: "service.limit"}


class Rate:
    """The numbers of one bucket policy, shared out over the workers, as the arithmetic needs them."""

    __slots__ = ("burst", "cost", "rate", "slack", "text")

    def __init__(self, policy: BucketPolicy, workers: int) -> None:
        self.rate = policy.rate_per_s / workers
        self.burst = max(1.0, policy.burst / workers)
        self.cost = 1.0 / self.rate
        self.slack = (self.burst - 1.0) * self.cost + _EPSILON
        self.text = f"{policy.rate_per_s:g}/s burst {policy.burst:g}" + (f" over {workers} workers" * (workers > 1))

    def __repr__(self) -> str:
        return f"<Rate {self.text}>"

    def tokens(self, tat: float, now: float) -> float:
        """Return the tokens left at *now*, 0..burst."""
        return max(0.0, min(self.burst, self.burst - (tat - now) * self.rate))

    def header(self, level: str) -> str:
        """Return the quota of *level* as `RateLimit-Policy` writes it."""
        return f'"{level}";q={int(self.burst)};w={max(1, ceil(self.burst * self.cost - _EPSILON))}'

    def converted(self, tat: float, now: float, new: Rate) -> float:
        """Return the TAT that owes the same tokens under *new*, at most a whole bucket."""
        return now + min((tat - now) * self.rate / new.rate, new.burst / new.rate)


class Bucket:
    """One bucket that all requests of a level share."""

    __slots__ = ("cost", "observed", "rate", "slack", "tat")

    def __init__(self, rate: Rate, *, observed: bool, now: float) -> None:
        self.tat = now
        self.observed = observed
        self._bind(rate)

    def __repr__(self) -> str:
        return f"<Bucket {self.rate.text} tat={self.tat:.3f}>"

    def _bind(self, rate: Rate) -> None:
        self.rate, self.cost, self.slack = rate, rate.cost, rate.slack

    def apply(self, rate: Rate, *, observed: bool, now: float) -> None:
        """Go on under *rate* with the tokens that are owed."""
        if self.tat > now:
            self.tat = self.rate.converted(self.tat, now, rate)
        self.observed = observed
        self._bind(rate)

    def wait_s(self, now: float) -> float:
        """Return the seconds until one more request conforms; 0 when it does now."""
        return max(0.0, self.tat - self.slack - now)

    def charge(self, now: float) -> None:
        """Take one token; the caller asked `wait_s` before."""
        self.tat = max(self.tat, now) + self.cost


class KeyedBuckets:
    """One bucket a client key, bounded; the overflow bucket is one more entry of the same table."""

    __slots__ = ("_clock", "cost", "max_keys", "observed", "rate", "slack", "tats")

    def __init__(self, rate: Rate, max_keys: int, *, observed: bool) -> None:
        self.tats: dict[str, float] = {}
        self._clock: deque[str] = deque()
        self.observed = observed
        self.max_keys = max_keys
        self._bind(rate)

    def __repr__(self) -> str:
        return f"<KeyedBuckets {self.rate.text} keys={len(self._clock)}/{self.max_keys}>"

    def __len__(self) -> int:
        return len(self._clock)

    def _bind(self, rate: Rate) -> None:
        self.rate, self.cost, self.slack = rate, rate.cost, rate.slack

    def place(self, key: str, now: float) -> str:
        """Return the table's entry for an unknown *key*: itself with a full bucket, or the overflow bucket."""
        tats = self.tats
        if len(self._clock) >= self.max_keys and not self.sweep(now, _INSPECTED, until=1):
            tats.setdefault(OVERFLOW, now)
            return OVERFLOW
        tats[key] = now
        self._clock.append(key)
        return key

    def sweep(self, now: float, inspected: int, *, until: int | None = None) -> int:
        """Look at *inspected* keys, drop those with a full bucket (at most *until*) and return how many went."""
        tats, clock, gone = self.tats, self._clock, 0
        for _ in range(min(inspected, len(clock))):
            key = clock.popleft()
            if tats[key] > now:
                clock.append(key)
                continue
            del tats[key]
            gone += 1
            if gone == until:
                break
        return gone

    def apply(self, rate: Rate, max_keys: int, *, observed: bool, now: float) -> None:
        """Go on under *rate* with the tokens that each key owes; the fullest keys beyond *max_keys* go."""
        old = self.rate
        self.observed = observed
        self._bind(rate)
        self.max_keys = max_keys
        if (old.rate, old.burst) != (rate.rate, rate.burst):
            self.tats = {key: old.converted(tat, now, rate) for key, tat in self.tats.items() if tat > now}
        overflow = self.tats.pop(OVERFLOW, None)
        if len(self.tats) > max_keys:
            # What the dropped keys owe is owed by the bucket that they will share.
            debtors = sorted(self.tats.items(), key=lambda item: -item[1])
            self.tats = dict(debtors[:max_keys])
            overflow = max(now if overflow is None else overflow, debtors[max_keys][1])
        self._clock = deque(self.tats)
        if overflow is not None:
            self.tats[OVERFLOW] = overflow

    def tat(self, key: str, now: float) -> float:
        """Return the TAT that a request of *key* would meet at *now*, changing nothing."""
        tat = self.tats.get(key)
        if tat is None and len(self._clock) >= self.max_keys:
            tat = self.tats.get(OVERFLOW)
        return now if tat is None else tat


class Limits:
    """The three levels that a request of one route meets; the service's bucket is shared with the other routes."""

    __slots__ = ("_client", "_policy_texts", "_route", "_service", "_shared", "_taken", "plain")

    def __init__(self, client: KeyedBuckets | None, route: Bucket | None, service: Bucket | None) -> None:
        self._client, self._route, self._service = client, route, service
        self._taken = 0
        shared = ((_ROUTE, route), (_SERVICE, service))
        self._shared = [
            (NAMES[level], bucket) for level, bucket in shared if bucket is not None and not bucket.observed
        ]
        self._policy_texts = {NAMES[level]: rate.header(NAMES[level]) for level, rate, _ in self._rates("", 0.0)}
        #: No level observes: `take` is enough.
        self.plain = not any(level is not None and level.observed for level in (client, route, service))

    def __repr__(self) -> str:
        return f"<Limits client={self._client} route={self._route} service={self._service}>"

    def take(self, client: str, now: float) -> Refusal | None:
        """
        Take one token at every level, or none and return why.

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
            if client_tat - keyed.slack > now:
                return self._refuse(client, now)
        if route is not None and route.tat - route.slack > now:
            return self._refuse(client, now)
        if service is not None:
            tat = service.tat
            if tat - service.slack > now:
                return self._refuse(client, now)
            service.tat = (tat if tat > now else now) + service.cost
        if route is not None:
            tat = route.tat
            route.tat = (tat if tat > now else now) + route.cost
        if keyed is not None and client_tat is not None:
            tats[client] = (client_tat if client_tat > now else now) + keyed.cost
        self._taken = 7
        return None

    def take_observing(self, client: str, now: float, would: list[Refusal], *, lenient: bool) -> Refusal | None:
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
            self._charge(client, now, 7)
        else:
            would.append(observed)
            self._charge(client, now, 0 if lenient else sum(enforced))
        return None

    def cancel(self, client: str) -> None:
        """Give back what the last `take` of *client* took: a later guard refused the request."""
        if self._service is not None and self._taken & _SERVICE:
            self._service.tat -= self._service.cost
        if self._route is not None and self._taken & _ROUTE:
            self._route.tat -= self._route.cost
        if self._client is not None and self._taken & _CLIENT:
            tats = self._client.tats
            tats[client if client in tats else OVERFLOW] -= self._client.cost
        self._taken = 0

    def remaining(self, now: float) -> dict[str, float]:
        """Return the tokens left by level, of the levels that all clients share."""
        levels = ((_ROUTE, self._route), (_SERVICE, self._service))
        return {NAMES[level]: bucket.rate.tokens(bucket.tat, now) for level, bucket in levels if bucket is not None}

    def header(self, client: str, now: float) -> tuple[str, str] | None:
        """
        Return the values of `RateLimit-Policy` and `RateLimit` for the most binding enforced level.

        Binding most is the level with the fewest tokens left; `q` is the quota, `w` the seconds that refill it, `r`
        the requests left and `t` the seconds until the quota is whole again, rounded up. Written into every answer,
        so without calls.

        Source: draft-ietf-httpapi-ratelimit-headers-10.
        """
        binding, fewest, debt_s = "", _PLENTY, 0.0
        keyed = self._client
        if keyed is not None and not keyed.observed:
            tat = keyed.tats.get(client)
            debt_s = (keyed.tat(client, now) if tat is None else tat) - now
            fewest, binding = keyed.rate.burst - (debt_s * keyed.rate.rate if debt_s > 0.0 else 0.0), "client"
        for name, bucket in self._shared:
            owed_s = bucket.tat - now
            left = bucket.rate.burst - (owed_s * bucket.rate.rate if owed_s > 0.0 else 0.0)
            if left < fewest:
                fewest, binding, debt_s = left, name, owed_s
        if not binding:
            return None
        reset_s = ceil(debt_s - _EPSILON) if debt_s > 0.0 else 0
        return self._policy_texts[binding], f'"{binding}";r={int(fewest + _EPSILON) if fewest > 0.0 else 0};t={reset_s}'

    def _rates(self, client: str, now: float) -> list[tuple[int, Rate, float]]:
        rows = []
        if self._client is not None:
            rows.append((_CLIENT, self._client.rate, self._client.tat(client, now)))
        if self._route is not None:
            rows.append((_ROUTE, self._route.rate, self._route.tat))
        if self._service is not None:
            rows.append((_SERVICE, self._service.rate, self._service.tat))
        return rows

    def _observed(self, level: int) -> bool:
        bucket = {_CLIENT: self._client, _ROUTE: self._route, _SERVICE: self._service}[level]
        return bucket is not None and bucket.observed

    def _waits(self, client: str, now: float) -> dict[int, float]:
        return {level: tat - rate.slack - now for level, rate, tat in self._rates(client, now)}

    def _charge(self, client: str, now: float, levels: int) -> None:
        keyed, self._taken = self._client, levels
        if self._service is not None and levels & _SERVICE:
            self._service.tat = max(self._service.tat, now) + self._service.cost
        if self._route is not None and levels & _ROUTE:
            self._route.tat = max(self._route.tat, now) + self._route.cost
        if keyed is not None and levels & _CLIENT:
            key = client if client in keyed.tats else keyed.place(client, now)
            keyed.tats[key] = max(keyed.tats[key], now) + keyed.cost

    def _refuse(self, client: str, now: float) -> Refusal | None:
        return self._refusal(self._waits(client, now))

    def _refusal(self, waits: dict[int, float]) -> Refusal | None:
        first = next((level for level, wait in waits.items() if wait > 0), None)
        if first is None:
            return None
        bucket = {_CLIENT: self._client, _ROUTE: self._route, _SERVICE: self._service}[first]
        assert bucket is not None
        return Refusal(Reason.RATE_LIMITED, max(waits.values()), _RULES[first], bucket.rate.text)


def observes(mode: LimitMode, overall: Mode) -> bool:
    """Tell whether a limit of *mode* only counts; `shape` decides like `enforce`, waiting is the caller's part."""
    return mode is LimitMode.OBSERVE or overall is Mode.OBSERVE


def runs(policy: LimitPolicy, overall: Mode) -> bool:
    """Tell whether *policy* keeps buckets at all."""
    return policy.mode is not LimitMode.OFF and overall is not Mode.OFF


def kept(old: Bucket | None, policy: BucketPolicy | None, workers: int, *, observed: bool, now: float) -> Bucket | None:
    """Return *old* going on under *policy*, a new full bucket, or None when there is no policy."""
    if policy is None:
        return None
    rate = Rate(policy, workers)
    if old is None:
        return Bucket(rate, observed=observed, now=now)
    old.apply(rate, observed=observed, now=now)
    return old
