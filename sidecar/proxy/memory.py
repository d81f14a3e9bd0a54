"""
What comes again: a bounded memory that keeps a value when its key is met for the second time.

Theory.   Messages repeat, but not all of them: a poller says the same for ever, a traced call never says the same twice. A
          memory that takes everything in spends more on the strangers (a place, a value, the eviction of something good)
          than it saves on the regulars. So a key that comes first leaves only its hash at the door; it is let in when it
          comes again (the doorkeeper of G. Einziger, R. Friedman and B. Manes, TinyLFU, ACM Transactions on Storage 13,
          2017). When either of the two is full it begins anew: what is worth keeping is back after two requests.

Bounds.   `size` values, and four times as many hashes of 8 bytes. A reader asks `kept` itself: one look-up in a dictionary.

What can go wrong. Two keys with one hash: the second one is let in at once, which costs a place and nothing else. Hashes of
          bytes are salted in each process, so nobody outside can aim at them.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
_STRANGERS: Final = 4  # × size


class Memory(Generic[K, V]):
    """
    Values by key, at most *size* of them.

    Attributes:
        kept: What is remembered; only to be read.
    """

    __slots__ = ("_met", "_size", "kept")

    def __init__(self, size: int) -> None:
        self.kept: dict[K, V] = {}
        self._met: set[int] = set()
        self._size = size

    def __repr__(self) -> str:
        return f"<Memory {len(self.kept)} of {self._size}, {len(self._met)} met once>"

    def again(self, key: K) -> bool:
        """Tell whether *key*, which is not kept, was met before: then its value is worth a `keep`."""
        mark, met = hash(key), self._met
        if mark in met:
            return True
        if len(met) >= _STRANGERS * self._size:
            met.clear()
        met.add(mark)
        return False

    def keep(self, key: K, value: V) -> V:
        """Remember *value* and return it."""
        if len(self.kept) >= self._size:
            self.kept.clear()
        self.kept[key] = value
        return value
