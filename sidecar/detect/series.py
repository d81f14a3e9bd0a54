"""
The last seconds, twice: as bare counts for one detector, and as whole rows for attribution and evidence.

Both are rings of fixed length. Every question is asked by time (`since`), never by index, so a missing second leaves a
gap and shifts nothing.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sidecar.detect.keep import Document
from sidecar.facts import RouteSecond

RECENT_S: Final = 30
KEEP_S: Final = 180.0


class Recent:
    """(requests, bad) of the last *size* entries: seconds, unless the owner adds them up to something longer."""

    __slots__ = ("_at", "_counts", "_next")

    def __init__(self, size: int = RECENT_S) -> None:
        self._at = array("d", [-1e18] * size)
        self._counts = array("f", [0.0] * (2 * size))
        self._next = 0

    def add(self, requests: float, bad: float, at: float) -> None:
        """Put one entry in, the oldest one out."""
        i = self._next
        self._at[i] = at
        self._counts[2 * i], self._counts[2 * i + 1] = requests, bad
        self._next = (i + 1) % len(self._at)

    def since(self, at: float) -> tuple[float, float]:
        """Return (requests, bad) of the entries that ended after *at*."""
        requests = bad = 0.0
        for i, ended_at in enumerate(self._at):
            if ended_at > at:
                requests += self._counts[2 * i]
                bad += self._counts[2 * i + 1]
        return requests, bad

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {"at": list(self._at), "counts": list(self._counts), "next": self._next}

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        self._at = array("d", [at + shift_s for at in row["at"]])
        self._counts = array("f", row["counts"])
        self._next = row["next"]


class _Batch(NamedTuple):
    """What one call added, with the first and the last moment in it."""

    first_at: float
    last_at: float
    rows: tuple[RouteSecond, ...]


class Series:
    """The rows of the last *keep_s* seconds of all routes, in order of arrival."""

    def __init__(self, keep_s: float = KEEP_S) -> None:
        self._keep_s = keep_s
        self._batches: deque[_Batch] = deque()

    def __repr__(self) -> str:
        return f"<Series of {len(self._batches)} seconds>"

    def add(self, seconds: Iterable[RouteSecond], now: float) -> None:
        """Append *seconds* and forget what is older than the ring."""
        rows = tuple(seconds)
        if rows:
            times = [row.at for row in rows]
            self._batches.append(_Batch(min(times), max(times), rows))
        oldest = now - self._keep_s
        while self._batches and self._batches[0].last_at <= oldest:
            self._batches.popleft()

    def between(self, after: float, until: float, route: str | None = None) -> Sequence[RouteSecond]:
        """Return the rows that ended in (after, until], of one route or of all."""
        found: list[RouteSecond] = []
        for first_at, last_at, rows in self._batches:
            if last_at <= after or first_at > until:
                continue
            whole = first_at > after and last_at <= until
            found += rows if whole else [row for row in rows if after < row.at <= until]
        return found if route is None else [row for row in found if row.route == route]
