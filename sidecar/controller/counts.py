"""
A worker's cumulative counters as families of numbers, which can be subtracted, summed and bounded alike.

Every number only grows, and has a key of three parts: a name, a stay (a client's time in the worker's bounded table;
empty for all else) and an index (of a histogram's bucket, or which of the paired numbers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sidecar.facts import OVERFLOW
from sidecar.link.frames import RouteTick, Tick

MAX_SERIES: Final = 100  # METHOD STATUS pairs a route: /metrics stays bounded
MAX_DIRECTIVES: Final = 256  # whose trials and refusals a route remembers

Key = tuple[str, str, int]
Family = dict[Key, float]
Counts = dict[str, Family]
ONLY: Final[Key] = ("", "", 0)  # the key of a family's only number

_NAMED: Final = ("outcomes", "refused", "would_refuse", "ended", "endings", "held", "drilled")
_PAIRED: Final = ("methods", "statuses", "endpoints", "paths", "trials")
_ONLY_SECONDS: Final = frozenset({"clients", "methods", "statuses", "endpoints", "paths"})
_OTHERS: Final = f"{OVERFLOW} {OVERFLOW}"


def of_route(row: RouteTick) -> Counts:
    """Return the counters of one route's part of a tick."""
    counts: Counts = {
        "arrivals": {ONLY: row.arrivals},
        "again": {ONLY: row.again},
        "trips": {ONLY: row.trips},
        "durations": {},
        "durations.sum": {},
        "durations.count": {},
        "clients": {
            (str(key), str(born), at): number
            for key, born, *numbers in row.clients
            for at, number in enumerate(numbers)
        },
        **_timed("latency", row.latency),
        **_timed("drilled_latency", row.drilled_latency),
    }
    for name in _NAMED:
        named: Mapping[str, int] = getattr(row, name)
        counts[name] = {(key, "", 0): number for key, number in named.items()}
    for name in _PAIRED:
        paired: Mapping[str, Sequence[int]] = getattr(row, name)
        counts[name] = {(key, "", at): number for key, pair in paired.items() for at, number in enumerate(pair)}
    for pair, (sum_s, buckets) in row.durations.items():
        counts["durations.sum"][pair, "", 0] = sum_s
        counts["durations.count"][pair, "", 0] = sum(count for _, count in buckets)
        counts["durations"].update({(pair, "", int(index)): count for index, count in buckets})
    return counts


def of_worker(tick: Tick) -> Counts:
    """Return the counters that a worker has beside its routes'."""
    return {
        "ejections": {(label, "", 0): int(row[2]) for label, row in tick.endpoints.items()},
        "retries": {ONLY: tick.retries},
        "retries_denied": {ONLY: tick.retries_denied},
        "tunnels_opened": {ONLY: tick.tunnels_opened},
        "tunnel_bytes": {(way, "", 0): count for way, count in tick.tunnel_bytes.items()},
        "dropped": {ONLY: tick.dropped},
        "untold": {ONLY: tick.untold},
        "log_dropped": {ONLY: tick.log_dropped},
        "handshakes_failed": {ONLY: tick.handshakes_failed},
        **_timed("overhead", tick.overhead),
    }


def _timed(name: str, timing: Sequence[Any]) -> Counts:
    sum_s, buckets = timing
    return {f"{name}.sum": {ONLY: sum_s}, name: {("", "", int(index)): count for index, count in buckets}}


def difference(new: Counts, old: Counts) -> Counts:
    """Return what *new* has more than *old*; a number that fell began again from zero."""
    result: Counts = {}
    for name, family in new.items():
        before = old.get(name, {})
        if family == before:
            continue
        grown: Family = {}
        for key, number in family.items():
            known = before.get(key, 0)
            if number != known:
                grown[key] = number - known if number > known else number
        if grown:
            result[name] = grown
    return result


def merge(into: Counts, more: Counts) -> None:
    """Add *more* to *into*."""
    for name, family in more.items():
        sums = into.setdefault(name, {})
        for key, number in family.items():
            sums[key] = sums.get(key, 0) + number


def merge_bounded(totals: Counts, more: Counts) -> None:
    """Add *more* to *totals* without what only seconds need, and without ever growing past the bounds."""
    kept = {name: family for name, family in more.items() if name not in _ONLY_SECONDS}
    known = totals.get("durations.count", {})
    fresh = [key[0] for key in kept.get("durations.count", ()) if key not in known]
    folded = frozenset(fresh[max(0, MAX_SERIES - len(known)) :])
    for name in ("durations", "durations.sum", "durations.count"):
        if folded and name in kept:
            kept[name] = _folded(kept[name], folded)
    merge(totals, kept)
    for name in ("trials", "held"):
        sums = totals.get(name, {})
        for oldest in list(sums)[: max(0, len(sums) - MAX_DIRECTIVES)]:
            del sums[oldest]


def _folded(family: Family, names: frozenset[str]) -> Family:
    result: Family = {}
    for (name, stay, at), number in family.items():
        key = (_OTHERS if name in names else name, stay, at)
        result[key] = result.get(key, 0) + number
    return result


def only(counts: Counts, name: str) -> float:
    """Return the only number of a family."""
    return counts.get(name, {}).get(ONLY, 0)


def by_name(counts: Counts, name: str) -> dict[str, int]:
    """Return a family's numbers by name."""
    return {key[0]: int(number) for key, number in counts.get(name, {}).items()}


def by_index(counts: Counts, name: str) -> dict[int, int]:
    """Return a family's numbers by index."""
    return {key[2]: int(number) for key, number in counts.get(name, {}).items()}


def rows(counts: Counts, name: str, width: int) -> dict[str, list[int]]:
    """Return a family's numbers by name, as one row of *width* numbers each, summed over stays."""
    found: dict[str, list[int]] = {}
    for (key, _, at), number in counts.get(name, {}).items():
        found.setdefault(key, [0] * width)[at] += int(number)
    return found


def pairs(counts: Counts, name: str) -> dict[str, tuple[int, int]]:
    """Return a family's numbers by name, two each."""
    return {key: (row[0], row[1]) for key, row in rows(counts, name, 2).items()}
