"""
The heaviest clients of a route, in bounded memory.

Theory
    Space-Saving (Metwally, Agrawal and El Abbadi, 2005): `capacity` entries; an unknown key takes the place of the
    lightest one and inherits its weight, so any client with more than 1/capacity of the weight is in the table, and
    no weight is over-estimated by more than that share. Weights halve every `HALF_LIFE_S`, so the table is about now
    and yesterday's heavy client makes room.

    What an entry *counts* is apart from its weight and exact: requests, failures, slow and refused ones of this stay in
    the table, from zero. `born` is a number that no two stays share: two readings of one client are comparable only when
    it is the same.

Cost
    A hit is one dict look-up. A miss replaces the head of a heap of (weight when last looked at, key); entries that
    grew since are pushed back first, each at most once for the hits that made it grow, so a flood of random keys costs
    O(log capacity) a request.

What can go wrong
    A flood of random keys makes stays short: a client that is not heavy may come and go between two ticks, and what it
    counted in that stay is lost. It was, by the bound above, less than 1/capacity of the traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace
from typing import Final

CAPACITY: Final = 64
HALF_LIFE_S: Final = 30.0
BORN, REQUESTS, FAILURES, SLOW = 0, 1, 2, 3
_WEIGHT, REFUSED = 4, 5


class HeavyClients:
    """The top clients of one route."""

    __slots__ = ("_aged_at", "_born", "_capacity", "_heap", "entries")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.entries: dict[str, list[int]] = {}
        self._capacity = capacity
        self._heap: list[tuple[int, str]] = []
        self._born = 0
        self._aged_at: float | None = None

    def __repr__(self) -> str:
        return f"<HeavyClients {len(self.entries)}/{self._capacity}>"

    def enter(self, key: str) -> list[int]:
        """Return a new entry for the unknown *key*, in the lightest one's place when the table is full."""
        self._born += 1
        weight = 0
        if len(self.entries) >= self._capacity:
            weight = self._evict(key)
        entry = self.entries[key] = [self._born, 0, 0, 0, weight, 0]
        return entry

    def _evict(self, key: str) -> int:
        heap, entries = self._heap, self.entries
        if not heap:
            heap.extend((entry[_WEIGHT], name) for name, entry in entries.items())
            heapify(heap)
        while True:
            known, lightest = heap[0]
            weight = entries[lightest][_WEIGHT]
            if weight == known:
                del entries[lightest]
                heapreplace(heap, (weight, key))
                return weight
            heapreplace(heap, (weight, lightest))

    def age(self, now: float) -> None:
        """Halve the weights when a half-life has passed; call it about once a second."""
        if self._aged_at is None:
            self._aged_at = now
        if now - self._aged_at < HALF_LIFE_S:
            return
        self._aged_at = now
        for entry in self.entries.values():
            entry[_WEIGHT] >>= 1
        self._heap.clear()

    def rows(self) -> list[Sequence[object]]:
        """Return [key, born, requests, failures, slow, refused] of every entry."""
        return [[key, *entry[:_WEIGHT], entry[REFUSED]] for key, entry in self.entries.items()]
