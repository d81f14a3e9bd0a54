"""
One token bucket as one float, for everybody of a level or for each client, in one worker or shared by several.

Theory
    GCRA (ITU-T I.371) keeps one float a key, the *theoretical arrival time* TAT, and equals a token bucket of `burst`
    refilled at `rate`. With T = 1/rate a request of c tokens at `now` conforms when TAT ≤ now + (burst − c)·T, and then
    TAT' = max(TAT, now) + c·T. The bucket is full when TAT ≤ now; the tokens left are burst − max(0, TAT − now)·rate; the
    next c come in TAT − (burst − c)·T − now. So admitted in any window *w* is at most burst + rate·w, and a `now` that
    goes backwards only makes the debt look larger: it grants nothing.

Several workers: one limit
    Of N workers each may only use its *share* f of the rate, and the controller sees to Σf ≤ 1 at every moment
    (`controller/shares.py`). Bursts are not moved about: a token that is moved twice is easily spent twice. Instead each
    worker has a burst of its own, and a part of the rate is spared for it. With M = burst + 60·rate, the most that may
    pass in a minute,

        spared  = 2 % of the rate, or as much as one token for every worker needs, at most half
        rateᵢ   = fᵢ · (1 − spared) · rate                          Σ rateᵢ  ≤ (1 − spared)·rate
        burstᵢ  = min(burst, (burst + 60·spared·rate) / N)          Σ burstᵢ ≤ burst + 60·spared·rate

    so in any minute at most Σ burstᵢ + 60·Σ rateᵢ ≤ M pass, however requests are spread over the workers and however the
    shares move: a new share changes the rate and keeps the tokens, so it mints none. At the usual burst of one or two
    seconds two workers have (nearly) the whole burst each. A client that uses one worker alone has its whole burst at
    once and 1/N of its rate; before that is used up it is *hot*, and gets a share of its own (`leased.py`).

Keys
    The table holds at most `max_keys`. When it is full a new key may only take the place of one whose bucket is full
    (TAT ≤ now): that key loses nothing, for it would return with a full bucket anyway. Is there none near the hand
    of the clock, the new key shares the overflow bucket: an evicted debtor never comes back with a full bucket
    (envoy gateway#9973), and 1,000,000 random keys together get what one client gets.

Live change
    TAT' = now + min((TAT − now)·rate_old/rate_new, burst_new/rate_new): tokens owed stay owed, but never more than a
    whole bucket, so the rollback of a far too low limit frees its clients at once. 100,000 keys take about 10 ms.

What can go wrong
    Floats: at 10⁷ s of uptime a double still resolves 2 ns; `EPSILON_S` lets the request pass that comes exactly at its
    Retry-After. Limits of fewer tokens a minute than there are workers: every worker still passes one, so N pass where
    M < N would be right. A worker that dies takes its tokens with it, and its successor begins with a full bucket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import ceil
from typing import Final

from sidecar.facts import OVERFLOW
from sidecar.guard.policies import BucketPolicy

EPSILON_S: Final = 1e-9
SPARED: Final = 0.02  # of the rate, for the bursts of several workers
_MOST_SPARED: Final = 0.5
_MINUTE_S: Final = 60.0
KEPT: Final = 0.5  # of a burst, for first tries: what asks again too soon may not take it (`spare.py`)
_INSPECTED: Final = 4  # keys that one unknown key may look at for a place
_LEASED: Final = float("inf")  # the table's entry of a key that has a bucket of its own


def spread(policy: BucketPolicy, workers: int, unit: float = 1.0) -> tuple[float, float]:
    """
    Return the rate that all *workers* together may use, and the burst of each; see *Several workers* above.

    Args:
        policy: The limit.
        workers: How many share it.
        unit: The most tokens that one request takes: no burst is smaller.
    """
    if workers == 1:
        return policy.rate_per_s, max(unit, policy.burst)
    minute = _MINUTE_S * policy.rate_per_s
    missing = workers * unit - policy.burst
    spared = min(_MOST_SPARED, max(SPARED, missing / minute))
    burst = min(policy.burst, (policy.burst + spared * minute) / workers)
    return policy.rate_per_s * (1.0 - spared), max(unit, burst)


class Rate:
    """
    The numbers of one bucket in one worker, as the arithmetic needs them.

    Args:
        policy: The limit.
        workers: How many share it.
        share: This worker's part of the rate, 0..1; an even part when None.
        unit: The most tokens that one request takes.
    """

    __slots__ = ("burst", "cost", "part", "policy", "pool", "rate", "text")

    def __init__(self, policy: BucketPolicy, workers: int = 1, share: float | None = None, unit: float = 1.0) -> None:
        self.policy = policy
        self.pool, self.burst = spread(policy, workers, unit)
        self.rate = self.pool * (1.0 / workers if share is None else share)
        self.cost = 1.0 / self.rate
        self.part = policy.burst / (workers * self.burst)
        self.text = f"{policy.rate_per_s:g}/s burst {policy.burst:g}" + (f" over {workers} workers" * (workers > 1))

    def __repr__(self) -> str:
        return f"<Rate {self.text}>"

    def slack(self, tokens: float = 1.0) -> float:
        """Return how far ahead of now the TAT may be for a request of *tokens*, in seconds."""
        return (self.burst - tokens) * self.cost + EPSILON_S

    def tokens(self, tat: float, now: float) -> float:
        """Return the tokens left at *now*, 0..burst."""
        return max(0.0, min(self.burst, self.burst - (tat - now) * self.rate))

    def header(self, level: str, tokens: float = 1.0) -> str:
        """Return the quota of *level*, in requests of *tokens*, as `RateLimit-Policy` writes it."""
        policy = self.policy
        window_s = max(1, ceil(policy.burst / policy.rate_per_s - EPSILON_S))
        return f'"{level}";q={int(policy.burst / tokens)};w={window_s}'

    def converted(self, tat: float, now: float, new: Rate) -> float:
        """Return the TAT that owes the same tokens under *new*, at most a whole bucket."""
        return now + min((tat - now) * self.rate / new.rate, new.burst / new.rate)


class Bucket:
    """One bucket that all requests of a level share."""

    __slots__ = ("observed", "rate", "tat")

    def __init__(self, rate: Rate, *, observed: bool, now: float) -> None:
        self.tat = now
        self.observed = observed
        self.rate = rate

    def __repr__(self) -> str:
        return f"<Bucket {self.rate.text} tat={self.tat:.3f}>"

    def apply(self, rate: Rate, *, observed: bool, now: float) -> None:
        """Go on under *rate* with the tokens that are owed."""
        if self.tat > now:
            self.tat = self.rate.converted(self.tat, now, rate)
        self.observed = observed
        self.rate = rate

    def wait_s(self, now: float, tokens: float = 1.0) -> float:
        """Return the seconds until a request of *tokens* conforms; 0 when it does now."""
        return max(0.0, self.tat - self.rate.slack(tokens) - now)

    def charge(self, now: float, tokens: float = 1.0) -> None:
        """Take *tokens*; the caller asked `wait_s` before."""
        self.tat = max(self.tat, now) + tokens * self.rate.cost


class KeyedBuckets:
    """
    One bucket a client key, bounded; the overflow bucket is one more entry of the same table.

    Attributes:
        tats: Key → TAT; infinite while the key has a bucket in `leases`.
        leases: Keys that have a share of their own; only with several workers.
    """

    __slots__ = ("_clock", "leases", "max_keys", "observed", "rate", "tats")

    def __init__(self, rate: Rate, max_keys: int, *, observed: bool) -> None:
        self.tats: dict[str, float] = {}
        self.leases: dict[str, Bucket] = {}
        self._clock: deque[str] = deque()
        self.observed = observed
        self.max_keys = max_keys
        self.rate = rate

    def __repr__(self) -> str:
        return f"<KeyedBuckets {self.rate.text} keys={len(self._clock)}/{self.max_keys}>"

    def __len__(self) -> int:
        return len(self._clock)

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
        """
        Go on under *rate* with the tokens that each key owes; the fullest keys beyond *max_keys* go.

        Leases end: the caller gives them anew, under the new rate.
        """
        self.lease({}, now)
        old = self.rate
        self.observed = observed
        self.rate = rate
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

    def lease(self, rates: Mapping[str, Rate], now: float) -> None:
        """Give each key of *rates* a bucket of its own, and take back every other: what is owed stays owed."""
        for key in [key for key in self.leases if key not in rates]:
            bucket = self.leases.pop(key)
            tat = bucket.rate.converted(bucket.tat, now, self.rate)
            if key in self.tats or (tat > now and len(self._clock) < self.max_keys and self.place(key, now) == key):
                self.tats[key] = tat
        for key, rate in rates.items():
            known = self.leases.get(key)
            if known is not None:
                known.apply(rate, observed=self.observed, now=now)
                continue
            bucket = self.leases[key] = Bucket(rate, observed=self.observed, now=now)
            if key in self.tats:
                bucket.tat = self.rate.converted(self.tats[key], now, rate)
                self.tats[key] = _LEASED

    def tat(self, key: str, now: float) -> float:
        """Return the TAT that a request of *key* would meet at *now*, changing nothing."""
        tat = self.tats.get(key)
        if tat is None and len(self._clock) >= self.max_keys:
            tat = self.tats.get(OVERFLOW)
        return now if tat is None else tat
