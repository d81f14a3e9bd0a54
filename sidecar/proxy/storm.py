"""
Who asks again too soon: the same client, method and path within the back-off after a refusal or a 5xx.

Theory
    A retry storm is load that an outage makes of itself. It is seen where it costs nothing to those who are served: only a
    request that ends in a refusal or a 5xx is remembered, with the moment until which its client was to wait. One that
    ends so again before that moment is a re-arrival. Amplification is arrivals / (arrivals − re-arrivals).

    Where re-arrivals are a tenth of what a route is asked (Google SRE, *Handling Overload*: a client's retry budget), they
    are a storm. From then on, until ten seconds after it, each request of that route is looked up before it is let in:
    re-arrivals get what first tries leave (`guard/spare.py`), and every 5xx of the API that says no Retry-After gets one.

Tables
    the wait after                      is
    our refusal                         what its Retry-After says, at least 1 s
    a 5xx of the API                    1 s
    each re-arrival in a row            twice as long as before, at least, up to 64 s; also in our Retry-After, where it is
                                        no exact time to a token that is the client's own

    a route       begins to rage                                            ceases
    re-arrivals   5 and a tenth of its arrivals, of a second or before      10 s after the last such second
                  (of which half counts a second later, a quarter then, …)

    memory    4,096 places of 17 bytes a worker, found by a hash; 65,536 while a storm rages. A newer key takes an older
              one's place

What can go wrong
    A million keys: places are overwritten, re-arrivals are missed, none is made up. A client that heeds its Retry-After is
    never one. A retry that is served well is not looked up, so what a storm costs after its cause is gone is not counted.
    Several workers: each knows what it answered itself; a retry on another connection may be a first try elsewhere.
    Jitter is a hash of who asks, salted anew in each process: it spreads clients, and moves none about.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Final, Protocol

from sidecar.guard.limit import CLIENT, RULES
from sidecar.reasons import TABLE, Reason, Refusal, RetryAfter

PLACES: Final = 4096
RAGING_PLACES: Final = 65_536
FIRST_S: Final = 1.0
MOST_DOUBLINGS: Final = 6
STORM_RATIO: Final = 0.1  # re-arrivals ÷ arrivals
STORM_LEAST: Final = 5.0  # re-arrivals
HOLD_S: Final = 10.0
_FADES: Final = 0.5  # a second
_SPREAD: Final = 0.5  # of a wait, at most, is jitter
_JITTER_BITS: Final = 0xFFFF
_SIGNED: Final = 2**63 - 1
_OWN_LIMIT: Final = RULES[CLIENT]


class Counters(Protocol):
    """What counts a re-arrival."""

    def rearrived(self) -> None:
        """Count one."""


class _Weather:
    """What one route was asked of late."""

    __slots__ = ("again", "arrivals", "recent", "recent_again", "until")

    def __init__(self) -> None:
        self.again = self.arrivals = 0
        self.recent = self.recent_again = self.until = 0.0

    def second(self, arrivals: int, again: int, now: float) -> bool:
        """Take up the totals and tell whether a storm rages."""
        self.recent = _FADES * self.recent + max(0, arrivals - self.arrivals)
        self.recent_again = _FADES * self.recent_again + max(0, again - self.again)
        self.arrivals, self.again = arrivals, again
        if self.recent_again >= max(STORM_LEAST, STORM_RATIO * self.recent):
            self.until = now + HOLD_S
        return now < self.until


class Storm:
    """
    The memory of one worker.

    Attributes:
        raging: The routes whose requests are looked up before they are let in.
        advises: Every 5xx of the API on such a route that says no Retry-After gets one.
    """

    __slots__ = ("_keys", "_mask", "_tries", "_until", "_weather", "advises", "raging")

    def __init__(self) -> None:
        self.raging: set[str] = set()
        self.advises = True
        self._weather: dict[str, _Weather] = {}
        self._make(PLACES)

    def __repr__(self) -> str:
        return (
            f"<Storm {sum(1 for key in self._keys if key)} of {len(self._keys)} places, raging: {sorted(self.raging)}>"
        )

    def second(self, counts: Mapping[str, tuple[int, int]], now: float) -> None:
        """
        See where a storm rages; about once a second.

        Args:
            counts: Arrivals and re-arrivals so far, of each route.
            now: Monotonic seconds.
        """
        self._weather = {route: self._weather.get(route) or _Weather() for route in counts}
        self.raging = {route for route, totals in counts.items() if self._weather[route].second(*totals, now)}
        wanted = RAGING_PLACES if self.raging else PLACES
        if wanted != len(self._keys):
            self._move(wanted)

    def comes_again(self, route: str, client: str, method: str, path: str, now: float) -> bool:
        """Tell whether this request asks again within its back-off, on a route where a storm rages."""
        if route not in self.raging:
            return False
        key = hash((route, client, method, path))
        place = key & self._mask
        return self._keys[place] == key & _SIGNED and now < self._until[place]

    def refused(
        self, counters: Counters, route: str, client: str, method: str, path: str, refusal: Refusal, now: float
    ) -> Refusal:
        """Remember a refusal, or a 5xx of ours, and return it with the wait that its client has earned."""
        if refusal.reason is Reason.DRILL:
            return refusal
        key = hash((route, client, method, path))
        tries = self._note(key, refusal.retry_after_s, now)
        if not tries:
            return refusal
        counters.rearrived()
        how, wait_s = TABLE[refusal.reason].retry_after, FIRST_S * 2.0**tries
        if how is RetryAfter.EXACT and route in self.raging and refusal.rule != _OWN_LIMIT:
            wait_s *= 1.0 + _jitter(key)
        elif how is not RetryAfter.JITTERED:
            return refusal
        return replace(refusal, retry_after_s=max(refusal.retry_after_s, wait_s))

    def failed(self, counters: Counters, route: str, client: str, method: str, path: str, now: float) -> None:
        """Remember a 5xx of the API."""
        if self._note(hash((route, client, method, path)), 0.0, now):
            counters.rearrived()

    def advice(self, route: str, client: str, method: str, path: str) -> bytes:
        """Return the field line Retry-After for one whose 5xx `failed` has remembered: its back-off and a jitter."""
        key = hash((route, client, method, path))
        place = key & self._mask
        tries = self._tries[place] if self._keys[place] == key & _SIGNED else 0
        return b"retry-after: %d\r\n" % ceil(FIRST_S * 2.0**tries * (1.0 + _jitter(key)))

    def _note(self, key: int, wait_s: float, now: float) -> int:
        """Return the how manieth re-arrival in a row this is; 0 for a first try."""
        place = key & self._mask
        key &= _SIGNED
        again = self._keys[place] == key and now < self._until[place]
        tries = min(self._tries[place] + 1, MOST_DOUBLINGS) if again else 0
        self._keys[place], self._tries[place] = key, tries
        self._until[place] = now + max(wait_s, FIRST_S * 2.0**tries)
        return tries

    def _make(self, places: int) -> None:
        self._keys = array("q", bytes(8 * places))
        self._until = array("d", bytes(8 * places))
        self._tries = array("B", bytes(places))
        self._mask = places - 1

    def _move(self, places: int) -> None:
        """Go on with so many places; where two keys fall on one, the one that waits longer stays."""
        old = zip(self._keys, self._until, self._tries, strict=True)
        self._make(places)
        for key, until, tries in old:
            place = key & self._mask
            if key and until > self._until[place]:
                self._keys[place], self._until[place], self._tries[place] = key, until, tries


def _jitter(key: int) -> float:
    """Return 0..`_SPREAD`, the same for the same key."""
    return _SPREAD * ((key >> 16) & _JITTER_BITS) / _JITTER_BITS
