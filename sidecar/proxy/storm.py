"""
Who asks again too soon: the same client, method and path within the back-off after a refusal or a 5xx.

Theory
    A retry storm is load that an outage makes of itself. It is seen where it costs nothing to those who are served: only a
    request that ends in a refusal or a 5xx is looked up, and remembered with the moment until which its client was to
    wait. One that ends so again before that moment is a re-arrival. Amplification is arrivals / (arrivals − re-arrivals).

Tables
    the wait after                      is
    our refusal                         what its Retry-After says, at least 1 s
    a 5xx of the API                    1 s
    each re-arrival in a row            twice as long as before, at least, up to 64 s; also in our Retry-After, jittered,
                                        where it is no exact time to a token

    memory    4,096 places of 17 bytes a worker, found by a hash; a newer key takes an older one's place

What can go wrong
    A million keys: places are overwritten, re-arrivals are missed, none is made up. A client that heeds its Retry-After is
    never one. A retry that is served well is not looked up, so what a storm costs after its cause is gone is not counted.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Final, Protocol

from sidecar.reasons import TABLE, Reason, Refusal, RetryAfter

PLACES: Final = 4096
FIRST_S: Final = 1.0
MOST_DOUBLINGS: Final = 6
_MASK: Final = PLACES - 1
_SIGNED: Final = 2**63 - 1


class Counters(Protocol):
    """What counts a re-arrival."""

    def rearrived(self) -> None:
        """Count one."""


class Storm:
    """The memory of one worker."""

    __slots__ = ("_keys", "_tries", "_until")

    def __init__(self) -> None:
        self._keys = array("q", bytes(8 * PLACES))
        self._until = array("d", bytes(8 * PLACES))
        self._tries = array("B", bytes(PLACES))

    def __repr__(self) -> str:
        return f"<Storm {sum(1 for key in self._keys if key)} of {PLACES} places>"

    def refused(
        self, counters: Counters, route: str, client: str, method: str, path: str, refusal: Refusal, now: float
    ) -> Refusal:
        """Remember a refusal, or a 5xx of ours, and return it with the wait that its client has earned."""
        if refusal.reason is Reason.DRILL:
            return refusal
        tries = self._note(hash((route, client, method, path)), refusal.retry_after_s, now)
        if not tries:
            return refusal
        counters.rearrived()
        if TABLE[refusal.reason].retry_after is not RetryAfter.JITTERED:
            return refusal
        return replace(refusal, retry_after_s=max(refusal.retry_after_s, FIRST_S * 2.0**tries))

    def failed(self, counters: Counters, route: str, client: str, method: str, path: str, now: float) -> None:
        """Remember a 5xx of the API."""
        if self._note(hash((route, client, method, path)), 0.0, now):
            counters.rearrived()

    def _note(self, key: int, wait_s: float, now: float) -> int:
        """Return the how manieth re-arrival in a row this is; 0 for a first try."""
        place = key & _MASK
        key &= _SIGNED
        again = self._keys[place] == key and now < self._until[place]
        tries = min(self._tries[place] + 1, MOST_DOUBLINGS) if again else 0
        self._keys[place], self._tries[place] = key, tries
        self._until[place] = now + max(wait_s, FIRST_S * 2.0**tries)
        return tries
